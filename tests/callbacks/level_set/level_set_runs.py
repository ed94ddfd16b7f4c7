"""Small runs for a check to watch, and a finder that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape import Connection
from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.connection import Reason
from lightning_landscape.finders import PathFinder
from lightning_landscape.finders.chain import Chain
from lightning_landscape.finders.search import Search

METRICS = {
    f"landscape/{name}"
    for name in (
        "connected",
        "height",
        "barrier",
        "linear_barrier",
        "normalized_length",
        "num_beads",
        "gradient_steps",
        "seconds",
    )
}
BATCHES = 4  # per epoch


def examples() -> TensorDataset:
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long())


class Net(LightningModule):
    def __init__(self, hidden: int = 6) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.layers(batch[0]), batch[1])

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.layers(batch[0])  # type: ignore[no-any-return]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.2)

    def train_dataloader(self) -> Any:
        return DataLoader(examples(), batch_size=64 // BATCHES, shuffle=True)


class Validated(Net):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.layers(batch[0]), batch[1]))

    test_step = validation_step

    def val_dataloader(self) -> Any:
        return DataLoader(examples(), batch_size=32)


class Ring(Net):
    """E(w) = (|w| - 1)^2: the level sets are rings, and the line from w to -w crosses a hill of height 1."""

    def __init__(self, w: tuple[float, float] = (1.1, 0.0)) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        self.w = nn.Parameter(torch.tensor(w))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return torch.square(self.w.norm() - 1)


def trainer_of(folder: Path, *callbacks: Callback, epochs: int = 3, **options: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return Trainer(callbacks=list(callbacks), **(defaults | options))


def attached(folder: Path, **options: Any) -> LevelSetConnectivity:
    return LevelSetConnectivity(**{"dirpath": folder / "landscape", "num_batches": 2, **options})


def other_weights(folder: Path, module: LightningModule) -> Path:
    torch.save({"state_dict": module.state_dict()}, folder / "other.ckpt")
    return folder / "other.ckpt"


def rows_on_disk(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "checks.jsonl").read_text().splitlines()]


class Failing(PathFinder):
    """A user's finder that raises at the given calls, and returns the straight line at others."""

    def __init__(self, *calls: int, **options: Any) -> None:
        super().__init__(**options)
        self.calls = 0
        self.bad = calls

    def connect(self, *args: Any, **options: Any) -> Connection:
        self.calls += 1
        if self.calls in self.bad:
            raise RuntimeError(f"call {self.calls} went wrong")
        return super().connect(*args, **options)

    def search(self, search: Search) -> tuple[Chain, Reason]:
        return Chain([search.line], search.line.length, self.samples), Reason.DEPTH
