"""SnapshotRecorder over several fits: resumed runs, fresh runs, and recorders side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from lightning_landscape.callbacks.snapshots import SnapshotRecorder
from tests.callbacks.snapshot_runs import STEPS, Net, data, fit, names, trainer_for


@pytest.mark.parametrize(
    ("hook", "settings"),
    [
        ("training_step", {"every_n_steps": 2, "every_n_epochs": 1}),
        ("training_step", {"monitor": "metric", "thresholds": [0.85, 0.75, 0.45, 0.15]}),
        ("validation_step", {"monitor": "metric", "thresholds": [0.85, 0.65]}),
        ("on_train_epoch_end", {"monitor": "metric", "thresholds": [0.95, 0.85, 0.75, 0.65]}),
    ],
)
@pytest.mark.parametrize("stop", ["epoch", "step"])
def test_resumed_run_saves_what_an_uninterrupted_one_saves(
    tmp_path: Path, hook: str, settings: dict[str, Any], stop: str
) -> None:
    values = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    whole = SnapshotRecorder(tmp_path / "whole", **settings)
    fit(tmp_path, Net(values, hook), whole, max_epochs=4)
    assert len(whole.snapshots) > 1

    every = {"every_n_epochs": 1} if stop == "epoch" else {"every_n_train_steps": 2}
    checkpoint = ModelCheckpoint(tmp_path / "ckpt", save_top_k=-1, filename="{step}", **every)
    first = SnapshotRecorder(tmp_path / "parts", **settings)
    fit(tmp_path, Net(values, hook), first, checkpoint, max_epochs=2, enable_checkpointing=True)
    at = tmp_path / "ckpt" / ("step=3.ckpt" if stop == "epoch" else "step=4.ckpt")
    for snapshot in first.snapshots:
        if snapshot.step > (3 if stop == "epoch" else 4):
            first.store.delete(snapshot.name)
    second = SnapshotRecorder(tmp_path / "parts", **settings)
    fit(tmp_path, Net(values, hook), second, max_epochs=4, ckpt_path=at)
    assert names(second) == names(whole)
    assert [snapshot.name for snapshot in second.store] == [snapshot.name for snapshot in whole.store]
    if stop == "epoch":  # the order of batches within an epoch is not restored by Lightning
        rows = [(s.loss, s.metadata) for s in second.snapshots]
        assert rows == [(s.loss, s.metadata) for s in whole.snapshots]


def test_resume_into_another_folder_has_the_earlier_snapshots_there_too(tmp_path: Path) -> None:
    first = SnapshotRecorder(tmp_path / "one", every_n_epochs=1)
    fit(tmp_path, Net(), first, max_epochs=1).save_checkpoint(tmp_path / "run.ckpt")
    second = SnapshotRecorder(tmp_path / "two", every_n_epochs=1)
    fit(tmp_path, Net(), second, max_epochs=2, ckpt_path=tmp_path / "run.ckpt").save_checkpoint(tmp_path / "run.ckpt")
    third = SnapshotRecorder(tmp_path / "three", every_n_epochs=1)
    fit(tmp_path, Net(), third, max_epochs=3, ckpt_path=tmp_path / "run.ckpt")
    assert names(third) == ["epoch=000-step=000003", "epoch=001-step=000006", "epoch=002-step=000009"]
    for count, recorder in enumerate((first, second, third), start=1):
        assert [snapshot.path.parent for snapshot in recorder.snapshots] == [recorder.folder] * count
        assert len(recorder.store) == count
    inodes = {path.stat().st_ino for path in tmp_path.rglob("*.safetensors")}
    assert len(inodes) == 3


def test_a_list_goes_on_where_the_folder_was_moved_or_is_gone(tmp_path: Path) -> None:
    first = SnapshotRecorder(tmp_path / "one", every_n_epochs=1)
    fit(tmp_path, Net(), first, max_epochs=2).save_checkpoint(tmp_path / "run.ckpt")
    (tmp_path / "one").rename(tmp_path / "moved")
    moved = SnapshotRecorder(tmp_path / "moved", every_n_epochs=1)
    fit(tmp_path, Net(), moved, max_epochs=3, ckpt_path=tmp_path / "run.ckpt")
    assert [snapshot.epoch for snapshot in moved.snapshots] == [0, 1, 2]
    gone = SnapshotRecorder(tmp_path / "new", every_n_epochs=1)
    with pytest.warns(UserWarning, match="epoch=000-step=000003, epoch=001-step=000006 are gone"):
        fit(tmp_path, Net(), gone, max_epochs=3, ckpt_path=tmp_path / "run.ckpt")
    assert names(gone) == ["epoch=002-step=000009"]
    assert list(gone.state_dict()["snapshots"]) == names(moved)


@pytest.mark.parametrize("settings", [{"every_n_epochs": 1}, {"monitor": "metric", "thresholds": [0.5, 0.1]}])
def test_a_list_goes_on_under_a_logger_that_numbers_versions(tmp_path: Path, settings: dict[str, Any]) -> None:
    first = SnapshotRecorder(**settings)
    logger = CSVLogger(tmp_path, name="run")
    fit(tmp_path, Net([0.4]), first, max_epochs=1, logger=logger).save_checkpoint(tmp_path / "run.ckpt")
    second = SnapshotRecorder(**settings)
    fit(
        tmp_path,
        Net([0.05]),
        second,
        max_epochs=2,
        logger=CSVLogger(tmp_path, name="run"),
        ckpt_path=tmp_path / "run.ckpt",
    )
    assert len(second.snapshots) == 2
    assert names(second)[:1] == names(first)
    assert len({snapshot.path.parent for snapshot in second.snapshots}) == 1


def test_a_number_of_snapshots_is_kept(tmp_path: Path) -> None:
    recorders = [
        SnapshotRecorder(tmp_path / "x", every_n_epochs=1, keep=2),
        SnapshotRecorder(tmp_path / "x", every_n_epochs=2),
    ]
    trainer = fit(tmp_path, Net(), *recorders, max_epochs=4)
    assert [s.epoch for s in recorders[0].snapshots] == [2, 3]
    assert [s.epoch for s in recorders[1].snapshots] == [1, 3]
    assert [s.epoch for s in recorders[0].store] == [1, 2, 3]
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    again = SnapshotRecorder(tmp_path / "x", every_n_epochs=1, keep=2)
    fit(tmp_path, Net(), again, max_epochs=5, ckpt_path=tmp_path / "run.ckpt")
    assert [s.epoch for s in again.snapshots] == [3, 4]
    for keep in ("needed", 0, True, 1.5):
        with pytest.raises(ValueError, match="keep must be"):
            SnapshotRecorder(every_n_epochs=1, keep=keep)


def test_state_is_plain_data_that_weights_only_loads(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(monitor="metric", thresholds=[0.5, 0.1], every_n_epochs=2)
    trainer = fit(tmp_path, Net([0.4]), recorder, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)["callbacks"][recorder.state_key]
    assert saved == recorder.state_dict()
    assert saved == {
        "folder": str(tmp_path / "snapshots"),
        "snapshots": {snapshot.name: snapshot.content_hash for snapshot in recorder.snapshots},
        "passed": [[0.5, "epoch=000-step=000001"]],
    }
    assert names(recorder) == ["epoch=000-step=000001", "epoch=001-step=000006"]


def test_fresh_run_with_the_same_recorder_starts_afresh(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(monitor="metric", thresholds=[0.5], every_n_epochs=1)
    for folder in ("one", "two"):
        fit(tmp_path / folder, Net([0.4]), recorder, max_epochs=1)
        assert recorder.store.dirpath == tmp_path / folder / "snapshots"
        assert names(recorder) == ["epoch=000-step=000001", "epoch=000-step=000003"]


def test_run_that_goes_on_keeps_its_state(tmp_path: Path, recwarn) -> None:
    recorder, module = SnapshotRecorder(monitor="metric", thresholds=[0.5]), Net([0.4])
    trainer = fit(tmp_path, module, recorder, max_epochs=1)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, data())
    assert trainer.global_step == 2 * STEPS
    assert not [w for w in recwarn if "finds no such metric" in str(w.message)]
    assert names(recorder) == ["epoch=000-step=000001"]


def test_two_recorders_live_side_by_side(tmp_path: Path) -> None:
    recorders = [SnapshotRecorder(every_n_epochs=2, name=name) for name in ("a", "b")]
    recorders.append(SnapshotRecorder(every_n_epochs=1))
    assert len({recorder.state_key for recorder in recorders}) == 3
    fit(tmp_path, Net(), *recorders, max_epochs=2)
    assert names(recorders[0]) == ["a-epoch=001-step=000006"]
    assert names(recorders[1]) == ["b-epoch=001-step=000006"]
    assert len(recorders[2].store) == 4
    with pytest.raises(RuntimeError, match="state_key"):
        trainer_for(tmp_path, SnapshotRecorder(every_n_epochs=2), SnapshotRecorder(every_n_epochs=2))
