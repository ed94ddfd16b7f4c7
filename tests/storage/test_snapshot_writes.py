"""No half-written snapshot file is ever seen under its name."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest
import torch
from torch import nn

from lightning_landscape.storage.snapshots import SnapshotStore
from tests.storage.snapshot_files import store as store


def test_failed_write_keeps_the_old_file_and_leaves_nothing(store: SnapshotStore, monkeypatch) -> None:
    store.save({"w": torch.zeros(2)}, step=0, epoch=0, name="x")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            store.save({"w": torch.ones(2)}, step=1, epoch=0, name="x")
    assert os.listdir(store.dirpath) == ["x.safetensors"]
    assert torch.equal(store.load("x")["w"], torch.zeros(2))


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_kill_in_the_middle_of_a_write_leaves_the_old_snapshot(store: SnapshotStore, at: str) -> None:
    store.save({"w": torch.zeros(1000)}, step=0, epoch=0, name="x")

    def deadly() -> None:
        setattr(os, at, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        store.save({"w": torch.ones(1000)}, step=1, epoch=0, name="x")

    child = multiprocessing.get_context("fork").Process(target=deadly)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    (leftover,) = store.dirpath.glob(".*.tmp")
    assert [snapshot.step for snapshot in store] == [0]
    assert torch.equal(store.load("x")["w"], torch.zeros(1000))

    store.save({"w": torch.ones(3)}, step=2, epoch=0, name="y")
    assert leftover.exists()  # its writer might live
    hours_ago = time.time() - 7200
    os.utime(leftover, (hours_ago, hours_ago))
    store.save({"w": torch.ones(3)}, step=2, epoch=0, name="y")
    assert sorted(os.listdir(store.dirpath)) == ["x.safetensors", "y.safetensors"]


def test_file_is_on_the_disk_before_it_has_its_name(store: SnapshotStore, monkeypatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append("replace"), replace(old, new))[1])
    store.save(nn.Linear(1, 1), step=0, epoch=0)
    assert calls == ["fsync", "replace", "fsync"]
