"""A small MNIST as it is published: archives, source and cache."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import MNIST

from lightning_landscape.datamodules import MNISTDataModule

NAMES = [name for name, _ in MNIST.resources]
NUM_TRAIN, NUM_TEST = 60, 20


def idx(array: np.ndarray) -> bytes:
    """An idx file of unsigned bytes, as MNIST's."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def small_mnist() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", NUM_TRAIN), ("t10k", NUM_TEST)):
        arrays[f"{part}-images-idx3-ubyte"] = generator.integers(0, 256, (count, 28, 28))
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(count) % 10
    return arrays


def publish(folder: Path, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes the .gz files and makes their checksums the ones that torchvision publishes."""
    folder.mkdir(parents=True)
    packed = {name: gzip.compress(idx(arrays[name.removesuffix(".gz")]), mtime=0) for name in NAMES}
    for name, content in packed.items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(MNIST, "resources", [(name, hashlib.md5(packed[name]).hexdigest()) for name in NAMES])
    monkeypatch.setattr(MNIST, "mirrors", ["file:///nowhere/"])
    return folder


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return publish(tmp_path / "source" / "MNIST" / "raw", small_mnist(), monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def listing(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    files = {path: path.stat() for path in [folder, *folder.rglob("*")]}
    return {
        str(path): (stat.st_ino, stat.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path, stat in files.items()
    }


def prepared(root: Path, source: Path, **arguments: object) -> MNISTDataModule:
    data = MNISTDataModule(root=root, source=source, **{"val_size": 10, **arguments})
    data.prepare_data()
    return data
