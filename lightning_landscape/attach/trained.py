"""A run of a module on its data, quiet, with the weights of its epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from lightning_landscape.either_lightning import Callback, alike, both
from lightning_landscape.storage.named_tensors import module_state


class _Epochs(Callback):
    """Keeps the weights at the end of each epoch, evenly thinned to at most ``most``."""

    def __init__(self, most: int) -> None:
        self.kept: list[tuple[int, dict[str, Tensor]]] = []
        self._most = most
        self._stride = 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self._stride == 0:
            self.kept.append((trainer.global_step, _on_cpu(pl_module)))
        if len(self.kept) > self._most:
            self._stride *= 2
            self.kept = self.kept[1::2]


def trained(
    model: pl.LightningModule, data: Any, options: Mapping[str, Any], most: int = 64
) -> list[tuple[int, dict[str, Tensor]]]:
    """Trains the model and gives its steps and weights at the ends of epochs; the last are those at the end.

    Random numbers come from the global state: call it inside ``isolated_rng``.

    Args:
        model: a module, freshly built.
        data: its LightningDataModule, a loader, or ``None`` for a module that brings its own.
        options: of the trainer.
        most: epochs that are kept at most, evenly spread.
    """
    epochs = _Epochs(most)
    trainer = alike(pl.Trainer, model)(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[epochs],
        **options,
    )
    kinds = both(pl.LightningDataModule)
    if isinstance(data, kinds):
        trainer.fit(model, datamodule=data)
    else:
        trainer.fit(model, data)
    if not epochs.kept or epochs.kept[-1][0] != trainer.global_step:
        epochs.kept.append((trainer.global_step, _on_cpu(model)))
    return epochs.kept


def _on_cpu(model: pl.LightningModule) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module_state(model).items()}
