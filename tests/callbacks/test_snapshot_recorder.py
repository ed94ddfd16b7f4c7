"""SnapshotRecorder: the right moments, once each, without a trace in the run it watches."""

from __future__ import annotations

import math
import random
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
from torch import Tensor

from lightning_landscape.callbacks.snapshots import SnapshotRecorder
from lightning_landscape.storage.snapshots import SnapshotError
from tests.callbacks.snapshot_runs import Net, Watch, fit, names


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


def test_fast_dev_run_writes_nothing(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(every_n_epochs=1, every_n_steps=1, monitor="metric", thresholds=[0.5])
    fit(tmp_path, Net([0.1]), recorder, fast_dev_run=2)
    assert not recorder.folder.exists()


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
