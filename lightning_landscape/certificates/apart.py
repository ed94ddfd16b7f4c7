"""Proved separations of points on a loss surface, where there are any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_landscape.certificates.operation import UnsupportedError
from lightning_landscape.certificates.separation import OneLine
from lightning_landscape.connection import Connection, Verdict
from lightning_landscape.surface import LossSurface


def judged(surface: LossSurface, found: Connection, theta_a: Tensor, theta_b: Tensor) -> Connection:
    """What a search found, with the verdict ``separated`` where it is proved that no path stays below the level.

    A path that seems to stay below the level all the same was measured at points, and has a peak between two of them.
    Where the connection is aligned, its path ends in a reordered copy of theta_b, and the proof has to hold for every
    copy.

    Args:
        surface: the loss surface E.
        found: the outcome of the search.
        theta_a, theta_b: the two points, shape (P,).
    """
    if not math.isfinite(found.loss_a + found.loss_b):
        return found
    floor = float(proved_floors(surface, [theta_a, theta_b], reordered=found.aligned)[0, 1])
    if not floor > found.level:
        return found
    return replace(found, verdict=Verdict.SEPARATED, reason=None, floor=floor, height=max(found.height, floor))


def proved_floors(surface: LossSurface, points: Sequence[Tensor], *, reordered: bool = False) -> NDArray[np.float64]:
    """For each pair of points a height that every path between the two is proved to reach, shape (k, k).

    Minus infinity where nothing is proved, as for all networks but those of
    :func:`~lightning_landscape.certificates.separation_bound`.

    Args:
        surface: the loss surface E.
        points: the k points, each of shape (P,).
        reordered: whether the proof has to hold for all reorderings of hidden units too.
    """
    floors = np.full((len(points), len(points)), -math.inf)
    thetas = torch.stack([theta for theta in points if bool(theta.isfinite().all())] or [surface.point()])
    try:
        line = OneLine.of_surface(surface, thetas)
    except UnsupportedError:
        return floors
    for i, first in enumerate(points):
        for j, second in enumerate(points[:i]):
            found = line.compare(first, second)
            if found.reordered or (found.separated and not reordered):
                floors[i, j] = floors[j, i] = found.height
    return floors
