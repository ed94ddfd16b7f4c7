"""What ``connect`` decides before any search, the same for all finders: ends, level, margin."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lightning_landscape.finders import Budget, DynamicStringSampling, LinearPath, PathFinder
from tests.finders.cases import LEFT, LEVEL, RIGHT, class_name, ring, surface_of

without_and_with_a_search = pytest.mark.parametrize("finder", [LinearPath(), DynamicStringSampling()], ids=class_name)


@without_and_with_a_search
def test_endpoints_of_another_shape_are_refused(finder: PathFinder) -> None:
    surface = surface_of()
    with pytest.raises(ValueError, match=r"theta_a has shape \(3,\) and the surface has 2 parameters"):
        finder.connect(surface, torch.zeros(3), RIGHT)
    with pytest.raises(ValueError, match=r"theta_b has shape \(1, 2\) and the surface has 2 parameters"):
        finder.connect(surface, LEFT, RIGHT[None])


@without_and_with_a_search
def test_a_level_that_is_nan_is_refused(finder: PathFinder) -> None:
    with pytest.raises(ValueError, match="level is NaN: give a number, or None"):
        finder.connect(surface_of(), LEFT, RIGHT, level=math.nan)


@without_and_with_a_search
@pytest.mark.parametrize("level", [None, 0.0, 1.0])
def test_identical_endpoints_are_connected_by_standing_still(finder: PathFinder, level: float | None) -> None:
    found = finder.connect(surface_of(), LEFT, LEFT.clone(), level)
    assert found.verdict == "connected"
    assert (found.length, found.normalized_length, found.num_beads) == (0.0, 1.0, 0)
    assert found.barrier == found.linear_barrier == 0.0
    assert found.height == found.loss_a == found.loss_b


@without_and_with_a_search
@pytest.mark.parametrize("level", [0.5, -1.0, -math.inf])
def test_a_level_below_an_endpoint_ends_at_once(finder: PathFinder, level: float) -> None:
    found = finder.connect(surface_of(), torch.zeros(2), RIGHT, level)
    assert (found.verdict, found.reason) == ("not_found", "endpoint")
    assert found.gradient_steps == 0
    assert found.height == found.linear_height == 1.0


@without_and_with_a_search
def test_every_finite_path_is_below_an_infinite_level(finder: PathFinder) -> None:
    found = finder.connect(surface_of(), LEFT, RIGHT, math.inf)
    assert found.verdict == "connected"
    assert (found.num_beads, found.gradient_steps, found.height) == (0, 0, 1.0)
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("margin", [0.0, 0.05, 2.0])
def test_the_default_level_is_the_larger_end_loss_and_a_margin(margin: float) -> None:
    surface = surface_of()
    low, high = torch.tensor([0.9, 0.0]), torch.tensor([1.2, 0.0])
    found = LinearPath().connect(surface, low, high, margin=margin)
    assert found.level == pytest.approx((1 + margin) * surface.loss(high))
    assert (found.loss_a, found.loss_b) == (surface.loss(low), surface.loss(high))


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=f"margin must be a finite number of at least 0, got {margin}"):
        LinearPath().connect(surface_of(), LEFT, RIGHT, margin=margin)


def test_a_margin_raises_a_negative_level() -> None:
    found = LinearPath().connect(surface_of(lambda x: ring(x) - 2), LEFT, RIGHT, margin=0.1)
    assert found.level == pytest.approx(-1.8)
    assert found.height == pytest.approx(-1.0)
    assert found.barrier == pytest.approx(1.0)


@without_and_with_a_search
@pytest.mark.parametrize("level", [LEVEL, None, math.inf])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_at_an_endpoint_never_connects(
    finder: PathFinder, value: float, level: float | None
) -> None:
    surface = surface_of(lambda x: torch.where(x[0] < -0.9, torch.tensor(value), ring(x)))
    for start, end in ((LEFT, RIGHT), (RIGHT, LEFT)):
        found = finder.connect(surface, start, end, level)
        assert (found.verdict, found.reason) == ("not_found", "diverged")
        assert found.gradient_steps == 0
        json.dumps(found.to_dict(), allow_nan=False)


@without_and_with_a_search
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_endpoint_that_is_not_finite_ends_as_diverged(finder: PathFinder, value: float) -> None:
    # What a run that diverged leaves behind.
    broken = torch.tensor([value, 0.0])
    for start, end in ((broken, RIGHT), (LEFT, broken), (broken, broken)):
        found = finder.connect(surface_of(), start, end, LEVEL)
        assert (found.verdict, found.reason, found.gradient_steps) == ("not_found", "diverged", 0)
        json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(("finder", "reason"), [(LinearPath(), "depth"), (DynamicStringSampling(), "budget")])
@pytest.mark.parametrize("budget", [Budget(work=0), Budget(max_seconds=0), Budget(0, 0)])
def test_without_a_budget_the_line_is_still_measured(finder: PathFinder, reason: str, budget: Budget) -> None:
    found = finder.connect(surface_of(), LEFT, RIGHT, LEVEL, budget=budget)
    assert (found.verdict, found.reason, found.gradient_steps) == ("not_found", reason, 0)
    assert found.linear_height == 1.0
    assert 0.999 < found.height <= 1.0
    near = finder.connect(surface_of(), LEFT, LEFT + 1e-3, LEVEL, budget=budget)
    assert (near.verdict, near.num_beads) == ("connected", 0)
