"""Has a pairing see what the module trains on, and take its own steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from torch.optim import Optimizer

from lightning_landscape.callbacks.keeping import KeepingCallback
from lightning_landscape.callbacks.pairings import Pairing
from lightning_landscape.storage.snapshots import SnapshotError


class FollowingCallback(KeepingCallback):
    """Tells its pairing of each batch and step of the fit."""

    _pairing: Pairing | None  # of the fit

    def known(self, state: dict[str, Any]) -> Mapping[str, str]:
        """The one that the next check compares with."""
        name = state["pairing"].get("name")
        return {} if name is None else {name: state["pairing"]["hash"]}

    def settle(self, trainer: pl.Trainer, pl_module: pl.LightningModule, gone: Any) -> Any:
        """Looks for the snapshot that the next check compares with; why it cannot be read."""
        assert self._store is not None
        assert self._pairing is not None
        self.recovered(trainer, pl_module, self._pairing.needed() or {})
        gone = super().settle(trainer, pl_module, gone)
        try:
            self._pairing.partner(self._store)
        except SnapshotError as error:
            if self.on_error == "raise":
                raise
            rank_zero_warn(f"{error}: the next check compares with nothing, and later ones with its weights")
            return str(error)
        return gone

    def lose(self, gone: Any) -> None:
        """Begins to compare anew."""
        assert self._pairing is not None
        self._pairing.lose(str(gone))

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
