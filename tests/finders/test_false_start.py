"""Beads whose first steps are too long for the surface."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_landscape import LossSurface
from lightning_landscape.finders import DynamicStringSampling

_SPREAD = 100.0  # by which the ends differ in each coordinate across the ridge: it sets the length of a bead's steps


class _Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(12))


def _ridge_with_a_gap(module: nn.Module, batch: None) -> Tensor:
    """A ridge halfway between the ends, 0.9 high, with a gap at y = 1, and a plateau of 0.8 far off in y."""
    y, across = module.theta[0], module.theta[1:].mean() / _SPREAD - 0.5
    gap = torch.exp(-((y - 1) ** 2) / 0.18)
    return torch.exp(-(across**2) / 0.01) * (0.9 - 0.9 * gap - 0.1 * torch.tanh(y**2 / 4))


def test_a_bead_thrown_off_by_long_steps_begins_again_with_shorter_ones() -> None:
    surface = LossSurface(_Point(), [None], loss_fn=_ridge_with_a_gap, vectorize=False)
    start, end = torch.zeros(12), torch.tensor([0.0] + 11 * [_SPREAD])
    found = DynamicStringSampling(shorten=0).connect(surface, start, end, level=0.3)
    assert found.linear_height > 0.85
    assert found.connected
    assert found.height <= 0.3
