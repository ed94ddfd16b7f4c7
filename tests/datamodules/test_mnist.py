"""The MNIST data module: what it unpacks, serves, downloads and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

from lightning_landscape.datamodules import MNISTDataModule
from lightning_landscape.storage.atomic import CorruptFileError
from tests.datamodules.mnist_files import NAMES, NUM_TEST, NUM_TRAIN, idx, listing, prepared, publish, small_mnist
from tests.datamodules.mnist_files import root as root
from tests.datamodules.mnist_files import source as source


@pytest.mark.parametrize("level", [0, 2], ids=["raw", "above"])
def test_unpacks_a_source_and_leaves_it_untouched(root: Path, source: Path, level: int) -> None:
    given = [source, *source.parents][level]
    before = listing(given)
    prepared(root, given)
    assert listing(given) == before
    arrays = small_mnist()
    assert {path.name: path.read_bytes() for path in (root / "MNIST" / "raw").iterdir()} == {
        name: idx(array) for name, array in arrays.items()
    }


def test_serves_standardised_floats_and_integer_labels(root: Path, source: Path) -> None:
    data = prepared(root, source, batch_size=20)
    data.setup()
    images, labels = next(iter(data.test_dataloader()))
    assert images.shape == (20, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    arrays = small_mnist()
    expected = (arrays["t10k-images-idx3-ubyte"] / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(images[:, 0].numpy(), expected, atol=1e-5)
    assert labels.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()
    assert torch.equal(torch.cat(list(data.predict_dataloader())), images)


def test_training_and_validation_part_the_training_images(root: Path, source: Path) -> None:
    data = prepared(root, source, val_size=15)
    data.setup("fit")
    found = torch.cat([data.splits[name].tensors[0] for name in ("train", "val")]).squeeze(1)
    assert [len(data.splits[name]) for name in ("train", "val")] == [45, 15]
    pixels = ((found * 0.3081 + 0.1307) * 255).round().to(torch.int64).flatten(1)
    expected = small_mnist()["train-images-idx3-ubyte"].reshape(NUM_TRAIN, -1)
    assert sorted(pixels.tolist()) == sorted(expected.tolist())


def test_the_seed_alone_decides_the_split(root: Path, source: Path) -> None:
    splits = []
    for seed in (0, 0, 1):
        torch.rand(1)
        data = prepared(root, source, seed=seed)
        state = torch.get_rng_state()
        data.setup("fit")
        assert torch.equal(torch.get_rng_state(), state)
        splits.append(data.splits["val"].tensors[0])
    assert torch.equal(splits[0], splits[1])
    assert not torch.equal(splits[0], splits[2])


def test_a_stage_loads_what_it_needs(root: Path, source: Path) -> None:
    data = prepared(root, source)
    data.setup("fit")
    assert set(data.splits) == {"train", "val"}
    with pytest.raises(RuntimeError, match="the test split is not loaded"):
        data.test_dataloader()
    train = data.splits["train"]
    data.setup("validate")
    data.setup("test")
    assert data.splits["train"] is train
    assert set(data.splits) == {"train", "val", "test"}


@pytest.mark.parametrize("call", ["prepare_data", "setup"])
def test_missing_files_say_what_to_type(root: Path, source: Path, call: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        getattr(MNISTDataModule(root=root), call)()
    message = str(caught.value)
    assert f"root={str(root)!r}" in message
    assert "train-images-idx3-ubyte is missing" in message
    assert f"MNISTDataModule(root={str(root)!r}, download=True)" in message
    assert "source=FOLDER" in message
    assert not root.exists()


def test_archives_in_root_are_not_unpacked_there_unasked(source: Path) -> None:
    folder = source.parents[1]
    before = listing(folder)
    with pytest.raises(FileNotFoundError, match="download=True"):
        MNISTDataModule(root=folder).prepare_data()
    assert listing(folder) == before


def test_an_incomplete_source_is_named(root: Path, source: Path) -> None:
    (source / NAMES[1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"source='.*' must be a folder that holds.*train-labels-idx1-ubyte.gz"):
        prepared(root, source)
    assert not root.exists()


@pytest.fixture
def mirror(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serves ``source`` on the loopback interface in place of torchvision's mirrors."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(source))
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        yield source
        server.shutdown()


def test_downloads_what_is_missing(root: Path, mirror: Path) -> None:
    data = MNISTDataModule(root=root, download=True, val_size=10)
    data.prepare_data()
    data.setup()
    assert sorted(path.name for path in root.rglob("*") if path.is_file()) == sorted(
        name.removesuffix(".gz") for name in NAMES
    )
    assert [path.name for path in root.iterdir()] == ["MNIST"]


def test_a_damaged_download_is_refused(root: Path, mirror: Path) -> None:
    archive = mirror / NAMES[0]
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(RuntimeError, match="could not be downloaded"):
        MNISTDataModule(root=root, download=True).prepare_data()
    assert list(root.iterdir()) == []


def test_download_offline_says_what_to_do(root: Path, source: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)could not be downloaded into root='.*cache'.*source instead of"):
        MNISTDataModule(root=root, download=True).prepare_data()
    assert list(root.iterdir()) == []


def test_download_unpacks_archives_in_root_without_the_network(root: Path, source: Path) -> None:
    root.mkdir()
    source.parent.rename(root / "MNIST")
    data = MNISTDataModule(root=root, download=True, val_size=10)
    data.prepare_data()
    data.setup()
    assert len(data.splits["train"]) == NUM_TRAIN - 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_size": 0}, "val_size must be an integer from 1 to 59999, got 0"),
        ({"val_size": 60_000}, "val_size .* got 60000"),
        ({"val_size": 0.1}, "val_size .* got 0.1"),
        ({"batch_size": -1}, "batch_size .* got -1"),
        ({"num_workers": -1}, "num_workers .* got -1"),
        ({"seed": -1}, "seed .* got -1"),
        ({"download": True, "source": "x"}, "download=True and source='x' exclude each other"),
        ({"root": "x", "source": "./x"}, "source='./x' is only read and cannot be the cache as well"),
        ({"root": "x", "source": "x/MNIST/raw"}, "is only read and cannot be the cache as well"),
    ],
)
def test_refuses_bad_arguments_at_construction(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MNISTDataModule(**arguments)


def test_val_size_must_leave_something_to_train_on(root: Path, source: Path) -> None:
    data = prepared(root, source, val_size=NUM_TRAIN)
    with pytest.raises(ValueError, match="val_size=60 must be less than the 60 training images"):
        data.setup("fit")


def test_images_and_labels_that_do_not_match_are_named(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = small_mnist()
    arrays["t10k-labels-idx1-ubyte"] = np.arange(NUM_TEST - 1) % 10
    data = prepared(root, publish(tmp_path / "odd", arrays, monkeypatch))
    with pytest.raises(CorruptFileError, match="20 images and 19 labels of the test set"):
        data.setup("test")


def test_hyperparameters_are_plain(root: Path, source: Path) -> None:
    hyperparameters = dict(MNISTDataModule(root=root, source=source).hparams)
    assert hyperparameters["root"] == str(root)
    assert hyperparameters["source"] == str(source)
    assert all(isinstance(value, str | int) for value in hyperparameters.values())


def test_real_mnist(root: Path, data_root: Path) -> None:
    raw = data_root / "MNIST" / "raw"
    if not raw.is_dir():
        pytest.skip(f"real MNIST needs {raw}")
    before = {path.name: path.stat().st_mtime_ns for path in raw.iterdir()}
    data = MNISTDataModule(root=root, source=data_root)
    data.prepare_data()
    data.setup()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 55_000, "val": 5000, "test": 10_000}
    both = [data.splits[name].tensors for name in ("train", "val")]
    images, labels = (torch.cat(parts) for parts in zip(*both, strict=True))
    assert images.shape == (60_000, 1, 28, 28)
    # Class sizes as published with the database.
    assert labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.splits["test"].tensors[1].bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert images.double().mean().item() == pytest.approx(0, abs=2e-3)
    assert images.double().std().item() == pytest.approx(1, abs=2e-3)
    assert {path.name: path.stat().st_mtime_ns for path in raw.iterdir()} == before
