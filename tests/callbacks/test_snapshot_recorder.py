"""SnapshotRecorder: the right moments, once each, without a trace in the run it watches."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape.callbacks import snapshots as module_under_test
from lightning_landscape.callbacks.snapshots import SnapshotRecorder
from lightning_landscape.storage.snapshots import SnapshotError, module_state

STEPS = 3  # batches in an epoch


class Net(pl.LightningModule):
    """Dropout and batch norm; logs ``metric`` with the scripted values, from the hook ``logged_in``."""

    def __init__(self, values: list[float] = (), logged_in: str = "training_step", **log: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
        self.values, self.logged_in, self.log_options = list(values), logged_in, log

    def _log_metric(self, hook: str, index: int) -> None:
        if hook == self.logged_in and self.values and not self.trainer.sanity_checking:
            self.log("metric", self.values[min(index, len(self.values) - 1)], batch_size=1, **self.log_options)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True)
        self._log_metric("training_step", self.global_step)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))
        self._log_metric("validation_step", self.current_epoch)
        if self.trainer.sanity_checking:
            self.log("metric", -100.0)

    def on_validation_epoch_end(self) -> None:
        self._log_metric("on_validation_epoch_end", self.current_epoch)

    def on_train_epoch_end(self) -> None:
        self._log_metric("on_train_epoch_end", self.current_epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Watch(pl.Callback):
    """What the weights were after each step, and the metrics of each epoch."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, Tensor]] = {}
        self.logged: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.states[trainer.global_step] = module_state(pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.logged.append({name: float(value) for name, value in trainer.logged_metrics.items()})


def data() -> DataLoader[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(STEPS * 4, 4, generator=generator)
    return DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), batch_size=4, shuffle=True)


def trainer_for(folder: Path, *callbacks: pl.Callback, max_epochs: int = 4, **options: Any) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    settings = {"logger": False, "accelerator": "cpu", "log_every_n_steps": 1, **quiet} | options
    return pl.Trainer(default_root_dir=folder, callbacks=list(callbacks), max_epochs=max_epochs, **settings)


def fit(folder: Path, module: pl.LightningModule, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    pl.seed_everything(1, verbose=False)
    ckpt_path = options.pop("ckpt_path", None)
    trainer = trainer_for(folder, *callbacks, **options)
    trainer.fit(module, data(), data(), ckpt_path=ckpt_path)
    return trainer


def names(recorder: SnapshotRecorder) -> list[str]:
    return [snapshot.name for snapshot in recorder.snapshots]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing would be saved: give every_n_epochs"),
        ({"every_n_epochs": 0}, "every_n_epochs must be an integer from 1, got 0"),
        ({"every_n_steps": -2}, "every_n_steps must be an integer from 1"),
        ({"every_n_steps": True}, "every_n_steps must be an integer from 1"),
        ({"every_n_epochs": 1.5}, "every_n_epochs must be an integer from 1"),
        ({"every_n_epochs": 1, "monitor": "loss"}, "monitor and thresholds go together, got monitor='loss'"),
        ({"every_n_epochs": 1, "thresholds": [0.1]}, "monitor and thresholds go together, got monitor=None"),
        ({"monitor": "loss", "thresholds": []}, "thresholds must be distinct finite numbers, at least one"),
        ({"monitor": "loss", "thresholds": 0.1}, r"such as \[0.5, 0.1\], got 0.1"),
        ({"monitor": "loss", "thresholds": "0.1"}, "thresholds must be distinct"),
        ({"monitor": "loss", "thresholds": [0.1, "0.2"]}, "thresholds must be distinct"),
        ({"monitor": "loss", "thresholds": [0.1, math.nan]}, "thresholds must be distinct"),
        ({"monitor": "loss", "thresholds": [0.1, 0.1]}, "thresholds must be distinct"),
        ({"every_n_epochs": 1, "mode": "low"}, "mode must be one of 'min', 'max', got 'low'"),
        ({"every_n_epochs": 1, "name": "../up"}, "name must be a plain file name"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SnapshotRecorder(**arguments)


def test_every_n_epochs_saves_the_weights_of_that_moment(tmp_path: Path) -> None:
    recorder, watch = SnapshotRecorder(tmp_path / "kept", every_n_epochs=2), Watch()
    fit(tmp_path, Net(), recorder, watch, max_epochs=5)
    assert names(recorder) == ["epoch=001-step=000006", "epoch=003-step=000012"]
    for snapshot in recorder.snapshots:
        assert (snapshot.loss, snapshot.metadata) == (None, {})
        saved, seen = snapshot.load(), watch.states[snapshot.step]
        assert saved.keys() == seen.keys()
        assert all(torch.equal(saved[name], seen[name]) for name in seen)


@pytest.mark.parametrize(
    ("every", "accumulate", "steps"), [(1, 1, [1, 2, 3, 4, 5, 6]), (2, 1, [2, 4, 6]), (4, 1, [4]), (1, 2, [1, 2, 3, 4])]
)
def test_every_n_steps_counts_optimizer_steps(tmp_path: Path, every: int, accumulate: int, steps: list[int]) -> None:
    recorder = SnapshotRecorder(every_n_steps=every)
    fit(tmp_path, Net(), recorder, max_epochs=2, accumulate_grad_batches=accumulate)
    assert [snapshot.step for snapshot in recorder.snapshots] == steps


def test_every_n_steps_with_two_optimizers_saves_after_the_batch_that_passes(tmp_path: Path) -> None:
    class TwoOptimizers(Net):
        automatic_optimization = False

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(self.net(batch[0]).square().mean())
                optimizer.step()

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [torch.optim.SGD(self.parameters(), lr=0.01) for _ in range(2)]

    recorder = SnapshotRecorder(every_n_steps=5)
    fit(tmp_path, TwoOptimizers(), recorder, max_epochs=4)
    assert [snapshot.step for snapshot in recorder.snapshots] == [6, 10, 16, 20]


def test_epochs_and_steps_that_coincide_give_one_file(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(every_n_epochs=1, every_n_steps=2, monitor="metric", thresholds=[5.0])
    fit(tmp_path, Net([9.0, 9.0, 9.0, 9.0, 9.0, 4.0]), recorder, max_epochs=2)
    assert [(snapshot.step, snapshot.loss) for snapshot in recorder.store] == [
        (2, None),
        (3, None),
        (4, None),
        (6, 4.0),
    ]


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


def test_fast_dev_run_writes_nothing(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(every_n_epochs=1, every_n_steps=1, monitor="metric", thresholds=[0.5])
    fit(tmp_path, Net([0.1]), recorder, fast_dev_run=2)
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


RECORDERS = [
    {"every_n_epochs": 1},
    {"every_n_steps": 1},
    {"monitor": "loss", "thresholds": [10.0, 0.6, 0.5, -1.0]},
    {"monitor": "val_loss", "thresholds": [10.0, 0.6, 0.5, -1.0]},
]


@pytest.mark.parametrize("settings", RECORDERS)
def test_training_is_bit_identical(tmp_path: Path, settings: dict[str, Any]) -> None:
    ends = []
    for recorders in ([], [SnapshotRecorder(tmp_path / "kept", **settings)]):
        module, watch = Net(), Watch()
        pl.seed_everything(1, verbose=False)
        module.load_state_dict(Net().state_dict())
        checkpoint = ModelCheckpoint(tmp_path / str(len(recorders)), save_last=True)
        trainer = fit(tmp_path, module, watch, checkpoint, *recorders, enable_checkpointing=True)
        saved = torch.load(tmp_path / str(len(recorders)) / "last.ckpt", weights_only=True)
        ours = [key for key in saved["callbacks"] if "SnapshotRecorder" in key]
        assert len(ours) == len(recorders)
        rng = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        ends.append((module.state_dict(), rng, watch, saved, trainer.callback_metrics))
    (weights, rng, watch, saved, metrics), (other, other_rng, other_watch, other_saved, other_metrics) = ends
    assert (tmp_path / "kept").exists()
    assert all(torch.equal(weights[name], other[name]) for name in weights)
    assert torch.equal(rng[0], other_rng[0])
    assert rng[1:] == other_rng[1:]
    assert watch.logged == other_watch.logged
    assert metrics == other_metrics
    assert all(torch.equal(saved["state_dict"][name], other_saved["state_dict"][name]) for name in weights)
    assert saved["loops"] == other_saved["loops"]


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


def test_resume_into_another_folder_says_where_the_earlier_snapshots_are(tmp_path: Path) -> None:
    first = SnapshotRecorder(tmp_path / "one", every_n_epochs=1)
    fit(tmp_path, Net(), first, max_epochs=1).save_checkpoint(tmp_path / "run.ckpt")
    second = SnapshotRecorder(tmp_path / "two", every_n_epochs=1)
    with pytest.warns(UserWarning, match=rf"resumed run are in {tmp_path}/one.*pass dirpath"):
        fit(tmp_path, Net(), second, max_epochs=2, ckpt_path=tmp_path / "run.ckpt")
    assert names(second) == ["epoch=001-step=000006"]


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


def test_default_folder_is_beside_the_checkpoints(tmp_path: Path) -> None:
    recorder, checkpoint = SnapshotRecorder(every_n_epochs=1), ModelCheckpoint()
    logger = CSVLogger(tmp_path, name="digits")
    fit(tmp_path / "other", Net(), recorder, checkpoint, max_epochs=1, logger=logger, enable_checkpointing=True)
    assert recorder.store.dirpath == tmp_path / "digits" / "version_0" / "snapshots"
    assert Path(checkpoint.dirpath) == tmp_path / "digits" / "version_0" / "checkpoints"
    assert len(recorder.store) == 1


def test_remote_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="'s3://bucket/x' is remote: pass dirpath="):
        fit(tmp_path, Net(), SnapshotRecorder("s3://bucket/x", every_n_epochs=1))


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy])
def test_sharded_weights_are_refused_with_advice(strategy: type) -> None:
    trainer = SimpleNamespace(strategy=strategy.__new__(strategy))
    with pytest.raises(MisconfigurationException, match=rf"SnapshotRecorder needs.*{strategy.__name__}.*consolidate"):
        SnapshotRecorder(every_n_epochs=1).setup(trainer, Net(), "fit")


def test_snapshots_notice_files_of_another_run(tmp_path: Path) -> None:
    one, two = SnapshotRecorder(tmp_path, every_n_epochs=1), SnapshotRecorder(tmp_path, every_n_epochs=1)
    assert one.snapshots == []
    fit(tmp_path, Net(), one, max_epochs=1)
    torch.manual_seed(5)
    fit(tmp_path, Net(), two, max_epochs=1)
    assert len(two.snapshots) == 1
    with pytest.raises(SnapshotError, match="was replaced by another run"):
        _ = one.snapshots


PROGRAM = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_snapshot_recorder import *
folder = Path(sys.argv[1])
"""


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script = folder / "program.py"
    script.write_text(PROGRAM.format(tests=str(Path(__file__).parent)) + program)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script), str(folder)]
    return subprocess.run(command, env=environment, timeout=300, check=False, capture_output=True, text=True)


def test_kill_while_a_snapshot_is_written_then_resume(tmp_path: Path) -> None:
    whole = SnapshotRecorder(tmp_path / "whole", every_n_epochs=1)
    pl.seed_everything(7, verbose=False)
    fit(tmp_path, Net(), whole, max_epochs=4)
    killed = run(
        "fsync, calls = os.fsync, []\n"
        "def kill_third(handle):\n"
        "    calls.append(handle)\n"
        "    if len(calls) == 5:\n"  # two calls, file and folder, for each snapshot
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    fsync(handle)\n"
        "os.fsync = kill_third\n"
        "pl.seed_everything(7, verbose=False)\n"
        "checkpoint = ModelCheckpoint(folder / 'ckpt', save_top_k=-1, filename='{epoch}')\n"
        "fit(folder, Net(), SnapshotRecorder(folder / 'parts', every_n_epochs=1), checkpoint,\n"
        "    enable_checkpointing=True)\n",
        tmp_path,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = SnapshotRecorder(tmp_path / "parts", every_n_epochs=1)
    checkpoint = tmp_path / "ckpt" / "epoch=1.ckpt"
    assert len(list((tmp_path / "parts").glob(".*.tmp"))) == 1
    fit(tmp_path, Net(), resumed, ckpt_path=checkpoint)
    assert names(resumed) == names(whole)
    assert [s.content_hash for s in resumed.snapshots][:2] == [s.content_hash for s in whole.snapshots][:2]
    assert all(snapshot.load() for snapshot in resumed.store)


@pytest.mark.slow
def test_two_processes_write_once_and_do_not_wait_for_each_other(tmp_path: Path) -> None:
    # Without sync_dist the metric differs between ranks: only rank zero's value may decide.
    finished = run(
        "class Ranked(Net):\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        loss = super().training_step(batch, batch_idx)\n"
        "        self.log('ranked', 1.0 - self.global_step / 10 - 100.0 * self.global_rank)\n"
        "        self.log('shared', loss.detach(), on_step=False, on_epoch=True, sync_dist=True)\n"
        "        return loss\n"
        "if __name__ == '__main__':\n"
        "    recorders = [SnapshotRecorder(folder / 'ranked', monitor='ranked', thresholds=[0.85]),\n"
        "                 SnapshotRecorder(folder / 'shared', monitor='shared', thresholds=[50.0]),\n"
        "                 SnapshotRecorder(folder / 'steps', every_n_steps=2)]\n"
        "    fit(folder, Ranked(), *recorders, devices=2, strategy='ddp_spawn', use_distributed_sampler=True)\n",
        tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    assert sorted(os.listdir(tmp_path / "ranked")) == ["epoch=001-step=000003.safetensors"]
    assert sorted(os.listdir(tmp_path / "shared")) == ["epoch=000-step=000002.safetensors"]
    assert len(os.listdir(tmp_path / "steps")) == 4
