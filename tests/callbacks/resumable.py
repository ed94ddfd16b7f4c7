"""A small run that can be killed and resumed; as a program, it runs many of them and kills each.

A killed run is a fork of a process that has only imported, which is safe before the first backward pass.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape.callbacks import LevelSetConnectivity, level_set
from lightning_landscape.finders import DynamicStringSampling

EPOCHS = 5
SAVED = {
    "at validation end": {"save_on_train_epoch_end": False},
    "at epoch end": {"save_on_train_epoch_end": True},
    "after the last batch": {"every_n_train_steps": 4},
}


class Net(pl.LightningModule):
    """Trains the same way in every process: no dropout, and data in their order."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 6, gamma=0.7)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def data() -> DataLoader[Any]:
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long()), 16)


def rugged(module: Any, batch: list[Tensor]) -> Tensor:
    """A loss with hills between any two points, so that every check has to search."""
    loss = nn.functional.cross_entropy(module.net(batch[0]), batch[1])
    return loss + 0.3 * torch.cos(80 * module.net[0].weight.sum())


def run(folder: Path, pairs: str, saved: str = "at validation end", ckpt_path: Any = None, **options: Any) -> Any:
    """Fits, and returns the callback."""
    finder = DynamicStringSampling(max_depth=2, max_bead_steps=6, shorten=0, samples=3)
    settings = {"dirpath": folder / "landscape", "num_batches": 2, "margin": 0.0, "overhead": 10.0, "loss_fn": rugged}
    callback = LevelSetConnectivity(pairs, finder=finder, **settings | {"on_error": "raise"} | options)
    checkpoint = ModelCheckpoint(folder / "checkpoints", "{epoch}", save_top_k=-1, **SAVED[saved])
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        callbacks=[callback, checkpoint],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(), data(), data(), ckpt_path=ckpt_path)
    return callback


def without_figures() -> None:
    """Drawing takes longer than all the rest."""
    for name in ("profile_figure", "history_figure", "save_figure"):
        setattr(level_set, name, lambda *args: None)


def die(*args: Any, **kwargs: Any) -> None:
    """As kill -9 or the kernel's out-of-memory killer would have it."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_search() -> None:
    """In the middle of the second check, after some of its work."""
    connect, calls = DynamicStringSampling.connect, []

    def deadly(self: Any, surface: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            surface.gradients(surface.point()[None], next(surface.training_stream()))
            die()
        return connect(self, surface, *args, **kwargs)

    DynamicStringSampling.connect = deadly  # type: ignore[method-assign]


def die_in_replace(suffix: str, count: int) -> None:
    """While the ``count``-th file of that suffix is under its temporary name, half of it lost."""
    replace, calls = os.replace, []

    def deadly(source: Any, target: Any) -> None:
        if str(target).endswith(suffix):
            calls.append(1)
            if len(calls) == count:
                os.truncate(source, os.path.getsize(source) // 2)
                die()
        replace(source, target)

    os.replace = deadly  # type: ignore[assignment]


def die_in_append(count: int) -> None:
    """With half of the ``count``-th row written."""
    write, calls = os.write, []

    def deadly(handle: int, data: Any) -> int:
        if bytes(data).startswith(b'{"check"'):
            calls.append(1)
            if len(calls) == count:
                write(handle, data[: len(data) // 2])
                die()
        return write(handle, data)

    os.write = deadly  # type: ignore[assignment]


MOMENTS = {
    "search": die_in_search,
    "snapshot": lambda: die_in_replace(".safetensors", 3),
    "rows": lambda: die_in_append(3),
}
KILLED = {"lagged": ("search", "snapshot", "rows"), "first": ("search",), "twin": ("search", "snapshot")}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    without_figures()
    for pairs, moments in KILLED.items():
        for moment in moments:
            child = os.fork()
            if child == 0:
                MOMENTS[moment]()
                run(folder / f"{pairs}-{moment}", pairs)
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
                sys.exit(f"{pairs}, {moment}: ended with status {status} instead of being killed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
