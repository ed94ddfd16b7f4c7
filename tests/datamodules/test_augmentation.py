"""Flips and crops: what they do, that a seed repeats them, and that no probe ever sees them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape.attach.probe import TrainingData
from lightning_landscape.callbacks import LevelSetConnectivity, level_set
from lightning_landscape.datamodules import CIFAR10DataModule
from lightning_landscape.datamodules.parts.augmentation import AugmentingLoader, flip_and_crop
from lightning_landscape.finders import DynamicStringSampling
from lightning_landscape.models import ImageClassifier


def every_view(image: Tensor, padding: int) -> list[Tensor]:
    """All crops of the bordered image and of its mirror image, one by one."""
    channels, height, width = image.shape
    views = []
    for picture in (image, image.flip(-1)):
        border = torch.zeros(channels, height + 2 * padding, width + 2 * padding)
        border[:, padding : padding + height, padding : padding + width] = picture
        for top in range(2 * padding + 1):
            views += [border[:, top : top + height, left : left + width] for left in range(2 * padding + 1)]
    return views


def test_gives_every_view_equally_often_and_nothing_else() -> None:
    image = torch.arange(1.0, 13.0).reshape(2, 2, 3)
    views = every_view(image, padding=1)
    assert len({view.numpy().tobytes() for view in views}) == 18
    count = 9000
    found = Counter(view.numpy().tobytes() for view in flip_and_crop(image.expand(count, -1, -1, -1), padding=1))
    assert set(found) == {view.numpy().tobytes() for view in views}
    # Chi-square with 17 degrees of freedom exceeds 40.8 once in a thousand; the seed is fixed.
    assert sum((seen - count / 18) ** 2 / (count / 18) for seen in found.values()) < 40.8


def test_treats_images_apart_and_leaves_its_argument() -> None:
    images = torch.randn(64, 3, 8, 8)
    before = images.clone()
    result = flip_and_crop(images)
    assert torch.equal(images, before)
    assert (result.shape, result.dtype, result.is_contiguous()) == (images.shape, images.dtype, True)
    for image, view in zip(images, result, strict=True):
        assert any(torch.equal(view, other) for other in every_view(image, padding=4))
    assert flip_and_crop(images[:0]).shape == (0, 3, 8, 8)


def test_without_padding_an_image_or_its_mirror_image() -> None:
    images = torch.randn(32, 1, 5, 7)
    result = flip_and_crop(images, padding=0)
    kept = [torch.equal(view, image) for image, view in zip(images, result, strict=True)]
    mirrored = [torch.equal(view, image.flip(-1)) for image, view in zip(images, result, strict=True)]
    assert [a != b for a, b in zip(kept, mirrored, strict=True)] == [True] * 32
    assert 5 < sum(kept) < 27


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_seed_repeats_the_draws_whatever_the_number_of_workers(workers: int) -> None:
    data = TensorDataset(torch.randn(12, 3, 8, 8), torch.arange(12))
    runs = []
    for loader_workers in (0, workers):
        pl.seed_everything(3, verbose=False)
        loader = AugmentingLoader(data, batch_size=5, shuffle=True, num_workers=loader_workers)
        runs.append([[images, labels] for _ in range(2) for images, labels in loader])
    for first, second in zip(*runs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(runs[0][0][0], runs[0][3][0])


class Small(CIFAR10DataModule):
    """Random images in place of the files."""

    def prepare_data(self) -> None:
        pass

    def setup(self, stage: str | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        for name in ("train", "val", "test"):
            images = torch.randn(24, 3, 8, 8, generator=generator)
            self.splits[name] = TensorDataset(images, torch.randint(10, (24,), generator=generator))


def rows_of(batches: list[Any]) -> list[bytes]:
    return [image.numpy().tobytes() for images, _ in batches for image in images]


class Watch(pl.Callback):
    """Notes the batches of training, and in the middle of it what a probe reads."""

    def __init__(self) -> None:
        self.trained: list[Any] = []
        self.probed: list[Any] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.trained.append([part.clone() for part in batch])

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        source = TrainingData(trainer)
        self.probed += source.take(2) + source.take(2)


def fit(folder: Path, *callbacks: pl.Callback, augment: bool = True, **model: Any) -> pl.Trainer:
    pl.seed_everything(1, verbose=False)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=[*callbacks],
    )  # fmt: skip
    model = {"architecture": "lenet", **model}
    trainer.fit(ImageClassifier(in_channels=3, image_size=8, **model), datamodule=Small(batch_size=8, augment=augment))
    return trainer


def test_training_is_augmented_and_a_probe_is_not(tmp_path: Path) -> None:
    watch = Watch()
    trainer = fit(tmp_path, watch)
    images = {image.numpy().tobytes() for image in trainer.datamodule.splits["train"].tensors[0]}
    trained, probed = rows_of(watch.trained), rows_of(watch.probed)
    assert len(trained) == 48
    assert sum(row in images for row in trained) < 5  # one view in 162 is the image itself
    assert len(probed) == 2 * 2 * 2 * 8
    assert all(row in images for row in probed)


def test_no_augmentation_where_it_is_not_asked_for(tmp_path: Path) -> None:
    watch = Watch()
    trainer = fit(tmp_path, watch, augment=False)
    images = {image.numpy().tobytes() for image in trainer.datamodule.splits["train"].tensors[0]}
    assert all(row in images for row in rows_of(watch.trained))


def test_validation_test_and_prediction_see_the_images_as_they_are() -> None:
    data = Small(batch_size=24)
    data.setup()
    for name in ("val", "test"):
        loader: DataLoader[Any] = getattr(data, f"{name}_dataloader")()
        assert torch.equal(next(iter(loader))[0], data.splits[name].tensors[0])
    assert torch.equal(next(iter(data.predict_dataloader())), data.splits["test"].tensors[0])


@pytest.mark.parametrize(("pairs", "normalization"), [("twin", "batch"), ("lagged", "group")])
def test_training_is_the_same_with_the_callback(
    tmp_path: Path, pairs: Any, normalization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"architecture": "resnet20", "width": 0.25, "normalization": normalization}
    for name in ("profile_figure", "history_figure", "save_figure"):  # drawing takes longer than all the rest
        monkeypatch.setattr(level_set, name, lambda *args: None)
    plain = Watch()
    expected = fit(tmp_path / "plain", plain, **model)
    expected_state = torch.get_rng_state()
    ours, watch = LevelSetConnectivity(
        pairs, finder=DynamicStringSampling(max_depth=1, max_bead_steps=2, shorten=0, samples=3), num_batches=2,
        overhead=1.0, dirpath=tmp_path / "ours", on_error="raise",
    ), Watch()  # fmt: skip
    trainer = fit(tmp_path / "ours", ours, watch, **model)
    assert torch.equal(torch.get_rng_state(), expected_state)
    for mine, other in zip(watch.trained, plain.trained, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))
    for name, value in expected.model.state_dict().items():
        assert torch.equal(trainer.model.state_dict()[name], value), name
    assert len(ours.rows) == (2 if pairs == "twin" else 1)
    assert all(row["reason"] != "error" for row in ours.rows)
