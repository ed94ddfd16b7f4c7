"""Training is the same, bit for bit, with our callbacks attached and without them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_landscape.callbacks import LevelSetConnectivity, SnapshotRecorder, level_set
from lightning_landscape.finders import DynamicStringSampling
from tests.callbacks.fingerprints import assert_same, train
from tests.callbacks.watched_cases import CASES, SLOW, Case

SEARCH = {"num_batches": 2, "overhead": None, "margin": 0.0}


def checks(case: Case, folder: Path, pairs: str, **options: Any) -> LevelSetConnectivity:
    finder = DynamicStringSampling(max_depth=2, max_bead_steps=3, shorten=1, samples=3)
    reference = next((folder.parent / "plain" / "checkpoints").iterdir()) if pairs == "reference" else None
    return LevelSetConnectivity(
        pairs, finder=finder, reference=reference, loss_fn=case.loss_fn, name=pairs, dirpath=folder / pairs,
        on_error="raise", **SEARCH | options
    )  # fmt: skip


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest; the first test has the figures."""
    for name in ("profile_figure", "history_figure", "save_figure"):
        monkeypatch.setattr(level_set, name, lambda *args: None)


@pytest.mark.parametrize("pairs", ["lagged", "first", "reference", "twin"])
def test_each_pairing_leaves_training_as_it_was(tmp_path: Path, pairs: str) -> None:
    case = CASES["digits"]
    plain = train(case, tmp_path / "plain")
    callback = checks(case, tmp_path / "ours", pairs, every_n_epochs=2 if pairs in ("reference", "twin") else 1)
    assert_same(train(case, tmp_path / "ours", callback), plain)
    assert callback.rows
    assert all(row["reason"] != "error" for row in callback.rows)
    assert pairs != "twin" or sum(row["gradient_steps"] for row in callback.rows) > 0
    assert len(plain.batches) == 12
    assert len(set(plain.batches)) == 12


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CASES])
def test_all_callbacks_together_leave_training_as_it_was(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    plain = train(case, tmp_path / "plain")
    ours = [checks(case, tmp_path / "ours", pairs) for pairs in case.pairs]
    recorders = [
        SnapshotRecorder(tmp_path / "ours", every_n_steps=2),
        SnapshotRecorder(tmp_path / "ours", every_n_epochs=1),
        SnapshotRecorder(tmp_path / "ours", monitor="val_loss", thresholds=[100.0]),
    ]
    assert_same(train(case, tmp_path / "ours", *ours, *recorders), plain)
    assert [len(callback.rows) for callback in ours] == [{"lagged": 2, "first": 2}.get(p, 3) for p in case.pairs]
    assert all(row["work"] > 0 for callback in ours for row in callback.rows)
    assert all(recorder.snapshots for recorder in recorders[:2])


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("pairs", ["lagged", "twin"])
def test_failing_check_leaves_training_as_it_was(tmp_path: Path, pairs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["torchmetrics"]
    plain = train(case, tmp_path / "plain")
    callback = checks(case, tmp_path / "ours", pairs)
    callback.on_error = "warn"

    def connect(surface: Any, *args: Any, **kwargs: Any) -> None:
        surface.losses(surface.point()[None])
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        raise RuntimeError("no path today")

    monkeypatch.setattr(callback.finder, "connect", connect)
    with pytest.warns(UserWarning, match="check 1 of LevelSetConnectivity failed: RuntimeError: no path today"):
        assert_same(train(case, tmp_path / "ours", callback), plain)
    assert [row["reason"] for row in callback.rows] == ["error"] * len(callback.rows)
    assert len(callback.rows) > 1


@pytest.mark.usefixtures("without_figures")
def test_check_that_ends_the_run_leaves_random_states_as_they_were(tmp_path: Path, monkeypatch) -> None:
    callback = checks(CASES["digits"], tmp_path, "lagged")
    states: list[Tensor] = []

    def connect(*args: Any, **kwargs: Any) -> None:
        torch.rand(3)
        raise RuntimeError("no path today")

    class Before(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            states.append(torch.get_rng_state())

    monkeypatch.setattr(callback.finder, "connect", connect)
    with pytest.raises(RuntimeError, match="no path today"):
        train(CASES["digits"], tmp_path, Before(), callback)
    assert len(states) == 2
    assert torch.equal(states[1], torch.get_rng_state())


def test_fingerprint_notices_one_number_drawn(tmp_path: Path) -> None:
    class Draws(pl.Callback):
        def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            np.random.rand()  # noqa: NPY002

    plain = train(CASES["digits"], tmp_path / "plain")
    with pytest.raises(AssertionError, match="random_states/2"):
        assert_same(train(CASES["digits"], tmp_path / "ours", Draws()), plain)
