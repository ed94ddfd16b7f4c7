from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from lightning_landscape.datamodules import DigitsDataModule


def ready(**arguments: object) -> DigitsDataModule:
    data = DigitsDataModule(**arguments)
    data.setup("fit")
    return data


def pixels(data: DigitsDataModule, split: str) -> Tensor:
    """The original pixels 0..16 of a split, one image a row."""
    images = data.splits[split].tensors[0] * data.std + data.mean
    return (images * 16).round().to(torch.int64).flatten(1)


def test_shapes_and_types() -> None:
    data = ready(batch_size=50)
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (50, 1, 8, 8)
    assert images.dtype == torch.float32
    assert labels.shape == (50,)
    assert labels.dtype == torch.int64
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 1079, "val": 359, "test": 359}


def test_every_loader_covers_its_split_once() -> None:
    data = ready()
    for name, loader in (
        ("train", data.train_dataloader()),
        ("val", data.val_dataloader()),
        ("test", data.test_dataloader()),
    ):
        labels = torch.cat([labels for _, labels in loader])
        assert torch.equal(labels.bincount(), data.splits[name].tensors[1].bincount())


def test_splits_are_a_partition_of_the_original_images() -> None:
    data = ready(seed=3)
    found = torch.cat([pixels(data, name) for name in ("train", "val", "test")])
    labels = torch.cat([data.splits[name].tensors[1] for name in ("train", "val", "test")])
    original = load_digits()
    rows = sorted((*row, label) for row, label in zip(found.tolist(), labels.tolist(), strict=True))
    expected = sorted(
        (*row, label) for row, label in zip(original.data.astype(int).tolist(), original.target.tolist(), strict=True)
    )
    assert rows == expected


def test_training_split_is_standardised_and_the_others_by_its_statistics() -> None:
    data = ready()
    train = data.splits["train"].tensors[0].double()
    assert train.mean().item() == pytest.approx(0, abs=1e-5)
    assert train.std().item() == pytest.approx(1, abs=1e-5)
    for name in ("val", "test"):
        images = data.splits[name].tensors[0]
        assert images.min().item() == pytest.approx(-data.mean / data.std, abs=1e-6)
        assert images.max().item() == pytest.approx((1 - data.mean) / data.std, abs=1e-6)


def test_splits_are_stratified() -> None:
    data = ready(val_fraction=0.1, test_fraction=0.3)
    total = np.bincount(load_digits().target)
    for name, fraction in (("train", 0.6), ("val", 0.1), ("test", 0.3)):
        counts = data.splits[name].tensors[1].bincount().numpy()
        assert np.abs(counts - fraction * total).max() < 2


def test_the_seed_alone_decides_the_split() -> None:
    torch.manual_seed(1)
    first = ready(seed=5)
    torch.manual_seed(2)
    again, other = ready(seed=5), ready(seed=6)
    for name in ("train", "val", "test"):
        assert torch.equal(first.splits[name].tensors[0], again.splits[name].tensors[0])
        assert not torch.equal(first.splits[name].tensors[1], other.splits[name].tensors[1])


def test_setup_leaves_global_random_state_alone() -> None:
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    ready()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


def test_setup_twice_keeps_the_splits() -> None:
    data = ready()
    splits = dict(data.splits)
    data.setup("test")
    assert all(data.splits[name] is split for name, split in splits.items())


def order(data: DigitsDataModule) -> Tensor:
    return torch.cat([labels for _, labels in data.train_dataloader()])


def test_only_the_training_loader_shuffles_and_by_the_global_generator() -> None:
    data = ready()
    torch.manual_seed(0)
    first, second = order(data), order(data)
    torch.manual_seed(0)
    assert torch.equal(order(data), first)
    assert not torch.equal(first, second)
    for loader, name in ((data.val_dataloader(), "val"), (data.test_dataloader(), "test")):
        assert torch.equal(torch.cat([labels for _, labels in loader]), data.splits[name].tensors[1])


def test_predict_yields_the_test_images_alone() -> None:
    data = ready(batch_size=100)
    batches = list(data.predict_dataloader())
    assert [type(batch) for batch in batches] == [Tensor] * 4
    assert torch.equal(torch.cat(batches), data.splits["test"].tensors[0])


def test_workers_serve_the_same_data_and_stay() -> None:
    loader = ready(num_workers=2).val_dataloader()
    assert loader.persistent_workers
    for batch, expected in zip(loader, ready().val_dataloader(), strict=True):
        assert torch.equal(batch[0], expected[0])
        assert torch.equal(batch[1], expected[1])


def test_pins_memory_only_with_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ready()
    for available in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert data.train_dataloader().pin_memory is available


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, r"batch_size .* got 2.5"),
        ({"num_workers": -1}, r"num_workers must be an integer of at least 0, got -1"),
        ({"seed": -1}, r"seed must be an integer in \[0, 2\*\*32\), got -1"),
        ({"seed": 2**32}, r"seed .* got 4294967296"),
        ({"val_fraction": 0.0}, r"val_fraction must lie between 0 and 1, got 0.0"),
        ({"val_fraction": float("nan")}, r"val_fraction must lie between 0 and 1, got nan"),
        ({"test_fraction": 1.0}, r"test_fraction must lie between 0 and 1, got 1.0"),
        ({"test_fraction": 0.005}, r"test_fraction=0.005 leaves fewer than 10 of 1797 images"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, r"val_fraction \+ test_fraction = 1 leaves fewer than 10"),
    ],
)
def test_refuses_bad_arguments_at_construction(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DigitsDataModule(**arguments)


@pytest.mark.parametrize(("val", "test"), [(0.006, 0.006), (0.49, 0.5)])
def test_extreme_fractions_that_are_accepted_do_split(val: float, test: float) -> None:
    data = ready(val_fraction=val, test_fraction=test)
    assert all(len(data.splits[name].tensors[1].unique()) == 10 for name in ("train", "val", "test"))


def test_a_loader_before_setup_says_what_to_call() -> None:
    with pytest.raises(RuntimeError, match=r"the train split is not loaded: call prepare_data\(\) and setup\(\)"):
        DigitsDataModule().train_dataloader()
