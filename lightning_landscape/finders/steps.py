"""How the points of a path take their steps: optimisers at the scale of the pair, and averages of iterates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

OptimizerFactory = Callable[[Iterable[Tensor]], Optimizer]
_STEP = 0.05  # step of Adam, as a share of the root mean square difference of a coordinate
_RECENCY = 8  # of the polynomial-decay average (Shamir & Zhang 2013), their eta


def relative_adam(length: float, dimension: int) -> OptimizerFactory:
    """Adam with steps of 0.05 times the root mean square coordinate difference of two points.

    Args:
        length: distance of the points.
        dimension: P, the number of coordinates.

    Example:
        >>> round(relative_adam(length=6.0, dimension=9)([torch.zeros(9)]).param_groups[0]["lr"], 12)
        0.1
    """
    return lambda points: torch.optim.Adam(points, lr=_STEP * (length / math.sqrt(dimension)))


def averaging_weight(step: int) -> float:
    """Weight of the iterate of ``step`` = 1, 2, ... in the running average: the first replaces what was there."""
    return (_RECENCY + 1) / (_RECENCY + step)
