"""A mean says which error it has."""

from __future__ import annotations

import math

import pytest

from scripts.reproduce.shared.statistics import Error, Mean


@pytest.mark.parametrize(("kind", "error"), [(Error.OF_MEAN, math.sqrt(1 / 3)), (Error.DEVIATION, 1.0)])
def test_the_error_is_of_the_kind_that_it_names(kind: Error, error: float) -> None:
    found = Mean.of([1.0, 2.0, 3.0], kind)
    assert (found.mean, found.count, found.kind) == (2.0, 3, kind)
    assert found.error == pytest.approx(error)
    assert found.text(2) == f"2.00 -+ {error:.2f}"
    assert found.kind.label in ("mean -+ standard error", "mean -+ standard deviation")


@pytest.mark.parametrize("kind", Error)
def test_too_few_values_have_no_error(kind: Error) -> None:
    one, none = Mean.of([1.5], kind), Mean.of([], kind)
    assert (one.text(1), none.text(1)) == ("1.5", "-")
    assert one.bar == (1.5, 0.0)
    assert math.isnan(one.error)
    assert math.isnan(none.mean)
