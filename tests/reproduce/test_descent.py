"""Descent of several points at once."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from lightning_landscape import LossSurface
from scripts.reproduce.freeman_bruna.descent import descend
from scripts.reproduce.freeman_bruna.task import Recipe

RECIPE = Recipe(1.1, 0.95, "midpoint", 10, lambda points: Adam(points, lr=0.1), 5, 5, 1000)


def bowl() -> LossSurface:
    def loss(module: nn.Module, batch: None) -> Tensor:
        return (module.weight.square() * torch.tensor([[1.0, 3.0]])).sum()

    return LossSurface(nn.Linear(2, 1, bias=False), [None], loss, vectorize=False)


STARTS = torch.tensor([[1.0, 0.0], [0.0, 5.0], [2.0, 2.0]])


def test_rows_descend_as_if_they_were_alone() -> None:
    surface = bowl()
    together = descend(surface, STARTS, 0.01, RECIPE, 5, 1000, surface.training_stream())
    assert together.reached.all()
    assert len(set(together.steps.tolist())) == 3
    for row, start in enumerate(STARTS):
        alone = descend(surface, start[None], 0.01, RECIPE, 5, 1000, surface.training_stream())
        torch.testing.assert_close(alone.points[0], together.points[row])
        assert alone.steps[0] == together.steps[row]


def test_the_target_is_looked_at_every_so_many_steps() -> None:
    surface = bowl()
    found = descend(surface, STARTS, 0.01, RECIPE, 7, 1000, surface.training_stream())
    assert (found.steps % 7 == 0).all()
    assert (surface.losses(found.points) < 0.01).all()
    earlier = descend(surface, STARTS, 0.01, RECIPE, 7, int(found.steps[1]) - 7, surface.training_stream())
    assert not earlier.reached[1]


def test_a_point_below_the_target_trains_all_the_same() -> None:
    surface = bowl()
    start = torch.tensor([[0.1, 0.0]])
    found = descend(surface, start, 1.0, RECIPE, 5, 1000, surface.training_stream())
    assert found.steps.tolist() == [5]
    assert not torch.equal(found.points, start)
    assert start.tolist() == [[torch.tensor(0.1).item(), 0.0]]


def test_a_target_out_of_reach_is_given_up() -> None:
    surface = bowl()
    found = descend(surface, STARTS, -1.0, RECIPE, 5, 12, surface.training_stream())
    assert found.reached.tolist() == [False] * 3
    assert found.steps.tolist() == [12] * 3


def test_a_point_that_diverges_stops_alone() -> None:
    surface = bowl()
    starts = torch.tensor([[1.0, 0.0], [math.nan, 0.0]])
    found = descend(surface, starts, 0.01, RECIPE, 5, 1000, surface.training_stream())
    assert found.reached.tolist() == [True, False]
    assert found.steps[1] == 5


def test_gradients_are_clipped_point_by_point() -> None:
    surface = bowl()
    recipe = dataclasses.replace(RECIPE, optimizer=lambda points: SGD(points, lr=1.0), clip=0.5)
    starts = torch.tensor([[100.0, 0.0], [0.1, 0.0], [0.0, 0.0]])
    found = descend(surface, starts, -1.0, recipe, 1, 1, surface.training_stream())
    torch.testing.assert_close(found.points, torch.tensor([[99.5, 0.0], [-0.1, 0.0], [0.0, 0.0]]))
