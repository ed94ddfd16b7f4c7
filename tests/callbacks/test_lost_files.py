"""What a resumed run does without files that are not there any more: it says so, and trains as before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from resumable import Net, data, rugged

from lightning_landscape.callbacks import (
    ForkStability,
    LevelSetConnectivity,
    MergeTree,
    SnapshotRecorder,
    level_set,
    merge_tree,
)
from lightning_landscape.finders import LinearPath
from lightning_landscape.storage.named_tensors import content_hash, module_state
from lightning_landscape.storage.rows import LostRowsError
from lightning_landscape.storage.snapshots import SnapshotError, SnapshotStore

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:.*does not have many workers")

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than all the rest."""
    for name in ("profile_figure", "history_figure", "save_figure"):
        monkeypatch.setattr(level_set, name, lambda *args: None)
    monkeypatch.setattr(merge_tree, "save_figure", lambda *args: None)


def check(folder: Path, pairs: str = "lagged", **options: Any) -> LevelSetConnectivity:
    settings = {"finder": LinearPath(samples=1), "num_batches": 1, "loss_fn": rugged, "dirpath": folder / "landscape"}
    return LevelSetConnectivity(pairs, **settings | options)


def tree(folder: Path, **options: Any) -> MergeTree:
    settings = {"finder": LinearPath(samples=1), "num_batches": 1, "loss_fn": rugged, "dirpath": folder / "tree"}
    return MergeTree(**settings | options)


def fit(root: Path, callback: Any, epoch: int | None = None, epochs: int = 4, **saved: Any) -> str:
    """Trains, from the checkpoint of an epoch if one is given; the content hash of the weights at the end."""
    saved = {"save_on_train_epoch_end": True} | saved
    checkpoints = ModelCheckpoint(root / "checkpoints", "{epoch}", save_top_k=-1, **saved)
    trainer = pl.Trainer(default_root_dir=root, max_epochs=epochs, callbacks=[callback, checkpoints], **QUIET)
    module = Net()
    ckpt_path = None if epoch is None else root / "checkpoints" / f"epoch={epoch}.ckpt"
    trainer.fit(module, data(), ckpt_path=ckpt_path)
    return content_hash(module_state(module))


def timeless(rows: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def rename(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("pairs", "lose"),
    [("lagged", remove), ("first", remove), ("twin", remove), ("lagged", empty), ("lagged", rename)],
)
def test_a_lost_folder_is_a_warning_that_names_the_rows(
    tmp_path: Path, pairs: str, lose: Callable[[Path], None]
) -> None:
    whole = check(tmp_path, pairs)
    fit(tmp_path, whole)
    lose(tmp_path / "landscape")
    again = check(tmp_path, pairs)
    checks, epochs = ("1 to 3", "0 to 2") if pairs == "twin" else ("1 to 2", "1 to 2")
    with pytest.warns(UserWarning, match=rf"goes on without checks {checks} of epochs {epochs}"):
        end = fit(tmp_path, again, epoch=2, epochs=6)
    first = 4 if pairs == "twin" else 3
    assert [row["check"] for row in again.rows] == list(range(first, first + len(again.rows)))
    assert again.rows[-1]["epoch"] == 5
    # The first snapshot is gone for good; that of the last check is the checkpoint's own weights.
    assert [row["reason"] == "error" for row in again.rows] == [pairs == "first"] + [False] * (len(again.rows) - 1)
    lines = [json.loads(line) for line in (tmp_path / "landscape" / "checks.jsonl").open()]
    assert lines == again.rows
    # The next resume finds all that it counts, and does not warn again.
    third = check(tmp_path, pairs, on_error="raise")
    fit(tmp_path, third, epoch=5, epochs=7)
    assert [row["check"] for row in third.rows] == [row["check"] for row in again.rows] + [again.rows[-1]["check"] + 1]
    assert fit(tmp_path / "plain", check(tmp_path / "plain", pairs), epochs=6) == end


@pytest.mark.parametrize("pairs", ["lagged", "first", "twin"])
def test_a_lost_folder_ends_the_run_where_it_shall(tmp_path: Path, pairs: str) -> None:
    fit(tmp_path, check(tmp_path, pairs))
    remove(tmp_path / "landscape")
    with pytest.raises(LostRowsError, match=r"checks.jsonl is not there.*put the file back, or pass the dirpath="):
        fit(tmp_path, check(tmp_path, pairs, on_error="raise"), epoch=2)


@pytest.mark.parametrize("lines", [[1], [0, 2], []])
def test_rows_that_are_left_are_kept(tmp_path: Path, lines: list[int]) -> None:
    whole = check(tmp_path)
    fit(tmp_path, whole, epochs=4)
    path = tmp_path / "landscape" / "checks.jsonl"
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(rows[line] for line in lines))
    again = check(tmp_path)
    with pytest.warns(UserWarning, match="goes on without checks"):
        fit(tmp_path, again, epoch=3, epochs=6)
    assert timeless(again.rows)[: len(lines)] == timeless([whole.rows[line] for line in lines])
    assert [row["check"] for row in again.rows] == [line + 1 for line in lines] + [4, 5]


@pytest.mark.parametrize(("keep", "dtype"), [("needed", None), (2, None), ("needed", "bfloat16")])
def test_a_partner_that_was_pruned_comes_back_from_the_checkpoint(tmp_path: Path, keep: Any, dtype: Any) -> None:
    options = {"keep": keep, "dtype": dtype}
    whole = check(tmp_path, **options)
    fit(tmp_path, whole, epochs=5)
    pruned = "epoch=001-step=000008"
    assert pruned not in SnapshotStore(tmp_path / "landscape" / "snapshots")
    again = check(tmp_path, on_error="raise", **options)
    fit(tmp_path, again, epoch=1, epochs=5)
    assert timeless(again.rows) == timeless(whole.rows)
    assert again.folder == tmp_path / "landscape-2"
    assert pruned not in SnapshotStore(tmp_path / "landscape" / "snapshots")
    assert [s.name for s in again._store] == [s.name for s in whole._store]


def test_a_pruned_partner_of_other_weights_is_a_plain_warning(tmp_path: Path) -> None:
    def plain() -> LevelSetConnectivity:
        return check(tmp_path, every_n_epochs=2)

    fit(tmp_path, plain(), epochs=8)
    # The checkpoint is of the epoch after the check: its weights are not the partner's.
    again = plain()
    with pytest.warns(UserWarning, match="the next check compares with nothing, and later ones with its weights"):
        fit(tmp_path, again, epoch=2, epochs=8)
    assert [(row["epoch"], row["reason"] == "error") for row in again.rows] == [(3, True), (5, False), (7, False)]


@pytest.mark.parametrize("keep", ["needed", "all"])
def test_a_tree_of_an_older_checkpoint_says_which_points_are_gone(tmp_path: Path, keep: Any) -> None:
    fit(tmp_path, tree(tmp_path, max_points=2, keep=keep), epochs=9)
    again = tree(tmp_path, max_points=2, keep=keep)
    if keep == "needed":
        with pytest.warns(UserWarning, match=r"without epoch=001-step=000008, which are gone; keep='all' keeps all"):
            fit(tmp_path, again, epoch=3, epochs=5)
    else:
        fit(tmp_path, again, epoch=3, epochs=5)
    assert again.tree is not None
    assert len(again.tree.names) == 2


def test_a_recorder_says_which_snapshots_are_gone(tmp_path: Path) -> None:
    def recorder(on_error: Any) -> SnapshotRecorder:
        return SnapshotRecorder(tmp_path / "snapshots", every_n_epochs=1, on_error=on_error)

    fit(tmp_path, recorder("warn"), epochs=3)
    SnapshotStore(tmp_path / "snapshots").delete("epoch=001-step=000008")
    with pytest.raises(SnapshotError, match=r"epoch=001-step=000008 are gone from .*snapshots: put the files back"):
        fit(tmp_path, recorder("raise"), epoch=2, epochs=4)
    again = recorder("warn")
    with pytest.warns(UserWarning, match="epoch=001-step=000008 are gone"):
        fit(tmp_path, again, epoch=2, epochs=4)
    assert [snapshot.epoch for snapshot in again.snapshots] == [0, 2, 3]


def test_a_fork_without_its_state_is_left_out(tmp_path: Path) -> None:
    def forks(on_error: Any) -> ForkStability:
        settings = {"num_steps": 1, "num_batches": 1, "loss_fn": rugged, "error_fn": rugged, "on_error": on_error}
        return ForkStability([2, 6], dirpath=tmp_path / "fork", **settings)

    fit(tmp_path, forks("warn"), epochs=3)
    (tmp_path / "fork" / "states" / "step=000002.safetensors").unlink()
    (tmp_path / "fork" / "forks.jsonl").unlink()
    with pytest.raises(SnapshotError, match="lacks what was kept at the steps 2: put the files back"):
        fit(tmp_path, forks("raise"), epoch=1, epochs=3)
    again = forks("warn")
    with pytest.warns(UserWarning, match="lacks what was kept at the steps 2: these forks are left out"):
        fit(tmp_path, again, epoch=1, epochs=3)
    assert [row["step"] for row in again.rows] == [6]
