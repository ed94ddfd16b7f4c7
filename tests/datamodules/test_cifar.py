"""The CIFAR data modules: what they unpack, serve, download and refuse."""

from __future__ import annotations

import hashlib
import pickle
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100

from lightning_landscape.datamodules import CIFAR10DataModule, CIFAR100DataModule
from tests.datamodules.cifar_files import (
    BASE,
    BATCHES,
    FILES,
    NUM_TEST,
    NUM_TRAIN,
    PER_BATCH,
    cached,
    pack,
    pixels,
    prepared,
    write,
)
from tests.datamodules.cifar_files import _published as _published
from tests.datamodules.cifar_files import root as root
from tests.datamodules.cifar_files import source as source


@pytest.mark.parametrize(
    ("name", "inside"),
    [(f"{BASE}.tar.xz", BASE), (f"{BASE}.tar.gz", f"./{BASE}"), ("cifar-10-python.tar.gz", BASE)],
)
def test_unpacks_an_archive_and_leaves_it_untouched(root: Path, tmp_path: Path, name: str, inside: str) -> None:
    archive = pack(tmp_path / "source" / name, FILES | {"readme.html": b"<html>"}, inside)
    before = archive.read_bytes()
    prepared(root, archive.parent)
    assert cached(root) == FILES
    assert archive.read_bytes() == before
    assert list(archive.parent.iterdir()) == [archive]


@pytest.mark.parametrize("level", [0, 1], ids=["itself", "above"])
def test_copies_an_unpacked_folder(root: Path, tmp_path: Path, level: int) -> None:
    folder = write(tmp_path / "source" / BASE, FILES)
    prepared(root, [folder, folder.parent][level])
    assert cached(root) == FILES


def restored(data: CIFAR10DataModule, images: Tensor) -> np.ndarray:
    means, stds = (np.reshape(values, (3, 1, 1)) for values in (data.channel_means, data.channel_stds))
    return np.round((images.numpy() * stds + means) * 255).astype(np.uint8)


def test_serves_standardised_floats_and_integer_labels(root: Path, source: Path) -> None:
    data = prepared(root, source, batch_size=NUM_TEST)
    data.setup()
    images, labels = next(iter(data.test_dataloader()))
    assert (images.shape, images.dtype, labels.dtype) == ((NUM_TEST, 3, 32, 32), torch.float32, torch.int64)
    expected = (pixels("test_batch") / 255 - np.reshape(data.channel_means, (3, 1, 1))) / np.reshape(
        data.channel_stds, (3, 1, 1)
    )
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-5)
    assert labels.tolist() == [*range(10)]
    assert torch.equal(torch.cat(list(data.predict_dataloader())), images)


def test_training_and_validation_part_the_training_images(root: Path, source: Path) -> None:
    data = prepared(root, source, val_size=15)
    data.setup("fit")
    assert [len(data.splits[name]) for name in ("train", "val")] == [45, 15]
    found = np.concatenate([restored(data, data.splits[name].tensors[0]) for name in ("train", "val")])
    expected = np.concatenate([pixels(name) for name in BATCHES])
    assert sorted(map(bytes, found)) == sorted(map(bytes, expected))
    labels = {bytes(image): number % PER_BATCH % 10 for number, image in enumerate(expected)}
    both = torch.cat([data.splits[name].tensors[1] for name in ("train", "val")])
    assert both.tolist() == [labels[bytes(image)] for image in found]


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


@pytest.mark.parametrize("call", ["prepare_data", "setup"])
def test_missing_files_say_what_to_type(root: Path, call: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        getattr(CIFAR10DataModule(root=root), call)()
    message = str(caught.value)
    assert f"no usable CIFAR10 in root={str(root)!r}" in message
    assert "data_batch_1 is missing" in message
    assert f"CIFAR10DataModule(root={str(root)!r}, download=True)" in message
    assert "source=FOLDER" in message
    assert not root.exists()


def test_an_empty_source_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"source='.*' must be a folder that holds cifar-10-python.tar.gz,"):
        prepared(root, tmp_path)
    assert not root.exists()


def test_downloads_what_is_missing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "web" / "cifar-10-python.tar.gz", FILES)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setenv("no_proxy", "*")
    handler = partial(SimpleHTTPRequestHandler, directory=str(archive.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
        CIFAR10DataModule(root=root, download=True).prepare_data()
        server.shutdown()
    assert cached(root) == FILES
    assert [path.name for path in root.iterdir()] == [BASE]


def test_download_offline_says_what_to_do(root: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)CIFAR10 could not be downloaded into root='.*cache'.*as source"):
        CIFAR10DataModule(root=root, download=True).prepare_data()
    assert list(root.iterdir()) == []


def test_download_unpacks_an_archive_in_root_without_the_network(root: Path) -> None:
    pack(root / "cifar-10-python.tar.gz", FILES)
    write(root / BASE, FILES | {"data_batch_5": b"half"})
    CIFAR10DataModule(root=root, download=True).prepare_data()
    assert cached(root) == FILES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_size": 0}, "val_size must be an integer from 1 to 49999, got 0"),
        ({"val_size": 50_000}, "val_size .* got 50000"),
        ({"batch_size": 0}, "batch_size .* got 0"),
        ({"download": True, "source": "x"}, "download=True and source='x' exclude each other"),
        ({"root": "x", "source": "./x"}, "source='./x' is only read and cannot be the cache as well"),
        ({"root": "x", "source": f"x/{BASE}"}, "is only read and cannot be the cache as well"),
    ],
)
def test_refuses_bad_arguments_at_construction(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CIFAR10DataModule(**arguments)


def test_val_size_must_leave_something_to_train_on(root: Path, source: Path) -> None:
    with pytest.raises(ValueError, match="val_size=60 must be less than the 60 training images"):
        prepared(root, source, val_size=NUM_TRAIN).setup("fit")


def test_hyperparameters_are_plain(root: Path, source: Path) -> None:
    hyperparameters = dict(CIFAR10DataModule(root=root, source=source).hparams)
    assert (hyperparameters["root"], hyperparameters["source"]) == (str(root), str(source))
    assert all(isinstance(value, str | int) for value in hyperparameters.values())


def test_cifar100_reads_its_fine_labels(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def part(count: int) -> bytes:
        images = np.zeros((count, 3072), np.uint8)
        return pickle.dumps({"data": images, "fine_labels": [99 - n for n in range(count)], "coarse_labels": [0]})

    files = {"train": part(6), "test": part(3), "meta": pickle.dumps({"fine_label_names": ["x"] * 100})}
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5["meta"]})
    folder = pack(tmp_path / "source" / "cifar-100-python.tar.gz", files, "cifar-100-python").parent
    data = CIFAR100DataModule(root=root, source=folder, val_size=2)
    data.prepare_data()
    data.setup()
    assert data.splits["test"].tensors[1].tolist() == [99, 98, 97]
    # A black pixel is (0 - mean) / std in each channel.
    black = torch.tensor([-m / s for m, s in zip(data.channel_means, data.channel_stds, strict=True)])
    torch.testing.assert_close(data.splits["train"].tensors[0][0, :, 0, 0], black)
    with pytest.raises(FileNotFoundError, match=r"CIFAR100DataModule\(root='other', download=True\)"):
        CIFAR100DataModule(root="other").prepare_data()


@pytest.mark.slow
def test_real_cifar10(data_root: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (data_root / f"{BASE}.tar.xz").is_file():
        pytest.skip(f"real CIFAR-10 needs {data_root / BASE}.tar.xz")
    monkeypatch.undo()
    data = CIFAR10DataModule(root=request.getfixturevalue("unpacked_cifar10"))
    data.prepare_data()
    data.setup()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 45_000, "val": 5000, "test": 10_000}
    both = [data.splits[name].tensors for name in ("train", "val")]
    images, labels = (torch.cat(parts) for parts in zip(*both, strict=True))
    assert images.shape == (50_000, 3, 32, 32)
    assert labels.bincount().tolist() == [5000] * 10
    assert data.splits["test"].tensors[1].bincount().tolist() == [1000] * 10
    for channel in range(3):
        values = images[:, channel].double()
        assert values.mean().item() == pytest.approx(0, abs=3e-4)
        assert values.std().item() == pytest.approx(1, abs=3e-4)
