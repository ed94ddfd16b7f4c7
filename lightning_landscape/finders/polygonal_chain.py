"""Polygonal chains with trained corners (Garipov et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_landscape.finders.curves import CurveFinder


class PolygonalChain(CurveFinder):
    """Trains the corners of a chain of straight segments by the mean loss along it (Garipov et al. 2018, Eq. 3).

    The coefficients are hat functions, ``c_i(t) = max(0, 1 - |(n + 1) t - i|)``.

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
        >>> found = PolygonalChain(bends=3).connect(
        ...     surface, torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0]), level=0.1)
        >>> str(found.verdict), 1.0 < found.normalized_length < 1.6
        ('connected', True)
    """

    def coefficients(self, t: Tensor) -> Tensor:
        """The hat functions at t (m,): tensor (m, n + 2)."""
        knots = torch.arange(self.bends + 2, dtype=t.dtype)
        return (1 - ((self.bends + 1) * t[:, None] - knots).abs()).clamp_min(0)

    def corners(self, controls: Tensor) -> Tensor:
        """The bends themselves."""
        return torch.linspace(0, 1, self.bends + 2, dtype=torch.float64)[1:-1]
