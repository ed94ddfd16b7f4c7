"""Trainings of many kinds, each of which callbacks must leave as it is."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, WeightAveraging
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC


class Classifier(pl.LightningModule):
    """A small CNN with dropout and batch norm; the step's hash of its batch is what the data order is judged by."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(16, 3)
        )
        self.batches: list[str] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.saw(batch)
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    def saw(self, batch: list[Tensor]) -> None:
        self.batches.append(hashlib.sha256(b"".join(part.numpy().tobytes() for part in batch)).hexdigest())


class Measured(Classifier):
    """Logs torchmetrics, one of which keeps all that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = MulticlassAccuracy(3)
        self.auroc = MulticlassAUROC(3)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.saw(batch)
        logits = self.net(batch[0])
        self.accuracy(logits, batch[1])
        self.auroc.update(logits.detach(), batch[1])
        self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)
        self.log("auroc", self.auroc, on_epoch=True)
        return nn.functional.cross_entropy(logits, batch[1])


class Scheduled(Classifier):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, self.trainer.estimated_stepping_batches)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Overwriting(Classifier):
    """Changes its batch in place."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.saw(batch)
        batch[0].mul_(0.5).add_(torch.randn_like(batch[0]) if self.training else 0.0)
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])


class Gan(Classifier):
    """Two optimisers, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Linear(5, 16)
        self.critic = nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.2), nn.LeakyReLU(), nn.Linear(8, 1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.saw(batch)
        images = batch[0].flatten(1)
        for index, optimizer in enumerate(self.optimizers()):
            self.toggle_optimizer(optimizer)
            fake = self.critic(self.generator(torch.randn(len(images), 5)))
            loss = -fake.mean() if index == 0 else fake.mean() - self.critic(images).mean()
            self.log(f"loss_{index}", loss)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in (self.generator, self.critic)]


class Augmented(Dataset[Any]):
    """Draws its noise from a generator of its own."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.inner = images()

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        image, label = self.inner[index]
        return image + torch.from_numpy(self.rng.normal(size=image.shape).astype(np.float32)), label


class Jitter:
    """A collate function with a state."""

    def __init__(self) -> None:
        self.rng = random.Random(0)

    def __call__(self, items: list[Any]) -> list[Tensor]:
        inputs, labels = default_collate(items)
        return [inputs * self.rng.random(), labels]


class Collating(pl.LightningDataModule):
    """Collates by a method of its own, as many do, and so reaches the trainer from there."""

    def __init__(self) -> None:
        super().__init__()
        self.jitter = Jitter()

    def collate(self, items: list[Any]) -> list[Tensor]:
        assert self.trainer is not None
        return self.jitter(items)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(images(), 8, shuffle=True, collate_fn=self.collate)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(images(), 16)


def images() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(32, 1, 4, 4, generator=generator)
    return TensorDataset(inputs, inputs.flatten(1)[:, :3].argmax(1))


def critic_loss(module: Any, batch: list[Tensor]) -> Tensor:
    fake = module.generator(torch.linspace(-1, 1, 5 * len(batch[0])).reshape(-1, 5))
    return nn.functional.softplus(module.critic(fake)).mean()


@dataclass
class Case:
    """One kind of training: a module, its data and what the trainer is told."""

    module: Callable[[], Any] = Classifier
    dataset: Callable[[], Dataset[Any]] = images
    loader: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: Callable[[], list[pl.Callback]] = list
    datamodule: Callable[[], pl.LightningDataModule] | None = None
    loss_fn: Any = None
    pairs: tuple[str, ...] = ("lagged", "first", "reference", "twin")


CASES = {
    "digits": Case(),
    "torchmetrics": Case(Measured),
    "gan": Case(Gan, loss_fn=critic_loss, pairs=("lagged", "first", "reference")),
    "accumulation": Case(trainer={"accumulate_grad_batches": 3}),
    "two workers": Case(loader={"num_workers": 2}),
    "persistent workers": Case(dataset=Augmented, loader={"num_workers": 1, "persistent_workers": True}),
    "ema": Case(callbacks=lambda: [EMAWeightAveraging(decay=0.8)]),
    "averaging": Case(callbacks=lambda: [WeightAveraging()]),
    "compiled": Case(lambda: torch.compile(Classifier(), backend="eager")),
    "bf16": Case(trainer={"precision": "bf16-mixed"}),
    "own generator": Case(dataset=Augmented),
    "own generator in collate": Case(datamodule=Collating),
    "batch changed in place": Case(Overwriting, loss_fn=lambda m, b: nn.functional.cross_entropy(m.net(b[0]), b[1])),
    "schedule": Case(Scheduled, trainer={"gradient_clip_val": 0.1}),
    "limits": Case(trainer={"limit_train_batches": 3, "val_check_interval": 2}),
    "clipping by value": Case(trainer={"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
}
SLOW = ("compiled", "two workers", "averaging", "clipping by value")
