"""Budgets: what a search spends, and what it returns when they run out."""

from __future__ import annotations

import math

import pytest
from torch.optim import SGD

from lightning_landscape.finders import Budget, DynamicStringSampling, LinearPath, PathFinder
from tests.finders.cases import LEFT, LEVEL, RIGHT, each_searcher, ring, surface_of, trained_pair


@pytest.mark.parametrize("value", [-1.0, -1e-9, math.nan, -math.inf])
@pytest.mark.parametrize("name", ["work", "max_seconds"])
def test_a_negative_budget_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 0 or None for no limit, got"):
        Budget(**{name: value})


@each_searcher
@pytest.mark.parametrize("budget", [Budget(work=0), Budget(max_seconds=0), Budget(0, 0)])
def test_a_search_without_a_budget_takes_no_step(finder: PathFinder, budget: Budget) -> None:
    found = finder.connect(surface_of(), LEFT, RIGHT, LEVEL, budget=budget)
    assert (found.verdict, found.reason) == ("not_found", "budget")
    assert found.gradient_steps == 0
    assert found.linear_height == 1.0
    assert 0.999 < found.height <= 1.0


def test_a_budget_that_runs_out_among_the_steps_of_a_bead() -> None:
    surface = surface_of(lambda x: ring(x) + 3 * x[1].square())  # no way below 1
    finder = DynamicStringSampling(optimizer=lambda points: SGD(points, lr=1e-4))
    whole = finder.connect(surface, LEFT, RIGHT, LEVEL)
    assert whole.reason == "bead"
    for work in (15, 20, 25.5):
        found = finder.connect(surface, LEFT, RIGHT, LEVEL, budget=Budget(work=work))
        assert (found.verdict, found.reason) == ("not_found", "budget")
        assert 0 < found.gradient_steps <= work < whole.gradient_steps


@each_searcher
@pytest.mark.parametrize("work", [10, 30, 60, 100, 200, 400])
def test_what_is_spent_beyond_the_budget_is_the_measurement_of_the_result(finder: PathFinder, work: float) -> None:
    surface, start, end = trained_pair()
    level = 1.2 * max(surface.loss(start), surface.loss(end))
    found = finder.connect(surface, start, end, level, budget=Budget(work=work))
    assert found.gradient_steps <= work
    # Two rounds of search and of shortening may have begun when the budget ends; the profiles are measured whole.
    measured = (len(found.profile.t) + len(found.linear_profile.t)) * surface.evaluation_passes / 3
    assert found.work <= work + 4 * measured


@pytest.mark.parametrize("energy", ["ring", "network"])
def test_a_larger_budget_finds_no_worse_a_path(energy: str) -> None:
    if energy == "ring":
        surface, start, end, level = surface_of(), LEFT, RIGHT, LEVEL
    else:
        surface, start, end = trained_pair()
        level = 1.2 * max(surface.loss(start), surface.loss(end))
    finder = DynamicStringSampling()
    rows = [finder.connect(surface, start, end, level, budget=Budget(work)) for work in (0, 20, 40, 80, 160, 320, 640)]
    rows.append(finder.connect(surface, start, end, level))
    # Above the level, work lowers the path; below it, work shortens the path, up to the level.
    excess = [max(0.0, found.height - level) for found in rows]
    assert excess == sorted(excess, reverse=True)
    assert excess[0] > excess[-1] == 0.0
    assert rows[-1].verdict == "connected"


def test_the_straight_line_comes_on_top_of_the_budget() -> None:
    surface = surface_of()
    line = LinearPath().connect(surface, LEFT, RIGHT, LEVEL).work
    found = DynamicStringSampling(shorten=0).connect(surface, LEFT, RIGHT, LEVEL, budget=Budget(work=line / 2))
    assert found.gradient_steps > 0
    assert DynamicStringSampling().connect(surface, LEFT, RIGHT, LEVEL, budget=Budget(work=0)).gradient_steps == 0
