"""Levels, verdicts and what a check may cost."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from level_set_runs import BATCHES, Failing, Net, Ring, attached, other_weights, trainer_of
from torch import Tensor, nn

from lightning_landscape import Connection
from lightning_landscape.connection import Reason
from lightning_landscape.finders import LinearPath

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.mark.parametrize("margin", [0.0, 0.05, 2.0])
def test_level_follows_from_the_ends_and_the_margin(margin: float, tmp_path: Path) -> None:
    callback = attached(tmp_path, margin=margin, finder=LinearPath())
    trainer_of(tmp_path, callback).fit(Net())
    for row in callback.rows:
        assert row["margin"] == margin
        highest = max(row["loss_a"], row["loss_b"])
        assert row["level"] == pytest.approx(highest + margin * abs(highest), rel=1e-12)
        assert (row["verdict"] == "connected") == (row["height"] <= row["level"])


class Negative(Ring):
    """E(w) = |w|^2 - 100, a loss below zero."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.w.square().sum() - 100


def test_margin_raises_the_level_of_a_negative_loss_too(tmp_path: Path) -> None:
    callback = attached(tmp_path, pairs="reference", reference=other_weights(tmp_path, Negative((-1.0, 0.0))))
    trainer_of(tmp_path, callback, epochs=1).fit(Negative())
    (row,) = callback.rows
    assert row["level"] == pytest.approx(-99 + 0.05 * 99)
    assert row["verdict"] == "connected"


def test_level_below_both_ends(tmp_path: Path) -> None:
    callback = attached(tmp_path, level=1e-6)
    trainer_of(tmp_path, callback, epochs=2).fit(Net())
    (row,) = callback.rows
    assert (row["verdict"], row["reason"], row["level"], row["gradient_steps"]) == ("not_found", "endpoint", 1e-6, 0)
    assert row["height"] >= max(row["loss_a"], row["loss_b"]) > 1e-6


def test_level_above_everything(tmp_path: Path) -> None:
    callback = attached(tmp_path, level=1e6)
    trainer_of(tmp_path, callback, epochs=2).fit(Net())
    (row,) = callback.rows
    assert (row["verdict"], row["reason"], row["num_beads"], row["gradient_steps"]) == ("connected", None, 0, 0)
    assert row["normalized_length"] == 1


@pytest.mark.parametrize(
    "weight",
    [
        # The loss is infinite, and so is the level that follows from it.
        1e20,
        math.nan,
        math.inf,
    ],
)
def test_diverged_training_is_a_row_of_its_own(weight: float, tmp_path: Path) -> None:
    class Diverging(Ring):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if self.current_epoch > 0:
                nn.init.constant_(self.w, weight)

    callback = attached(tmp_path)
    trainer = trainer_of(tmp_path, callback, epochs=3)
    trainer.fit(Diverging())
    assert trainer.global_step == 3 * BATCHES
    assert [(row["verdict"], row["reason"]) for row in callback.rows] == [("not_found", "diverged")] * 2
    assert [row["height"] for row in callback.rows] == [None, None]
    assert not math.isfinite(trainer.callback_metrics["landscape/height"])
    assert trainer.callback_metrics["landscape/connected"] == 0
    assert [Connection.from_dict(row).reason for row in callback.rows] == [Reason.DIVERGED] * 2


@pytest.mark.parametrize("overhead", [0.0, 0.25, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("every_n_epochs", [1, 3])
def test_overhead_bounds_all_work(overhead: float, every_n_epochs: int, tmp_path: Path) -> None:
    reference = other_weights(tmp_path, Ring((-1.0, 0.0)))
    callback = attached(
        tmp_path,
        pairs="reference",
        reference=reference,
        overhead=overhead,
        level=0.05,
        every_n_epochs=every_n_epochs,
    )
    trainer_of(tmp_path, callback, epochs=6).fit(Ring())
    assert callback.rows
    spent = 0.0
    for row in callback.rows:
        spent = row["overhead"] * BATCHES * (row["epoch"] + 1)
        allowed = overhead * BATCHES * (row["epoch"] + 1)
        declared = sum(earlier["minimum"] for earlier in callback.rows[: row["check"]])
        start = spent - sum(earlier["spent"] for earlier in callback.rows[: row["check"]])
        assert row["work"] <= row["spent"] + 1e-9
        assert spent <= allowed + declared + (start if declared else 0.0) + 1e-9
        assert row["linear_height"] > 0.9
        if row["minimum"]:
            assert (row["verdict"], row["reason"]) == ("not_found", "budget")
    if overhead == 20:
        assert any(row["gradient_steps"] > 0 for row in callback.rows)
    if overhead == 0:
        assert len(callback.rows) == 6 // every_n_epochs  # the run never pays: each declares its line


def test_in_a_long_run_that_earns_nothing_one_check_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_landscape.callbacks.account._SHORT", 0)
    callback = attached(tmp_path, overhead=0.0, level=0.05)
    trainer_of(tmp_path, callback, epochs=6).fit(Ring())
    assert [row["reason"] == "error" for row in callback.rows] == [False]
    assert callback.rows[0]["minimum"] > 0


def test_a_check_waits_until_training_has_paid_for_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr("lightning_landscape.callbacks.account.rank_zero_info", messages.append)
    monkeypatch.setattr("lightning_landscape.callbacks.account._SHORT", 0)
    reference = other_weights(tmp_path, Ring((-1.0, 0.0)))
    callback = attached(tmp_path, pairs="reference", reference=reference, overhead=1.0, level=0.05)
    trainer_of(tmp_path, callback, epochs=12).fit(Ring())
    first = callback.rows[0]["epoch"]
    assert first > 0
    assert first < callback.rows[-1]["epoch"]
    assert all(row["minimum"] == 0 for row in callback.rows)
    (estimate,) = messages  # before the first check, not with it
    said = re.search(
        r"takes at least (\d+) training steps.* overhead=1.0 has earned the first after (\d+) batches", estimate
    )
    assert said is not None
    assert BATCHES * first < int(said[2]) <= BATCHES * (first + 1)
    assert int(said[1]) <= callback.rows[0]["spent"] + 1


def test_without_limit_the_detour_is_found(tmp_path: Path) -> None:
    reference = other_weights(tmp_path, Ring((-1.0, 0.0)))
    callback = attached(tmp_path, pairs="reference", reference=reference, overhead=None, level=0.05)
    trainer_of(tmp_path, callback, epochs=1).fit(Ring())
    (row,) = callback.rows
    assert (row["verdict"], row["reason"]) == ("connected", None)
    assert row["linear_height"] > 0.9
    assert row["height"] <= 0.05
    assert row["num_beads"] >= 1
    assert 1.3 < row["normalized_length"] < math.pi / 2 * 1.25
    assert row["gradient_steps"] > 0


def test_what_a_check_leaves_is_there_for_the_next(tmp_path: Path) -> None:
    budgets: list[float] = []

    class Spy(Failing):
        def connect(self, *args: Any, **options: Any) -> Connection:
            budgets.append(options["budget"].work)
            assert options["budget"].max_seconds == 9.0
            return super().connect(*args, **options)

    callback = attached(tmp_path, overhead=10.0, every_n_epochs=2, max_seconds=9.0)
    callback.finder = Spy()
    trainer_of(tmp_path, callback, epochs=6).fit(Net())
    assert budgets[1] - budgets[0] == pytest.approx(10.0 * 2 * BATCHES - callback.rows[0]["spent"])


@pytest.mark.parametrize(("num_batches", "passes"), [(1, 1), (3, 3), (100, BATCHES)])
def test_number_of_probe_batches(num_batches: int, passes: int, tmp_path: Path) -> None:
    callback = attached(tmp_path, num_batches=num_batches, level=1e6)
    trainer_of(tmp_path, callback, epochs=2).fit(Net())
    (row,) = callback.rows
    assert row["gradient_steps"] == 0
    assert row["work"] == pytest.approx(row["loss_evaluations"] * passes / 3)


def test_same_seed_same_rows(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        torch.manual_seed(0)
        callback = attached(tmp_path, dirpath=tmp_path / name, seed=3, margin=0.0, overhead=5.0)
        trainer_of(tmp_path, callback).fit(Net())
        found.append([{**row, "seconds": None} for row in callback.rows])
    assert found[0] == found[1]
