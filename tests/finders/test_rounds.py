"""Rounds of a search: limits share out a budget, which alone ends it; without one it ends where nothing is gained."""

from __future__ import annotations

import pytest
import torch

from lightning_landscape.finders import Budget, Chain, PathFinder, Reason, Search
from tests.finders.cases import LEFT, LEVEL, RIGHT, each_searcher, surface_of, wells


class Steps(PathFinder):
    """Gives back, round by round, the path over a bead at the next of the given heights over the middle."""

    def __init__(self, *above: float, cost: int = 1) -> None:
        super().__init__()
        self.above = above
        self.cost = cost
        self.rounds: list[tuple[int, int, float, float]] = []

    def search(self, search: Search) -> tuple[Chain, Reason]:
        draw = float(torch.rand(1, generator=search.generator(0)))
        self.rounds.append((search.round, search.patience, search.chain.height, draw))
        for _ in range(self.cost):
            search.surface.gradients(LEFT[None], None)
        place = self.above[min(search.round, len(self.above) - 1)]
        chain = search.chain.through(torch.tensor([[0.0, place]]))
        chain.sample(search.surface)
        return chain, Reason.BEAD


def test_each_round_goes_on_from_the_lowest_path_with_twice_the_patience() -> None:
    finder = Steps(0.2, 0.1, 0.5, 0.6)
    found = finder.connect(surface_of(), LEFT, RIGHT, 1e-3)
    numbers, patience, heights, draws = zip(*finder.rounds, strict=True)
    assert numbers == (0, 1)  # the second was higher than the first
    assert patience == (1, 2)
    assert heights[1] < heights[0]
    assert len(set(draws)) == 2
    assert (found.verdict, found.reason, found.num_beads) == ("not_found", "bead", 1)


def test_with_a_budget_a_search_goes_on_until_that_is_spent() -> None:
    finder = Steps(0.2, cost=7)
    found = finder.connect(surface_of(), LEFT, RIGHT, 1e-3, budget=Budget(200))
    assert (found.verdict, found.reason) == ("not_found", "budget")
    assert len(finder.rounds) > 5
    assert 150 < found.work <= 200


@pytest.mark.parametrize("budget", [None, Budget(200)])
def test_a_round_that_spends_nothing_is_the_last(budget: Budget | None) -> None:
    class Idle(Steps):
        def search(self, search: Search) -> tuple[Chain, Reason]:
            self.rounds.append((0, 0, 0, 0))
            return search.chain, Reason.DEPTH

    finder = Idle()
    found = finder.connect(surface_of(), LEFT, RIGHT, LEVEL, budget=budget)
    assert (found.reason, len(finder.rounds)) == ("depth", 1)


@each_searcher
def test_where_there_is_no_way_a_budget_is_spent_and_none_ends_all_the_same(finder: PathFinder) -> None:
    surface = surface_of(wells, 2)
    free = finder.connect(surface, LEFT, RIGHT, 0.9)
    assert (free.verdict, free.reason in ("bead", "depth")) == ("not_found", True)
    bound = finder.connect(surface, LEFT, RIGHT, 0.9, budget=Budget(2 * free.work))
    assert (bound.verdict, bound.reason) == ("not_found", "budget")
    assert bound.work > 1.2 * free.work
