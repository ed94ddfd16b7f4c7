"""Checkpoints, early stopping and other checks that read what a check logs."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from level_set_runs import BATCHES, METRICS, Failing, Net, Validated, attached, rows_on_disk, trainer_of
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from lightning_landscape import Connection, SnapshotStore

pytestmark = pytest.mark.usefixtures("blank_figures")


class Scripted(Failing):
    """Says what the barriers are."""

    def __init__(self, *barriers: float) -> None:
        super().__init__()
        self.barriers = barriers

    def connect(self, *args: Any, **options: Any) -> Connection:
        return replace(super().connect(*args, **options), barrier=self.barriers[self.calls - 1])


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, {}),
        ({"val_check_interval": 0.5}, {"save_on_train_epoch_end": True}),
        ({"check_val_every_n_epoch": 3}, {"save_on_train_epoch_end": True}),
    ],
    ids=["defaults", "validation twice an epoch", "validation every third epoch"],
)
def test_model_checkpoint_keeps_the_best_barrier(options: dict[str, Any], more: dict[str, Any], tmp_path: Path) -> None:
    callback = attached(tmp_path, every_n_epochs=2, finder=Scripted(0.5, -0.25, 0.125))
    best = ModelCheckpoint(dirpath=tmp_path / "best", filename="{epoch}", monitor="landscape/barrier", **more)
    seen: list[float] = []

    class Watch(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.append(float(trainer.callback_metrics["landscape/barrier"]))

    # Lightning moves checkpoint callbacks to the end of the list, wherever they stand.
    trainer = trainer_of(tmp_path, best, callback, Watch(), epochs=9, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*could not find the monitored key")
        trainer.fit(Validated())
    assert [row["epoch"] for row in callback.rows] == [3, 5, 7]
    assert all(map(math.isnan, seen[:3]))
    assert seen[3:] == [0.5, 0.5, -0.25, -0.25, 0.125, 0.125]
    assert best.best_model_score == -0.25
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["epoch=5.ckpt"]
    weights = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    (snapshot,) = [s for s in SnapshotStore(tmp_path / "landscape" / "snapshots") if s.epoch == 5]
    assert all(torch.equal(value, weights[name]) for name, value in snapshot.state_dict().items())


def test_model_checkpoint_that_saves_before_the_first_epoch_ends(tmp_path: Path) -> None:
    best = ModelCheckpoint(dirpath=tmp_path / "best", monitor="landscape/barrier")
    trainer = trainer_of(tmp_path, attached(tmp_path), best, val_check_interval=0.5)
    trainer.fit(Validated())
    assert trainer.global_step == 3 * BATCHES
    assert best.best_model_score is not None
    assert best.best_model_score.isfinite()


def test_early_stopping_waits_for_the_first_check(tmp_path: Path) -> None:
    callback = attached(tmp_path, every_n_epochs=2, overhead=0)
    stop = EarlyStopping("landscape/barrier", patience=100, check_finite=False, divergence_threshold=1e9)
    trainer = trainer_of(tmp_path, callback, stop, epochs=5)
    trainer.fit(Validated())
    assert trainer.current_epoch == 5
    assert stop.best_score.item() == pytest.approx(callback.rows[0]["barrier"])


def test_early_stopping_on_connected(tmp_path: Path) -> None:
    stop = EarlyStopping("landscape/connected", mode="max", stopping_threshold=0.5, patience=100, check_finite=False)
    callback = attached(tmp_path, level=1e6, overhead=None)
    trainer = trainer_of(tmp_path, callback, stop, epochs=20)
    trainer.fit(Net())
    assert trainer.current_epoch == 2
    assert [row["verdict"] for row in callback.rows] == ["connected"]


def test_names_keep_instances_apart(tmp_path: Path) -> None:
    pair = [
        attached(tmp_path, name=name, dirpath=None, pairs=pairs) for name, pairs in (("x", "lagged"), ("y", "first"))
    ]
    assert pair[0].state_key != pair[1].state_key
    trainer = trainer_of(tmp_path, *pair)
    trainer.fit(Net())
    for callback in pair:
        names = {name.replace("landscape/", f"landscape/{callback.name}/") for name in METRICS}
        assert names <= trainer.callback_metrics.keys()
        assert callback.folder == tmp_path / "landscape" / str(callback.name)
        assert rows_on_disk(callback.folder) == callback.rows
        assert float(trainer.callback_metrics[f"landscape/{callback.name}/height"]) == pytest.approx(
            callback.rows[-1]["height"]
        )
    assert not METRICS & trainer.callback_metrics.keys()


@pytest.mark.parametrize("name", [None, "x"])
def test_two_of_one_name_are_refused(name: str | None, tmp_path: Path) -> None:
    callbacks = [attached(tmp_path, name=name, pairs=pairs) for pairs in ("lagged", "first")]
    trainer = trainer_of(tmp_path, *callbacks)
    with pytest.raises(
        MisconfigurationException, match=r"two LevelSetConnectivity callbacks .* give each its own name="
    ):
        trainer.fit(Net())
    assert trainer.global_step == 0


def test_two_in_one_folder_are_refused(tmp_path: Path) -> None:
    callbacks = [attached(tmp_path, name=name, pairs=name) for name in ("lagged", "first")]
    with pytest.raises(MisconfigurationException, match="dirpath"):
        trainer_of(tmp_path, *callbacks).fit(Net())
