"""Losses, gradients and steps that are not finite on the way of a search."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from lightning_landscape.finders import DynamicStringSampling, LinearPath, PathFinder
from tests.finders.cases import LEFT, LEVEL, RIGHT, SEARCHERS, class_name, each_finder, each_searcher, ring, surface_of


def strip(value: float) -> Callable[[Tensor], Tensor]:
    """The ring, with a strip around the axis where E is ``value``: no path avoids it."""
    return lambda x: torch.where(x[0].abs() < 0.3, torch.tensor(value), ring(x))


@each_finder
@pytest.mark.parametrize("level", [LEVEL, 1e9, None])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_on_the_way_never_connects(
    finder: PathFinder, value: float, level: float | None
) -> None:
    found = finder.connect(surface_of(strip(value)), LEFT, RIGHT, level)
    assert found.verdict == "not_found"
    assert found.reason == "diverged"
    assert not found.height <= 1e9
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["height"] is None


def test_an_infinite_loss_on_the_way_is_not_below_an_infinite_level() -> None:
    surface = surface_of(lambda x: 1 / x[0].abs())
    for finder in (LinearPath(), DynamicStringSampling()):
        found = finder.connect(surface, LEFT, RIGHT, math.inf)
        assert (found.verdict, found.reason) == ("not_found", "diverged")


@each_searcher
def test_gradients_that_are_nan_end_the_search_as_diverged(finder: PathFinder) -> None:
    def bad_slope(x: Tensor) -> Tensor:
        return ring(x) + (0 * x[0].abs()).sqrt()  # adds 0, with the derivative 0 / 0

    found = finder.connect(surface_of(bad_slope), LEFT, RIGHT, LEVEL)
    assert (found.verdict, found.reason) == ("not_found", "diverged")
    assert found.height == pytest.approx(1.0)
    assert found.path is not None
    assert found.path.beads.isfinite().all()


@pytest.mark.parametrize("kind", [type(finder) for finder in SEARCHERS if hasattr(finder, "optimizer")], ids=class_name)
def test_an_optimiser_that_explodes_ends_as_diverged_or_stuck_with_a_finite_path(kind: Any) -> None:
    finder = kind(optimizer=lambda points: SGD(points, lr=1e12))
    found = finder.connect(surface_of(), LEFT, RIGHT, LEVEL)
    assert found.verdict == "not_found"
    assert found.reason in ("diverged", "bead", "depth")
    assert found.height <= found.linear_height
    assert found.path is not None
    assert found.path.beads.isfinite().all()
