"""No damaged, foreign or hostile snapshot file is ever read."""

from __future__ import annotations

import json
import math

import pytest
import safetensors.torch
import torch
from torch import nn

from lightning_landscape.storage.snapshots import SnapshotError, SnapshotStore, content_hash
from tests.storage.snapshot_files import header_of, reseal, rewrite
from tests.storage.snapshot_files import store as store


def test_file_cut_at_any_length_is_named_and_never_read(store: SnapshotStore) -> None:
    path = store.save({"w": torch.arange(8.0)}, step=0, epoch=0, name="x").path
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(SnapshotError, match=r"x\.safetensors is truncated.*Copy it again"):
            store.open("x")
    path.write_bytes(data + b"\0")
    with pytest.raises(SnapshotError, match=r"x\.safetensors is truncated"):
        store.open("x")


def test_any_changed_byte_is_noticed(store: SnapshotStore) -> None:
    snapshot = store.save({"weight": torch.arange(4.0), "b": torch.ones(2)}, step=5, epoch=1, name="x", loss=0.25)
    data = snapshot.path.read_bytes()
    for position in range(len(data)):
        for flip in (0x01, 0x20):
            snapshot.path.write_bytes(data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :])
            try:
                read = store.open("x")
                tensors = read.load()
            except SnapshotError:
                continue
            # What JSON itself does not tell apart, such as one blank for another, may pass.
            assert read == snapshot
            assert content_hash(tensors) == snapshot.content_hash


@pytest.mark.parametrize("field", ["step", "loss"])
def test_altered_header_is_noticed(store: SnapshotStore, field: str) -> None:
    path = store.save(nn.Linear(1, 1), step=5, epoch=1, name="x", loss=0.25).path
    header, body = header_of(path)
    record = json.loads(header["__metadata__"]["lightning_landscape.snapshot"])
    header["__metadata__"]["lightning_landscape.snapshot"] = json.dumps(record | {field: 6})
    rewrite(path, header, body)
    with pytest.raises(SnapshotError, match=r"x\.safetensors was altered: its header"):
        store.open("x")
    with pytest.raises(SnapshotError, match=r"x\.safetensors was altered: its header"):
        list(store)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": math.nan}, "header that SnapshotStore does not write.*NaN"),
        ({"loss": "low"}, "header that SnapshotStore does not write"),
        ({"step": -3}, "step must be an integer from 0"),
        ({"epoch": None}, "epoch must be an integer"),
        ({"aliases": ["w"]}, "header that SnapshotStore does not write"),
        ({"metadata": 3}, "header that SnapshotStore does not write"),
        ({"format": 2}, "format 2, known is 1: upgrade"),
    ],
)
def test_header_with_hostile_values_is_refused(store: SnapshotStore, changes: dict[str, object], message: str) -> None:
    path = store.save(nn.Linear(1, 1), step=5, epoch=1, name="x", loss=0.25).path
    reseal(path, **changes)
    with pytest.raises(SnapshotError, match=rf"x\.safetensors .*{message}"):
        store.open("x")


def test_hostile_hash_and_ties_are_refused_on_load(store: SnapshotStore) -> None:
    path = store.save(nn.Linear(1, 1), step=5, epoch=1, name="x").path
    reseal(path, aliases={"w": "nowhere"})
    snapshot = store.open("x")
    with pytest.raises(SnapshotError, match=r"x\.safetensors names tied tensors that it does not hold"):
        snapshot.state_dict()
    reseal(path, content_hash="0" * 64)
    with pytest.raises(SnapshotError, match=r"x\.safetensors was altered: its tensors"):
        store.load("x")


def test_foreign_missing_and_odd_files_are_named(store: SnapshotStore) -> None:
    with pytest.raises(SnapshotError, match=r"x\.safetensors does not exist: check the folder"):
        store.open("x")
    store.dirpath.mkdir()
    safetensors.torch.save_file({"w": torch.ones(1)}, store.dirpath / "foreign.safetensors")
    with pytest.raises(SnapshotError, match=r"foreign\.safetensors was not written by SnapshotStore"):
        store.open("foreign")
    torch.save({"w": torch.ones(1)}, store.dirpath / "pickle.safetensors")
    with pytest.raises(SnapshotError, match=r"pickle\.safetensors is truncated, damaged or no safetensors file"):
        store.open("pickle")
    (store.dirpath / "folder.safetensors").mkdir()
    with pytest.raises(SnapshotError, match=r"folder\.safetensors is a folder"):
        store.open("folder")
