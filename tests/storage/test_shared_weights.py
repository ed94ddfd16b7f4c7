"""Weights that are on the disk already are not written again: a snapshot of them is a further name of their file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_landscape.storage.checkpoints import read_reference
from lightning_landscape.storage.snapshots import SharedWeights, SnapshotError, SnapshotStore
from tests.storage.snapshot_files import store as store

WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[SnapshotStore, SnapshotStore]:
    shared = SharedWeights()
    return SnapshotStore(tmp_path / "a", shared), SnapshotStore(tmp_path / "b", shared)


def inode(store: SnapshotStore, name: str) -> int:
    return store.open(name).path.stat().st_ino


def test_two_stores_of_a_run_hold_one_file(pair: tuple[SnapshotStore, SnapshotStore]) -> None:
    one, two = pair
    one.save(WEIGHTS, step=4, epoch=1)
    two.save(WEIGHTS, step=4, epoch=1)
    name = "epoch=001-step=000004"
    assert inode(one, name) == inode(two, name)
    assert sorted(os.listdir(two.dirpath)) == [f"{name}.safetensors"]
    one.delete(name)
    assert torch.equal(two.load(name)["w"], WEIGHTS["w"])


def test_what_a_header_says_otherwise_is_in_a_note(pair: tuple[SnapshotStore, SnapshotStore]) -> None:
    one, two = pair
    one.save(WEIGHTS, step=4, epoch=1)
    saved = two.save(WEIGHTS, step=5, epoch=2, loss=0.25, name="low", metadata={"thresholds": [0.5]})
    found = SnapshotStore(two.dirpath).open("low")
    assert found == saved
    assert (found.step, found.loss, found.metadata) == (5, 0.25, {"thresholds": [0.5]})
    assert inode(one, "epoch=001-step=000004") == inode(two, "low")
    assert torch.equal(read_reference(found.path)["w"], WEIGHTS["w"])
    # Other weights under the name: the note is not theirs.
    note = two.dirpath / "low.json"
    kept = note.read_bytes()
    two.save({"w": torch.zeros(2)}, step=9, epoch=3, name="low")
    assert not note.exists()
    note.write_bytes(kept)
    assert two.open("low").step == 9
    two.delete("low")
    note.write_bytes(kept)
    two.tidy()
    assert os.listdir(two.dirpath) == []


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b"\xff", b'{"lightning_landscape.snapshot": 3}'])
def test_a_damaged_note_is_none(store: SnapshotStore, content: bytes) -> None:
    store.save(WEIGHTS, step=4, epoch=1, name="x")
    (store.dirpath / "x.json").write_bytes(content)
    assert store.open("x").step == 4


def test_a_store_that_goes_on_knows_its_files_and_writes_damaged_ones_again(store: SnapshotStore) -> None:
    path = store.save(WEIGHTS, step=4, epoch=1).path
    before = path.stat().st_ino
    assert SnapshotStore(store.dirpath).save(WEIGHTS, step=4, epoch=1).path.stat().st_ino == before
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    again = SnapshotStore(store.dirpath).save(WEIGHTS, step=4, epoch=1)
    assert torch.equal(again.load()["w"], WEIGHTS["w"])


def test_ties_and_other_bits_keep_weights_apart(store: SnapshotStore) -> None:
    zero = store.save({"w": torch.tensor([0.0])}, step=0, epoch=0, name="zero")
    minus = store.save({"w": torch.tensor([-0.0])}, step=0, epoch=0, name="minus")
    shape = store.save({"w": torch.tensor([[0.0]])}, step=0, epoch=0, name="shape")
    tied = torch.zeros(1)
    ties = store.save({"w": tied, "v": tied}, step=0, epoch=0, name="ties")
    assert len({snapshot.path.stat().st_ino for snapshot in (zero, minus, shape, ties)}) == 4


def test_a_disk_without_hard_links_holds_copies(
    pair: tuple[SnapshotStore, SnapshotStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    one, two = pair
    one.save(WEIGHTS, step=4, epoch=1, name="x")
    monkeypatch.setattr(os, "link", refuse)
    saved = two.save(WEIGHTS, step=5, epoch=1, name="x")
    assert two.open("x") == saved
    assert sorted(os.listdir(two.dirpath)) == ["x.safetensors"]
    assert two.adopt(one.save({"w": torch.ones(1)}, step=6, epoch=1, name="y")).load()["w"] == 1
    assert torch.equal(two.load("x")["w"], WEIGHTS["w"])


def test_adopted_snapshots_are_links_with_their_notes(tmp_path: Path) -> None:
    source, target = SnapshotStore(tmp_path / "a"), SnapshotStore(tmp_path / "b")
    source.save(WEIGHTS, step=4, epoch=1, name="x")
    source.save(WEIGHTS, step=6, epoch=2, name="y", loss=0.5)
    for snapshot in source:
        target.adopt(snapshot)
    assert [(s.name, s.step, s.loss) for s in target] == [("x", 4, None), ("y", 6, 0.5)]
    assert len({inode(store, name) for store in (source, target) for name in "xy"}) == 1


def test_numbers_that_overflow_are_not_stored(tmp_path: Path) -> None:
    state = {"w": torch.tensor([1.0, 1e5, float("nan"), float("inf")])}
    with pytest.raises(ValueError, match=r"w holds numbers that float16 has not .*'bfloat16'"):
        SnapshotStore(tmp_path / "x", dtype="float16").save(state, step=0, epoch=0)
    assert not (tmp_path / "x").exists()
    assert SnapshotStore(tmp_path, dtype="bfloat16").save(state, step=0, epoch=0).load()["w"].isfinite().sum() == 2


def test_tied_module_comes_back_from_rounded_numbers(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, 2))
    net[2].weight = net[0].weight
    saved = SnapshotStore(tmp_path, dtype="bfloat16").save(net, step=0, epoch=0)
    other = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, 2))
    other.load_state_dict(saved.state_dict())
    assert torch.equal(other[0].weight, net[0].weight.bfloat16().float())


def test_a_file_that_left_the_disk_is_written_again(pair: tuple[SnapshotStore, SnapshotStore]) -> None:
    one, two = pair
    path = one.save(WEIGHTS, step=4, epoch=1, name="x").path
    path.unlink()
    assert torch.equal(two.save(WEIGHTS, step=4, epoch=1, name="x").load()["w"], WEIGHTS["w"])
    with pytest.raises(SnapshotError, match="does not exist"):
        one.load("x")
