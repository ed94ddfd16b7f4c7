"""Bezier curves with trained bends (Garipov et al. 2018)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_landscape.finders.curves import CurveFinder
from lightning_landscape.path import distance

_DEVIATION = 0.005  # of the polyline from the curve, as a share of the distance of the endpoints
_MAX_CORNERS = 63


class BezierCurve(CurveFinder):
    """Trains the bends of a Bezier curve by the mean loss along it (Garipov et al. 2018, Eq. 4).

    With d = n + 1 the coefficients are Bernstein's, ``c_i(t) = binom(d, i) t^i (1 - t)^(d - i)``; one bend makes a
    parabola. Reported is a polyline with corners on the curve. Between corners 1/m apart the two differ by
    ``max |phi''| / (8 m^2)`` at most, and ``|phi''| <= d (d - 1) max_i |w_{i+1} - 2 w_i + w_{i-1}|``: m is chosen so
    that this is half a percent of the distance of the endpoints, and at most 64.

    Args:
        bends: number of movable bends between the endpoints, at least 1.
        draws: points on the curve at which a step takes the loss; each costs a gradient step. More draws make less
            noise.
        max_steps: optimiser steps, twice as many in each further round of a search; over the second half the learning
            rate falls to 0.
        optimizer: makes the optimiser of the bends, a tensor (n, P), any of torch's. None is Adam with a step of 0.05
            times the root mean square coordinate difference of the endpoints.
        samples: points per straight-line distance of the endpoints on the grid that a search uses. The result is
            measured at a spacing three times finer, and finer still around its largest points.
        shorten: rounds of pulling the found path tight inside the level set; 0 leaves it as found.
        seed: of the random numbers of the search: the points on the curve, and the small first displacement of the
            bends off symmetric saddles.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> from lightning_landscape import LossSurface
        >>> ring = torch.nn.Linear(2, 1, bias=False)  # minima on the unit circle, a hill in the middle
        >>> surface = LossSurface(ring, [None], loss_fn=lambda module, batch: (module.weight.norm() - 1) ** 2)
        >>> found = BezierCurve().connect(
        ...     surface, torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0]), level=0.1)
        >>> str(found.verdict), 1.0 < found.normalized_length < 1.6
        ('connected', True)
    """

    def coefficients(self, t: Tensor) -> Tensor:
        """Bernstein's polynomials at t (m,): tensor (m, n + 2)."""
        degree = self.bends + 1
        power = torch.arange(degree + 1, dtype=t.dtype)
        binomials = torch.tensor([math.comb(degree, i) for i in range(degree + 1)], dtype=t.dtype)
        return binomials * t[:, None] ** power * (1 - t[:, None]) ** (degree - power)

    def corners(self, controls: Tensor) -> Tensor:
        """Equally spaced, as many as keep the polyline close to the curve."""
        turn = (controls[2:] - 2 * controls[1:-1] + controls[:-2]).norm(dim=1).max().item()
        bound = self.bends * (self.bends + 1) * turn / distance(controls[0], controls[-1])
        pieces = math.ceil(math.sqrt(min(bound / (8 * _DEVIATION), (_MAX_CORNERS + 1) ** 2)))
        return torch.linspace(0, 1, max(2, pieces) + 1, dtype=torch.float64)[1:-1]
