"""A planted landscape of five wells, whose saddles are known, and cheap searches on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_landscape import LossSurface
from lightning_landscape.components.heights import PairwiseHeights
from lightning_landscape.finders import DynamicStringSampling

WELLS = torch.tensor([[0.0, 0.0], [1.0, 0.1], [0.4, 0.9], [2.2, 0.3], [2.0, 1.4]])
DEPTHS = torch.tensor([1.0, 0.8, 0.9, 1.1, 0.7])
HILLS = torch.tensor([[0.5, 0.05], [1.6, 0.2]])  # on straight lines between wells
HEIGHTS = torch.tensor([0.5, 0.6])
WELL, HILL = 0.28, 0.15
FINDER = DynamicStringSampling(max_depth=1, max_bead_steps=5, shorten=0, samples=3)


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.zeros(2))


def planted(points: Tensor) -> Tensor:
    """1 less a sum of Gaussian wells, plus Gaussian hills; points (..., 2)."""
    wells = (points[..., None, :] - WELLS.to(points)).square().sum(-1)
    hills = (points[..., None, :] - HILLS.to(points)).square().sum(-1)
    deep = (DEPTHS.to(points) * torch.exp(-wells / (2 * WELL**2))).sum(-1)
    return 1 - deep + (HEIGHTS.to(points) * torch.exp(-hills / (2 * HILL**2))).sum(-1)


def surface() -> LossSurface:
    return LossSurface(Point(), [None], loss_fn=lambda module, batch: planted(module.at), vectorize=True)


def points(count: int = 5) -> dict[str, Tensor]:
    return {f"well {index}": WELLS[index] for index in range(count)}


def plain(found: PairwiseHeights) -> Any:
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in found.rows]
    return rows, found.heights.tolist(), found.losses.tolist()


class Noise:
    """Training batches in an order that the global random state draws."""

    def __iter__(self) -> Any:
        for _ in range(3):
            yield 0.3 * torch.randn(2)


def shaken() -> LossSurface:
    return LossSurface(
        Point(), [None], lambda m, batch: planted(m.at if batch is None else m.at + batch), Noise(), vectorize=False
    )
