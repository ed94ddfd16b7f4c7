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
@pytest.mark.parametrize("work", [0, 3, 10, 30, 60, 100, 200, 400])
def test_all_work_stays_within_the_budget(finder: PathFinder, work: float) -> None:
    surface, start, end = trained_pair()
    level = 1.2 * max(surface.loss(start), surface.loss(end))
    found = finder.connect(surface, start, end, level, budget=Budget(work=work))
    assert found.gradient_steps <= work
    assert found.work <= max(work, finder.least_work(surface)) + 1e-6


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
    # Without any work the peak of the line itself is not measured as closely.
    excess = [max(0.0, found.height - level) for found in rows[1:]]
    assert excess == sorted(excess, reverse=True)
    assert excess[0] > excess[-1] == 0.0
    assert rows[-1].verdict == "connected"


def test_where_the_verdict_is_plain_a_line_takes_at_most_12_evaluations() -> None:
    surface, start, end = trained_pair()
    ends = max(surface.loss(start), surface.loss(end))
    for level in (1e3 * ends, ends):
        line = LinearPath().connect(surface, start, end, level, budget=Budget(work=1000))
        fine = LinearPath().connect(surface, start, end, level)
        assert line.loss_evaluations <= 12 < fine.loss_evaluations
        assert line.verdict == fine.verdict
        assert line.height == pytest.approx(fine.height, rel=0.01)  # of a loss with kinks
        assert (line.verified, fine.verified) in (("curvature", "fine"), (None, None))
