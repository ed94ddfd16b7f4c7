"""Snapshot files: exact round trips, and no damaged, foreign or half-written file is ever read."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import signal
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from lightning_landscape.storage.snapshots import SnapshotError, SnapshotStore, content_hash, module_state, tied_names


class Tied(nn.Module):
    """Tied weights, a shared child, a frozen parameter, and buffers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.again = self.norm
        self.decoder = nn.Linear(3, 3, bias=False)
        self.decoder.weight = self.encoder.weight
        self.encoder.bias.requires_grad_(False)
        self.register_buffer("kept", torch.tensor(7))
        self.register_buffer("scratch", torch.ones(2), persistent=False)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "snapshots")


def header_of(path: Path) -> tuple[dict[str, object], bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewrite(path: Path, header: dict[str, object], body: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def reseal(path: Path, **changes: object) -> None:
    """Change the record and give it the checksum that belongs to it, as an attacker would."""
    header, body = header_of(path)
    metadata = header["__metadata__"]
    record = json.loads(metadata["lightning_landscape.snapshot"]) | changes
    text = json.dumps(record)
    metadata["lightning_landscape.snapshot"] = text
    metadata["lightning_landscape.sha256"] = hashlib.sha256(text.encode()).hexdigest()
    rewrite(path, header, body)


def test_module_state_holds_tied_and_shared_tensors_once_and_no_scratch_buffer() -> None:
    module = Tied()
    state = module_state(module)
    assert list(state) == [
        "encoder.weight",
        "encoder.bias",
        "norm.weight",
        "norm.bias",
        "kept",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    ]
    assert [name for name, _ in module.named_parameters()] == list(state)[:4]
    assert tied_names(module) == {
        "decoder.weight": "encoder.weight",
        **{f"again.{name}": f"norm.{name}" for name in module.norm.state_dict()},
    }
    assert set(module.state_dict()) == set(state) | set(tied_names(module))


def test_module_state_copies_and_leaves_module_and_random_states_alone() -> None:
    module = Tied()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    rng, numpy_rng = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    state = module_state(module)
    for tensor in state.values():
        assert not tensor.requires_grad
        assert tensor.is_contiguous()
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not module.encoder.bias.requires_grad
    assert module.encoder.weight.grad is None
    assert torch.equal(rng, torch.get_rng_state())
    assert np.array_equal(numpy_rng, np.random.get_state()[1])  # noqa: NPY002


def test_names_of_a_compiled_module_are_those_of_the_plain_one() -> None:
    module = Tied()
    compiled = nn.ModuleDict({"net": torch.compile(module)})
    assert list(module_state(compiled)) == [f"net.{name}" for name in module_state(module)]
    assert tied_names(torch.compile(module)) == tied_names(module)


def test_copies_made_under_inference_mode_serve_autograd() -> None:
    with torch.inference_mode():
        state = module_state(nn.Linear(2, 1))
    weight = state["weight"].requires_grad_()
    weight.square().sum().backward()
    assert torch.equal(weight.grad, 2 * weight)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.LazyLinear(2), "weight is lazy.*run one batch"),
        (nn.Linear(2, 2, device="meta"), "weight is on the meta device"),
    ],
)
def test_module_without_values_is_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module_state(module)


def test_two_tensors_that_become_one_name_are_refused(store: SnapshotStore) -> None:
    with pytest.raises(ValueError, match=r"two different tensors are called 'a\.w'"):
        store.save({"a.w": torch.ones(1), "a._orig_mod.w": torch.zeros(1)}, step=0, epoch=0)


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


def test_file_cut_at_any_length_is_named_and_never_read(store: SnapshotStore) -> None:
    path = store.save({"w": torch.arange(8.0)}, step=0, epoch=0, name="x").path
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(SnapshotError, match=r"x\.safetensors is truncated.*copy it again"):
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
    with pytest.raises(SnapshotError, match=r"folder\.safetensors is truncated, damaged or no safetensors file"):
        store.open("folder")


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
