"""Small runs that a SnapshotRecorder watches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape.callbacks.snapshots import SnapshotRecorder
from lightning_landscape.storage.snapshots import module_state

STEPS = 3  # batches in an epoch


class Net(pl.LightningModule):
    """Dropout and batch norm; logs ``metric`` with the scripted values, from the hook ``logged_in``."""

    def __init__(self, values: list[float] = (), logged_in: str = "training_step", **log: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
        self.values, self.logged_in, self.log_options = list(values), logged_in, log

    def _log_metric(self, hook: str, index: int) -> None:
        if hook == self.logged_in and self.values and not self.trainer.sanity_checking:
            self.log("metric", self.values[min(index, len(self.values) - 1)], batch_size=1, **self.log_options)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True)
        self._log_metric("training_step", self.global_step)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))
        self._log_metric("validation_step", self.current_epoch)
        if self.trainer.sanity_checking:
            self.log("metric", -100.0)

    def on_validation_epoch_end(self) -> None:
        self._log_metric("on_validation_epoch_end", self.current_epoch)

    def on_train_epoch_end(self) -> None:
        self._log_metric("on_train_epoch_end", self.current_epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Watch(pl.Callback):
    """What the weights were after each step, and the metrics of each epoch."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, Tensor]] = {}
        self.logged: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.states[trainer.global_step] = module_state(pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.logged.append({name: float(value) for name, value in trainer.logged_metrics.items()})


def data() -> DataLoader[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(STEPS * 4, 4, generator=generator)
    return DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), batch_size=4, shuffle=True)


def trainer_for(folder: Path, *callbacks: pl.Callback, max_epochs: int = 4, **options: Any) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    settings = {"logger": False, "accelerator": "cpu", "log_every_n_steps": 1, **quiet} | options
    return pl.Trainer(default_root_dir=folder, callbacks=list(callbacks), max_epochs=max_epochs, **settings)


def fit(folder: Path, module: pl.LightningModule, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    pl.seed_everything(1, verbose=False)
    ckpt_path = options.pop("ckpt_path", None)
    trainer = trainer_for(folder, *callbacks, **options)
    trainer.fit(module, data(), data(), ckpt_path=ckpt_path)
    return trainer


def names(recorder: SnapshotRecorder) -> list[str]:
    return [snapshot.name for snapshot in recorder.snapshots]
