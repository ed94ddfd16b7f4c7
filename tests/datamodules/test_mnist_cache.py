"""Damaged archives and caches of MNIST are named, and processes leave no half file."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_landscape.datamodules import MNISTDataModule
from lightning_landscape.storage.atomic import CorruptFileError
from tests.datamodules.mnist_files import NAMES, idx, listing, prepared, small_mnist
from tests.datamodules.mnist_files import root as root
from tests.datamodules.mnist_files import source as source

fork = multiprocessing.get_context("fork")


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-9], lambda content: content[:50] + b"\0" + content[51:], lambda content: b""],
    ids=["truncated", "altered", "empty"],
)
def test_a_damaged_archive_is_named_and_not_unpacked(
    root: Path, source: Path, damage: Callable[[bytes], bytes]
) -> None:
    archive = source / NAMES[2]
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(CorruptFileError, match=r"t10k-images-idx3-ubyte.gz is damaged: its md5 is \w+ and should be"):
        prepared(root, source)
    assert sorted(path.name for path in (root / "MNIST" / "raw").iterdir()) == [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
    ]


DAMAGES = {
    "truncated": (lambda content: content[:-1], r"is truncated: it has 47055 bytes and its header declares 47056"),
    "too long": (lambda content: content + b"\0", r"is damaged: it has 47057 bytes and its header declares 47056"),
    "empty": (lambda content: b"", "does not start with the header of an idx file"),
    "half a header": (lambda content: content[:9], "does not start with the header of an idx file"),
    "other": (lambda content: b"<html>" + content, "does not start with the header of an idx file"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cache_is_named_and_made_anew_from_a_source(
    root: Path, source: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    prepared(root, source)
    before = listing(root)
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    opened = root / "opened before"
    opened.hardlink_to(path)
    for call in ("prepare_data", "setup"):
        with pytest.raises(CorruptFileError, match=message) as caught:
            getattr(MNISTDataModule(root=root), call)()
        assert str(path) in str(caught.value)
    prepared(root, source)
    assert path.read_bytes() == whole
    # Replaced by a rename: who had the file open reads on in the old one, never in a half-written one.
    assert opened.read_bytes() == damage(whole)
    labels = str(path.with_name("train-labels-idx1-ubyte"))
    assert listing(root)[labels] == before[labels]


def test_a_whole_cache_needs_no_source(root: Path, source: Path) -> None:
    prepared(root, source)
    before = listing(root)
    for name in NAMES:
        (source / name).unlink()
    prepared(root, source).setup()
    MNISTDataModule(root=root, download=True).prepare_data()
    assert listing(root) == before


def prepare_together(root: Path, source: Path, gate: multiprocessing.Barrier) -> None:
    gate.wait()
    prepared(root, source)


def test_processes_that_prepare_at_once_do_not_clash(root: Path, source: Path) -> None:
    gate = fork.Barrier(4)
    processes = [fork.Process(target=prepare_together, args=(root, source, gate)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    raw = root / "MNIST" / "raw"
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == {n: idx(a) for n, a in small_mnist().items()}


def prepare_until_killed(root: Path, source: Path) -> None:
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
    prepared(root, source)


def test_a_killed_process_leaves_no_half_file(root: Path, source: Path) -> None:
    process = fork.Process(target=prepare_until_killed, args=(root, source))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    raw = root / "MNIST" / "raw"
    assert not any((raw / name.removesuffix(".gz")).exists() for name in NAMES)
    prepared(root, source).setup()


def test_a_failed_write_leaves_nothing(root: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        prepared(root, source)
    assert list((root / "MNIST" / "raw").iterdir()) == []
