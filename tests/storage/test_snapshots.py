"""Snapshot files: exact round trips, and a store that finds, replaces and names them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_landscape.storage.snapshots import SnapshotError, SnapshotStore, content_hash
from tests.storage.snapshot_files import Tied
from tests.storage.snapshot_files import store as store


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5),
        torch.empty(0, 3),
        torch.arange(6.0).reshape(2, 3).t(),
        torch.arange(4.0).expand(3, 4),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.tensor([math.nan, math.inf, -0.0]),
        torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        torch.tensor([1.5], dtype=torch.float16),
        torch.tensor([1.5], dtype=torch.float64),
        torch.tensor([1.0, 448.0]).to(torch.float8_e4m3fn),
        torch.tensor([True, False]),
        torch.tensor([2**62, -1]),
        torch.tensor([255], dtype=torch.uint8),
        torch.tensor([1 + 2j]).conj().imag,
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tuple(tensor.shape)}",
)
def test_every_kind_of_tensor_returns_bit_for_bit(store: SnapshotStore, tensor: Tensor) -> None:
    loaded = store.save({"x": tensor}, step=1, epoch=0).load()["x"]
    assert (loaded.dtype, loaded.shape) == (tensor.dtype, tensor.shape)
    want = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
    assert torch.equal(loaded.reshape(-1).view(torch.uint8), want.reshape(-1).view(torch.uint8))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"z": torch.ones(2, dtype=torch.complex128)}, "cannot hold one of these dtypes: torch.complex128"),
        ({"s": torch.eye(2).to_sparse()}, "s has layout torch.sparse_coo"),
        ({"__metadata__": torch.ones(1)}, "reserves the name"),
        ({}, "at least one tensor"),
        ({"extra": {"a": 1}}, "the entry 'extra' is a dict"),
    ],
)
def test_what_safetensors_cannot_hold_is_refused_and_leaves_no_file(
    store: SnapshotStore, state: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        store.save(state, step=0, epoch=0)
    assert len(store) == 0


@pytest.mark.parametrize("as_state", [False, True])
def test_state_dict_restores_the_module_with_its_ties(store: SnapshotStore, as_state: bool) -> None:
    module, other = Tied(), Tied()
    module.norm.running_mean.normal_()
    snapshot = store.save(module.state_dict() if as_state else module, step=3, epoch=1)
    assert len(snapshot.load()) == 8
    other.load_state_dict(snapshot.state_dict(), strict=True)
    assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in other.state_dict().items())
    assert other.decoder.weight is other.encoder.weight


def test_header_is_kept_and_read_without_the_tensors(store: SnapshotStore) -> None:
    saved = store.save(nn.Linear(2, 1), step=69, epoch=3, loss=0.1, metadata={"monitor": "val", "thresholds": [0.2]})
    assert saved.name == "epoch=003-step=000069"
    assert saved.path == store.dirpath / "epoch=003-step=000069.safetensors"
    assert (saved.step, saved.epoch, saved.loss) == (69, 3, 0.1)
    assert saved.metadata == {"monitor": "val", "thresholds": [0.2]}
    assert store.open(saved.name) == saved
    assert content_hash(saved.load()) == saved.content_hash
    # Any other byte of a tensor is of no concern to the header.
    damaged = bytearray(saved.path.read_bytes())
    damaged[-1] ^= 1
    saved.path.write_bytes(damaged)
    assert store.open(saved.name) == saved


def test_content_hash_tells_names_dtypes_shapes_and_bytes_apart_and_no_order() -> None:
    a, b = torch.zeros(2), torch.ones(2)
    states = [
        {"a": a, "b": b},
        {"a": b, "b": a},
        {"a": a, "c": b},
        {"a": a},
        {"a": a.reshape(1, 2), "b": b},
        {"a": a.to(torch.int32), "b": b},
        {"a": -a, "b": b},
    ]
    assert len({content_hash(state) for state in states}) == len(states)
    assert content_hash({"b": b, "a": a}) == content_hash(states[0])


def test_content_hash_ignores_how_a_tensor_lies_in_memory() -> None:
    for tensor in (torch.arange(6.0).reshape(2, 3).t(), torch.arange(4.0)[1::2], torch.arange(4.0)[1:3:2]):
        assert content_hash({"w": tensor}) == content_hash({"w": tensor.clone(memory_format=torch.contiguous_format)})


def test_store_iterates_by_step_then_name_and_finds_the_latest(store: SnapshotStore) -> None:
    assert (list(store), len(store), store.latest()) == ([], 0, None)
    for step, name in [(20, "b"), (3, "z"), (20, "a")]:
        store.save(nn.Linear(1, 1), step=step, epoch=0, name=name)
    assert [snapshot.name for snapshot in store] == ["z", "a", "b"]
    assert store.latest() == store.open("b")
    assert "a" in store
    store.delete("b")
    assert "b" not in store
    assert store.latest() == store.open("a")
    with pytest.raises(SnapshotError, match=r"b\.safetensors does not exist: this folder holds a, z"):
        store.delete("b")


def test_same_name_is_replaced_and_the_old_handle_says_so(store: SnapshotStore) -> None:
    first = store.save({"w": torch.zeros(2)}, step=1, epoch=0, name="x")
    again = store.save({"w": torch.zeros(2)}, step=1, epoch=0, name="x", loss=0.5)
    assert torch.equal(first.load()["w"], torch.zeros(2))
    assert again.loss == 0.5
    store.save({"w": torch.ones(2)}, step=2, epoch=0, name="x")
    assert torch.equal(store.load("x")["w"], torch.ones(2))
    assert len(store) == 1
    with pytest.raises(SnapshotError, match="replaced since it was opened"):
        first.load()


def test_loaded_tensors_outlive_their_file(store: SnapshotStore) -> None:
    loaded = store.save({"w": torch.arange(5000)}, step=0, epoch=0, name="x").load()
    with open(store.dirpath / "x.safetensors", "r+b") as file:
        file.truncate(0)
    assert torch.equal(loaded["w"], torch.arange(5000))


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/etc/x", "a/b", "a\\b", "C:x", "x\0y", "x\n", " x", "x ", ".x", "\ud800", "x" * 201, 7],
)
def test_no_name_leaves_the_folder(store: SnapshotStore, name: str) -> None:
    for act in (store.open, store.delete, lambda name: store.save(nn.Linear(1, 1), step=0, epoch=0, name=name)):
        with pytest.raises(ValueError, match="name must be a plain file name"):
            act(name)
    assert not store.dirpath.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": -1}, "step must be an integer from 0, got -1"),
        ({"step": 1.5}, "step must be an integer"),
        ({"step": True}, "step must be an integer"),
        ({"epoch": None}, "epoch must be an integer"),
        ({"loss": math.nan}, "loss must be finite or None, got nan"),
        ({"loss": math.inf}, "loss must be finite"),
        ({"metadata": {"x": math.nan}}, "metadata must be plain JSON"),
        ({"metadata": {"x": object()}}, "metadata must be plain JSON"),
    ],
)
def test_save_names_a_bad_argument(store: SnapshotStore, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        store.save(nn.Linear(1, 1), **{"step": 0, "epoch": 0} | arguments)


def test_store_refuses_a_file_as_its_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="dirpath must be a folder"):
        SnapshotStore(tmp_path / "file")
