"""A small CIFAR-10 as it is published: batches, archive, source and cache."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from lightning_landscape.datamodules import CIFAR10DataModule

PER_BATCH, NUM_TEST = 12, 10
NUM_TRAIN = 5 * PER_BATCH
BASE = "cifar-10-batches-py"
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


def pixels(name: str) -> np.ndarray:
    count = NUM_TEST if name == "test_batch" else PER_BATCH
    return np.random.default_rng([*name.encode()]).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def small_cifar() -> dict[str, bytes]:
    """The seven files with a few random images each; the label of an image is its number in the file, modulo 10."""
    content: dict[str, Any] = {"batches.meta": {"label_names": [*"abcdefghij"]}}
    for name in (*BATCHES, "test_batch"):
        images = pixels(name)
        content[name] = {"data": images.reshape(len(images), -1), "labels": [n % 10 for n in range(len(images))]}
    return {name: pickle.dumps(value) for name, value in content.items()}


FILES = small_cifar()


@pytest.fixture(autouse=True)
def _published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the checksums of the small files the ones that torchvision publishes, and the network unreachable."""
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in BATCHES])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "url", "file:///nowhere/cifar-10-python.tar.gz")


def pack(path: Path, files: dict[str, bytes], inside: str = BASE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, f"w:{path.suffix.removeprefix('.')}") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{inside}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The folder in which the archive lies."""
    return pack(tmp_path / "source" / f"{BASE}.tar.gz", FILES).parent


def prepared(root: Path, source: Path, **arguments: Any) -> CIFAR10DataModule:
    data = CIFAR10DataModule(root=root, source=source, **{"val_size": 10, "batch_size": 8, **arguments})
    data.prepare_data()
    return data


def cached(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / BASE).iterdir()}
