"""Damaged archives and caches of CIFAR are named, and processes leave no half file."""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_landscape.datamodules import CIFAR10DataModule
from lightning_landscape.storage.atomic import CorruptFileError
from tests.datamodules.cifar_files import BASE, FILES, cached, pack, prepared
from tests.datamodules.cifar_files import _published as _published
from tests.datamodules.cifar_files import root as root
from tests.datamodules.cifar_files import source as source

fork = multiprocessing.get_context("fork")


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda content: content[: len(content) // 2], "is damaged"),
    "no archive": (lambda content: b"<html>" * 1000, "is damaged"),
    "empty": (lambda content: b"", "is damaged"),
    "altered": (lambda content: content[:2000] + bytes([content[2000] ^ 255]) + content[2001:], "is damaged"),
}


@pytest.mark.parametrize("kind", ["gz", "xz"])
@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_archive_is_named_and_leaves_whole_files_alone(
    root: Path, tmp_path: Path, kind: str, damage: Callable[[bytes], bytes], message: str
) -> None:
    archive = pack(tmp_path / "source" / f"{BASE}.tar.{kind}", FILES)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(CorruptFileError, match=message) as caught:
        prepared(root, archive.parent)
    assert str(archive) in str(caught.value)
    if (root / BASE).exists():
        assert cached(root).items() <= FILES.items()


def test_an_archive_with_a_wrong_or_a_missing_file_is_refused(root: Path, tmp_path: Path) -> None:
    wrong = pack(tmp_path / "wrong" / f"{BASE}.tar.gz", FILES | {"data_batch_4": FILES["data_batch_3"]})
    with pytest.raises(CorruptFileError, match=r"data_batch_4 in .* is damaged: its md5 is \w+ and should be"):
        prepared(root, wrong.parent)
    assert "data_batch_4" not in cached(root)
    few = pack(tmp_path / "few" / f"{BASE}.tar.gz", {n: FILES[n] for n in FILES if n != "test_batch"})
    with pytest.raises(CorruptFileError, match="it lacks test_batch"):
        prepared(root, few.parent)


def test_a_hostile_archive_writes_nothing_outside_and_no_link(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "source" / f"{BASE}.tar.gz"
    path.parent.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(FILES["test_batch"])
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {"../../escaped": b"x", "/tmp/h_absolute": b"x", f"{BASE}/extra": b"x"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo(f"{BASE}/test_batch")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
    with pytest.raises(CorruptFileError, match="it lacks data_batch_1, "):
        prepared(root, path.parent)
    assert {p.name for p in tmp_path.rglob("*")} == {"secret", "source", path.name}
    assert not Path("/tmp/h_absolute").exists()


def test_a_damaged_cache_is_named_and_made_anew_from_a_source(root: Path, source: Path) -> None:
    prepared(root, source)
    kept = (root / BASE / "data_batch_1").stat().st_mtime_ns
    path = root / BASE / "data_batch_2"
    path.write_bytes(FILES["data_batch_2"][:-1])
    for call in ("prepare_data", "setup"):
        with pytest.raises(CorruptFileError, match="data_batch_2 is damaged: its md5 is") as caught:
            getattr(CIFAR10DataModule(root=root), call)()
        assert f"root={str(root)!r}" in str(caught.value)
    prepared(root, source)
    assert cached(root) == FILES
    assert (root / BASE / "data_batch_1").stat().st_mtime_ns == kept


def test_a_whole_cache_needs_no_source(root: Path, source: Path) -> None:
    prepared(root, source)
    shutil.rmtree(source)
    prepared(root, source).setup()
    CIFAR10DataModule(root=root, download=True).prepare_data()


def prepare_together(root: Path, source: Path, gate: Any) -> None:
    gate.wait()
    prepared(root, source)


def test_processes_that_prepare_at_once_do_not_clash(root: Path, source: Path) -> None:
    gate = fork.Barrier(3)
    processes = [fork.Process(target=prepare_together, args=(root, source, gate)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    assert cached(root) == FILES


def prepare_until_killed(root: Path, source: Path) -> None:
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
    prepared(root, source)


def test_a_killed_process_leaves_no_half_file(root: Path, source: Path) -> None:
    process = fork.Process(target=prepare_until_killed, args=(root, source))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not set(FILES) & {path.name for path in (root / BASE).iterdir()}
    prepared(root, source).setup()
