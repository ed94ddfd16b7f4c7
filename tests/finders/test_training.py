"""Looks at a path in training: what they cost, when they come, what they keep."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from lightning_landscape import LossSurface
from lightning_landscape.finders.chain import Chain, Segment
from lightning_landscape.finders.search import Budget, Ledger, Search
from lightning_landscape.finders.training import Watch
from tests.finders.cases import LEFT, RIGHT, ring


def running(level: float, batches: int = 1) -> Search:
    def loss(module: nn.Module, batch: Any) -> Tensor:
        return ring(module.weight[0])

    surface = LossSurface(nn.Linear(2, 1, bias=False), [None] * batches, loss, vectorize=False)
    line = Segment(LEFT, RIGHT)
    chain = Chain([line], line.length, 9)
    chain.sample(surface)
    return Search(surface, level, Ledger(surface, Budget()), line, chain, lambda *_: None)


def train(search: Search, steps: int) -> None:
    for _ in range(steps):
        search.surface.gradients(LEFT[None], None)


def evaluations(search: Search, look: Any) -> int:
    before = search.surface.work.loss_evaluations
    look()
    return search.surface.work.loss_evaluations - before


def test_a_path_that_is_high_where_it_was_highest_is_looked_at_in_one_point() -> None:
    search = running(level=0.1)
    watch = Watch(search)
    assert not watch.due
    train(search, 5)
    assert watch.due
    high = torch.tensor([[0.0, 0.3]])
    assert evaluations(search, lambda: watch.verified(high)) == 1
    assert not watch.due
    assert watch.best is watch.latest is search.chain
    train(search, 5)
    assert watch.due


def test_a_path_that_came_below_the_level_there_is_looked_at_whole() -> None:
    search = running(level=0.3)
    watch = Watch(search)
    train(search, 5)
    assert not watch.verified(torch.tensor([[0.0, 0.9]]))  # low in the middle, too straight at the sides
    assert watch.best is watch.latest
    assert 0.3 < watch.best.height < 1.0
    middle = torch.tensor([0.0, 0.9])
    # The next is first looked at where this one was highest, at its sides.
    assert evaluations(search, lambda: watch.verified(middle[None])) == 1
    assert watch.verified(torch.tensor([[-0.6, 0.9], [0.6, 0.9]]))
    assert watch.best.height <= 0.3
    assert all(segment.refined for segment in watch.best.segments)


def test_whole_looks_come_as_the_work_doubles_and_keep_the_lowest() -> None:
    search = running(level=0.01)
    watch = Watch(search)
    whole = []
    for step in range(1, 400):
        train(search, 1)
        if watch.due and evaluations(search, lambda: watch.verified(torch.tensor([[0.0, 0.5]]))) > 1:
            whole.append(step)
    assert 3 <= len(whole) <= 6
    assert all(later >= 1.6 * sooner for sooner, later in itertools.pairwise(whole))
    lowest = watch.best
    assert lowest.height < 1
    watch.last(torch.tensor([[0.0, 0.2]]))
    assert watch.best is lowest
    assert watch.latest is not lowest


def test_nothing_is_looked_at_that_nothing_was_spent_on() -> None:
    search = running(level=0.1)
    assert evaluations(search, lambda: Watch(search).last(torch.tensor([[0.0, 0.3]]))) == 0


def test_training_costs_at_least_as_much_as_the_looks_before_it() -> None:
    search = running(level=0.01, batches=30)
    watch = Watch(search)
    spent = search.surface.work.forward_passes
    for _ in range(600):
        train(search, 1)
        if watch.due:
            watch.verified(torch.tensor([[0.0, 0.5]]))
    looks = (search.surface.work.forward_passes - spent) / 3
    assert looks <= 600 + 120  # 120: the last look, which nothing had to follow
    assert looks >= 60


def test_corners_reached_are_below_the_level_all_of_them() -> None:
    search = running(level=0.1)
    watch = Watch(search)
    assert watch.reached(torch.tensor([[0.0, 1.0], [0.6, 0.8]]))
    assert not watch.reached(torch.tensor([[0.0, 1.0], [0.6, 0.2]]))
    assert not watch.reached(torch.tensor([[0.0, 1.0], [float("nan"), 0.2]]))
