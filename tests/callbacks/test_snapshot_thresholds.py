"""SnapshotRecorder with a monitor: each threshold is passed once, at the right value of the right metric."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_landscape.callbacks import snapshots as module_under_test
from lightning_landscape.callbacks.snapshots import SnapshotRecorder
from tests.callbacks.snapshot_runs import STEPS, Net, Watch, data, fit, names

SCRIPT = [math.nan, 0.9, -math.inf, 0.4, 0.8, 0.05]


@pytest.mark.parametrize(
    ("hook", "log"),
    [
        ("training_step", {"on_step": False, "on_epoch": True, "reduce_fx": "max"}),
        ("validation_step", {}),
        ("on_validation_epoch_end", {}),
        ("on_train_epoch_end", {}),
    ],
)
def test_metric_of_an_epoch_passes_each_threshold_once(tmp_path: Path, hook: str, log: dict[str, Any]) -> None:
    values = SCRIPT
    if hook == "training_step":
        values = [value for value in SCRIPT for _ in range(STEPS)]
    recorder, watch = SnapshotRecorder(monitor="metric", thresholds=[0.1, 0.5, 0.4, 0.2]), Watch()
    fit(tmp_path, Net(values, hook, **log), recorder, watch, max_epochs=7)
    found = [(s.epoch, s.step, round(s.loss, 6), s.metadata["thresholds"]) for s in recorder.snapshots]
    # 0.4 is not strictly below 0.4, NaN and -inf pass nothing.
    assert found == [(3, 12, 0.4, [0.5]), (5, 18, 0.05, [0.1, 0.4, 0.2])]
    for snapshot in recorder.snapshots:
        assert snapshot.metadata["monitor"] == "metric"
        assert torch.equal(snapshot.load()["net.0.weight"], watch.states[snapshot.step]["net.0.weight"])


def test_metric_of_a_step_passes_each_threshold_once(tmp_path: Path) -> None:
    recorder, watch = SnapshotRecorder(monitor="metric", thresholds=[0.5, 0.1]), Watch()
    fit(tmp_path, Net(SCRIPT), recorder, watch, max_epochs=3)
    found = [(s.epoch, s.step, round(s.loss, 6), s.metadata["thresholds"]) for s in recorder.snapshots]
    assert found == [(1, 4, 0.4, [0.5]), (1, 6, 0.05, [0.1])]


def test_mode_max_waits_for_values_above_and_gives_no_loss(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(monitor="metric", thresholds=[0.5, 0.9], mode="max")
    fit(tmp_path, Net([0.1, math.inf, 0.5, 0.6, 0.2, 0.95]), recorder, max_epochs=2)
    assert [(s.step, s.loss, s.metadata["thresholds"]) for s in recorder.snapshots] == [
        (4, None, [0.5]),
        (6, None, [0.9]),
    ]


def test_thresholds_passed_at_one_moment_by_two_values_share_one_snapshot(tmp_path: Path) -> None:
    # The last step's own value, 2, passes 1.5; then the sum over the epoch, 4, passes 3 with the same weights.
    recorder = SnapshotRecorder(monitor="metric", thresholds=[1.5, 3.0], mode="max")
    fit(tmp_path, Net([1.0, 1.0, 2.0], on_step=True, on_epoch=True, reduce_fx="sum"), recorder, max_epochs=1)
    (snapshot,) = recorder.store
    assert (snapshot.step, snapshot.metadata) == (3, {"monitor": "metric", "value": 4.0, "thresholds": [1.5, 3.0]})


def test_sanity_check_and_later_validation_pass_nothing(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(monitor="metric", thresholds=[0.5])
    module = Net([0.9], "validation_step")
    trainer = fit(tmp_path, module, recorder, num_sanity_val_steps=2, max_epochs=2)
    assert not recorder.folder.exists()
    module.values = [0.1]
    trainer.validate(module, data(), verbose=False)
    assert trainer.callback_metrics["metric"] == pytest.approx(0.1)
    assert not recorder.folder.exists()


@pytest.mark.parametrize(
    ("values", "hook", "want"),
    [
        ([0.9, 0.1, 0.05, 0.01], "training_step", [0.9, 0.1]),
        # A value of the validation is fetched once, not again at each step of the next epoch.
        ([0.9, 0.8, 0.7], "validation_step", [0.9, 0.8, 0.7]),
    ],
)
def test_values_are_fetched_only_while_thresholds_are_pending(
    tmp_path: Path, monkeypatch, values: list[float], hook: str, want: list[float]
) -> None:
    fetched: list[float] = []

    def fetch(value: Tensor) -> float:
        fetched.append(value.item())
        return fetched[-1]

    recorder = SnapshotRecorder(monitor="metric", thresholds=[0.5])
    monkeypatch.setattr(module_under_test, "float", fetch, raising=False)
    fit(tmp_path, Net(values, hook), recorder, max_epochs=3)
    assert fetched == pytest.approx(want)


@pytest.mark.parametrize("validate_every", [1, 3])
def test_missing_metric_is_a_warning_once_that_names_the_others(tmp_path: Path, validate_every: int, recwarn) -> None:
    recorder = SnapshotRecorder(monitor="vall_loss", thresholds=[0.5])
    fit(tmp_path, Net(), recorder, max_epochs=5, check_val_every_n_epoch=validate_every)
    found = [str(w.message) for w in recwarn if "finds no such metric" in str(w.message)]
    assert len(found) == 1
    assert "monitor='vall_loss'" in found[0]
    assert "loss, loss_epoch, loss_step, val_loss" in found[0]


def test_no_warning_while_the_validation_has_not_run(tmp_path: Path, recwarn) -> None:
    recorder = SnapshotRecorder(monitor="val_loss", thresholds=[1e9])
    fit(tmp_path, Net(), recorder, max_epochs=4, check_val_every_n_epoch=3)
    assert not [w for w in recwarn if "finds no such metric" in str(w.message)]
    assert names(recorder) == ["epoch=002-step=000009"]
