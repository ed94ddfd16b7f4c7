"""The five benchmark pairs: two trainings of one network from two initialisations, stopped at one loss."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape import LossSurface
from lightning_landscape.datamodules import (
    CIFAR10DataModule,
    DigitsDataModule,
    MNISTDataModule,
    PolynomialDataModule,
)
from lightning_landscape.datamodules.parts.in_memory import InMemoryDataModule
from lightning_landscape.models import ImageClassifier, PolynomialRegressor
from lightning_landscape.storage.atomic import replacing
from scripts.reproduce.shared.kept import KeptError, described

_EVERY = 10  # training steps between looks at E
_SEEDS = (0, 1)  # of the two ends
# Of every data module of Lightning's; they change no number.
_IDLE = {
    "prepare_data_per_node", "allow_zero_length_dataloader_with_multiple_devices", "trainer", "root", "source",
    "num_workers", "download", "splits",
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """How a pair is trained, and on what its loss is measured.

    Attributes:
        name: of the pair.
        data: makes the data module, from a cache folder and the folder of the raw files.
        model: makes the network.
        loss: training stops once E is at most this.
        batch_size: of training, and of the beads.
        probe: batches that define E, and the examples in each.
    """

    name: str
    data: Callable[[Path, Path], InMemoryDataModule]
    model: Callable[[], LightningModule]
    loss: float
    batch_size: int
    probe: tuple[int, int]


def _mnist(root: Path, source: Path) -> InMemoryDataModule:
    return MNISTDataModule(root=root, source=source)


def _cifar(root: Path, source: Path) -> InMemoryDataModule:
    return CIFAR10DataModule(root=root, source=source, val_size=40_000, augment=False)


PAIRS = [
    Pair("digits", lambda *_: DigitsDataModule(), lambda: ImageClassifier(image_size=8), 0.1, 64, (8, 128)),
    Pair("mnist-0.1", _mnist, ImageClassifier, 0.1, 100, (8, 128)),
    Pair("mnist-0.03", _mnist, ImageClassifier, 0.03, 100, (8, 128)),
    Pair(
        "quadratic",
        lambda *_: PolynomialDataModule("quadratic"),
        lambda: PolynomialRegressor(learning_rate=1e-2),
        0.02,
        500,
        (2, 1000),
    ),
    Pair(
        "cifar-bn",
        _cifar,
        lambda: ImageClassifier(in_channels=3, image_size=32, batch_norm=True),
        1.0,
        128,
        (8, 128),
    ),
]


@dataclass(frozen=True)
class Trained:
    """A surface with two trained points on it, and the training steps that both took together."""

    surface: LossSurface
    theta_a: Tensor
    theta_b: Tensor
    steps: int
    settings: dict[str, Any]


def settings_of(pair: Pair) -> dict[str, Any]:
    """All that the ends of a pair depend on, plain JSON."""
    data, model = pair.data(Path(), Path()), pair.model()
    arguments = {name: value for name, value in vars(data).items() if name not in _IDLE and not name.startswith("_")}
    return {
        "data": {"class": type(data).__name__, **described(arguments)},
        "model": {"class": type(model).__name__, **described(dict(model.hparams))},
        "loss": pair.loss,
        "batch_size": pair.batch_size,
        "probe": [*pair.probe],
        "every": _EVERY,
        "seeds": [*_SEEDS],
    }


def trained(pair: Pair, cache: Path, source: Path) -> Trained:
    """Trains a pair, or reads it from ``cache``, where the unpacked data are kept too.

    Raises:
        KeptError: if the pair in the cache was trained with other settings.
    """
    data = pair.data(cache / "data", source)
    data.prepare_data()
    data.setup("fit")
    train = data.splits["train"]
    inputs, targets = train[: pair.probe[0] * pair.probe[1]]
    probe = list(zip(inputs.split(pair.probe[1]), targets.split(pair.probe[1]), strict=True))
    file = cache / f"{pair.name}.safetensors"
    settings = settings_of(pair)
    key = json.dumps(settings, sort_keys=True)
    if not file.exists():
        ends = [_train(pair, seed, train, probe) for seed in _SEEDS]
        points = {"theta_a": ends[0][0], "theta_b": ends[1][0]}
        with replacing(file) as handle:
            handle.write(save(points, {"steps": str(ends[0][1] + ends[1][1]), "settings": key}))
    with safe_open(file, "pt") as handle:
        theta_a, theta_b = handle.get_tensor("theta_a"), handle.get_tensor("theta_b")
        header = handle.metadata()
    if header.get("settings") != key:
        raise KeptError(f"{file} was trained with other settings: give another --cache, or delete it to train anew")
    ends_are = hashlib.sha256(file.read_bytes()).hexdigest()
    surface = LossSurface(pair.model(), probe, training_batches=_loader(train, pair.batch_size, seed=2))
    return Trained(surface, theta_a, theta_b, int(header["steps"]), {**settings, "ends": ends_are})


def _train(pair: Pair, seed: int, train: TensorDataset, probe: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, int]:
    torch.manual_seed(seed)
    model = pair.model()
    optimizer = model.configure_optimizers()
    surface = LossSurface(model, probe)
    loader = _loader(train, pair.batch_size, seed)
    for step, batch in enumerate(itertools.chain.from_iterable(itertools.repeat(loader)), start=1):
        optimizer.zero_grad()
        model.train()
        output = model.training_step(batch, step)
        (output["loss"] if isinstance(output, dict) else output).backward()
        optimizer.step()
        if step % _EVERY == 0:
            theta = surface.point(dict(model.named_parameters()))
            if surface.loss(theta) <= pair.loss:
                return theta, step
    raise AssertionError("an endless stream of batches has ended")


def _loader(train: TensorDataset, batch_size: int, seed: int) -> DataLoader[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(train, batch_size, shuffle=True, drop_last=True, generator=generator)
