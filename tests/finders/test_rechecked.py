"""Every "connected" on a grid ten times finer, by code that shares nothing with finders or surfaces."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from lightning_landscape.finders import Budget, PathFinder
from tests.finders.cases import each_searcher, network, regression, reseeded, trained_pair

GRID = 300  # points per distance of the ends; a search samples 9, the result 29


def plain_loss(module: nn.Module, theta: Tensor) -> float:
    """The mean of the squared errors over all examples, by the module itself."""
    nn.utils.vector_to_parameters(theta, module.parameters())
    with torch.no_grad():
        errors = [(module(x) - y).square().mean() for x, y in regression()]
    return float(torch.stack(errors).mean())


def plain_height(module: nn.Module, corners: Tensor) -> float:
    """Largest loss on the polygon through ``corners`` (K, P)."""
    scale = float((corners[-1] - corners[0]).norm())
    top = -math.inf
    for start, end in itertools.pairwise(corners):
        points = max(2, math.ceil(GRID * float((end - start).norm()) / scale))
        top = max(top, *(plain_loss(module, start + (end - start) * (i / points)) for i in range(points + 1)))
    return top


@each_searcher
@pytest.mark.parametrize("budget", [None, Budget(1500)], ids=str)
@pytest.mark.parametrize("margin", [0.05, 0.3])
def test_connected_paths_lie_below_the_level_between_the_samples_too(
    finder: PathFinder, budget: Budget | None, margin: float
) -> None:
    connected = 0
    for seed in (0, 1):
        surface, start, end = trained_pair()
        found = reseeded(finder, seed).connect(surface, start, end, margin=margin, budget=budget)
        if not found.connected:
            continue
        connected += 1
        assert found.path is not None
        module = network(0)
        level = (1 + margin) * max(plain_loss(module, start), plain_loss(module, end))
        assert found.level == pytest.approx(level)
        assert plain_height(module, found.path.beads) <= level * (1 + 1e-5)
    assert connected or budget is not None
