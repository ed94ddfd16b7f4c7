"""Conclusions: one word each, and no advice to average where the average is worse than the worse end."""

from __future__ import annotations

import math

import pytest

from lightning_landscape.averaging.advice import Advice, advice
from lightning_landscape.connection import Connection, Reason, Verdict
from lightning_landscape.path import Profile
from lightning_landscape.report.conclusion import Word, conclusion, word


def found(a: float, middle: float, b: float, reason: Reason | None = None, **changes: object) -> Connection:
    line = Profile((0.0, 0.5, 1.0), (a, middle, b))
    values = {
        "verdict": Verdict.NOT_FOUND if reason else Verdict.CONNECTED,
        "reason": reason,
        "path": None,
        "level": 1.05 * max(a, b),
        "loss_a": a,
        "loss_b": b,
        "linear_height": line.height,
        "linear_barrier": line.barrier,
        "height": line.height,
        "barrier": line.barrier,
        "length": 1.0,
        "normalized_length": 1.0,
        "num_beads": 1,
        "gradient_steps": 0,
        "loss_evaluations": 3,
        "work": 1.0,
        "seconds": 0.1,
        "profile": line,
        "linear_profile": line,
    }
    return Connection(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("connection", "expected", "begins"),
    [
        (found(0.37, 0.36, 0.38), Word.LINEARLY, "You may average:"),
        (found(0.30, 0.35, 0.40), Word.LINEARLY, "You may average, but A alone is better:"),
        (found(0.3, 2.1, 5.0), Word.LINEARLY, "Do not average: A alone is far better:"),
        (found(0.37, 1.79, 0.38), Word.CURVE, "Do not average: half way"),
        (found(0.37, 1.79, 0.38, Reason.BUDGET), Word.UNDECIDED, "Do not average: half way"),
        (found(0.37, 0.36, 0.38, Reason.ENDPOINT, level=0.1), Word.UNDECIDED, "You may average:"),
        (found(0.37, math.nan, math.nan, Reason.DIVERGED), Word.UNDECIDED, "Do not average: the loss of B"),
        (found(0.37, 0.37, 0.37, length=0.0), Word.LINEARLY, "Nothing to average:"),
    ],
)
def test_advice_and_the_one_word(connection: Connection, expected: Word, begins: str) -> None:
    said = conclusion(connection)
    assert word(connection.to_dict()) is expected
    assert said.startswith(begins)
    assert [one for one in Word if one in said] == [expected]


@pytest.mark.parametrize("worse", [0.4, -0.4])
def test_an_average_above_the_worse_end_by_more_than_a_hundredth_is_advised_against(worse: float) -> None:
    ends = (worse, worse)
    assert advice(worse + 0.011 * abs(worse), ends) is Advice.AGAINST
    assert advice(worse + 0.009 * abs(worse), ends) is Advice.AVERAGE


def test_a_failed_check_has_no_answer_but_its_error() -> None:
    assert "undecided (error)" in conclusion(Connection.failed(OSError("disk full")))
