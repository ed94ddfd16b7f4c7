"""Reading the weights of another run: snapshots, plain safetensors files and Lightning checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import pytorch_lightning as pl
import safetensors.torch
import torch
from pytorch_lightning.demos.boring_classes import BoringModel
from torch import nn

from lightning_landscape.storage.checkpoints import read_reference
from lightning_landscape.storage.snapshots import SnapshotError, SnapshotStore


class Dangerous:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {os.environ['LANDSCAPE_TEST_TOUCHED']}",)


def test_snapshot_is_verified_and_its_ties_are_restored(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    module[1].weight = module[0].weight
    snapshot = SnapshotStore(tmp_path).save(module, step=0, epoch=0)
    read = read_reference(snapshot.path)
    assert set(read) == {"0.weight", "1.weight"}
    assert torch.equal(read["1.weight"], module[0].weight)
    damaged = bytearray(snapshot.path.read_bytes())
    damaged[-1] ^= 1
    snapshot.path.write_bytes(damaged)
    with pytest.raises(SnapshotError, match="was altered"):
        read_reference(str(snapshot.path))


def test_plain_safetensors_file_is_read_with_clean_names(tmp_path: Path) -> None:
    safetensors.torch.save_file({"net._orig_mod.w": torch.ones(2)}, tmp_path / "plain.safetensors")
    read = read_reference(tmp_path / "plain.safetensors")
    assert list(read) == ["net.w"]
    assert torch.equal(read["net.w"], torch.ones(2))


def test_lightning_checkpoint_is_read(tmp_path: Path) -> None:
    model = BoringModel()
    trainer = pl.Trainer(
        default_root_dir=tmp_path, max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    read = read_reference(tmp_path / "run.ckpt")
    assert set(read) == set(model.state_dict())
    assert all(torch.equal(read[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("new_format", [True, False])
def test_checkpoint_tensors_outlive_their_file_and_extra_state_is_left_out(tmp_path: Path, new_format: bool) -> None:
    path = tmp_path / "run.ckpt"
    state = {"_orig_mod.w": torch.arange(5000), "_extra_state": {"a": 1}}
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=new_format)
    read = read_reference(path)
    os.truncate(path, 0)
    assert list(read) == ["w"]
    assert torch.equal(read["w"], torch.arange(5000))


def test_pickle_that_runs_code_is_refused_unrun_with_the_way_to_convert_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LANDSCAPE_TEST_TOUCHED", str(tmp_path / "touched"))
    torch.save({"state_dict": {"w": torch.ones(1)}, "hyper_parameters": Dangerous()}, tmp_path / "run.ckpt")
    with pytest.raises(SnapshotError, match=r"run\.ckpt holds \S*system.*not unpickled.*weights_only=False"):
        read_reference(tmp_path / "run.ckpt")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"w": torch.ones(1)}, "epoch": 3}, r"has no 'state_dict' \(it holds: model, epoch\)"),
        ({"state_dict": 3}, "has no 'state_dict'"),
        ([1, 2], r"has no 'state_dict' \(it holds: list\)"),
        ({"state_dict": {"w": torch.ones(1), "_orig_mod.w": torch.ones(1)}}, "holds two tensors of one name"),
    ],
)
def test_checkpoint_without_usable_weights_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "run.ckpt")
    with pytest.raises(SnapshotError, match=rf"run\.ckpt {message}"):
        read_reference(tmp_path / "run.ckpt")


def test_missing_sharded_truncated_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"none\.ckpt does not exist"):
        read_reference(tmp_path / "none.ckpt")
    with pytest.raises(SnapshotError, match=r"is a folder.*consolidate_checkpoint"):
        read_reference(tmp_path)
    path = tmp_path / "run.ckpt"
    torch.save({"state_dict": {"w": torch.ones(2000)}}, path)
    data = path.read_bytes()
    for content in (b"", data[:40], data[: len(data) // 2], data[:-1], b"hello", b"\x80\x02", b"root:x:0:0"):
        path.write_bytes(content)
        with pytest.raises(SnapshotError, match=r"run\.ckpt is (truncated or no|no) checkpoint"):
            read_reference(path)


@pytest.mark.parametrize("name", ["snapshots/x.safetensors", "run/epoch=001-step=000008.safetensors"])
def test_a_snapshot_that_was_removed_is_explained(tmp_path: Path, name: str) -> None:
    with pytest.raises(SnapshotError, match=r"does not exist.*train with keep='all' to have every one"):
        read_reference(tmp_path / name)
    with pytest.raises(SnapshotError) as plain:
        read_reference(tmp_path / "best.ckpt")
    assert "keep" not in str(plain.value)
