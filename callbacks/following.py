"""Has a pairing see what the module trains on, and take its own steps."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch.optim import Optimizer

from lightning_landscape.callbacks.keeping import KeepingCallback
from lightning_landscape.callbacks.pairings import Pairing


class FollowingCallback(KeepingCallback):
    """Tells its pairing of each batch and step of the fit."""

    _pairing: Pairing | None  # of the fit

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Records the batch where that is needed, and shows it to the pairing."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._pairing is not None:
            self._pairing.keep(batch)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Shows the pairing the hyperparameters of the moment."""
        if self._pairing is not None:
            self._pairing.follow(optimizer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lets the pairing do its own work, counts that of training, and checks when the step is reached."""
        if self._pairing is not None:
            self._pairing.step(batch_idx)
            if self._pairing.failure is not None and self.on_error == "raise":
                raise self._pairing.failure
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
