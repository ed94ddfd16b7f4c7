"""Curves with movable bends, fitted by minimising the mean loss along them (Garipov et al. 2018)."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_landscape.connection import Reason
from lightning_landscape.finders.base import PathFinder
from lightning_landscape.finders.chain import Chain
from lightning_landscape.finders.search import Search
from lightning_landscape.finders.training import OptimizerFactory, Watch, descend, relative_adam, train
from lightning_landscape.path import Path

_JITTER = 1e-3  # first displacement of a bend, as a share of the length of what the search starts from


class CurveFinder(PathFinder):
    """Fits ``phi(t) = sum_i c_i(t) w_i`` with w_0 = theta_a and w_{n+1} = theta_b by descent of the mean loss.

    The n bends w_1, ..., w_n minimise ``E_{t ~ U[0, 1]} L(phi(t))``, L being the loss of one training batch
    (Garipov et al. 2018, Eq. 2): each step draws t anew, in as many strata of [0, 1] as there are draws, and
    by the chain rule the gradient at bend i is the mean of ``c_i(t) grad L(phi(t))``. What is looked at, and
    returned, is a polyline along the curve of the averaged bends; the search stops as soon as that lies below the
    level.

    A subclass says what c is, and where the polyline has its corners.

    Args:
        bends: n, at least 1.
        draws: values of t a step, each of which costs a gradient step. Where a batch is all the data, t is the only
            noise, and 8 draws joined more pairs than 1 (docs/results/published_figures.md).
        max_steps: optimiser steps, twice as many in each further round of a search; over the second half the learning
            rate falls to 0.
        optimizer: makes the optimiser of the bends, a tensor (n, P), any of torch's. None is Adam with a step
            of 0.05 times the root mean square coordinate difference of the endpoints.
        samples: points per straight-line distance of the endpoints on the grid that a search uses. The result is
            measured at a spacing three times finer, and finer still around its largest points.
        shorten: rounds of pulling the found path tight inside the level set; 0 leaves it as found.
        seed: of the random numbers of the search, such as the small first displacement off symmetric saddles.

    Raises:
        ValueError: for arguments out of range.
    """

    def __init__(
        self,
        bends: int = 1,
        *,
        draws: int = 1,
        max_steps: int = 1000,
        optimizer: OptimizerFactory | None = None,
        samples: int = 9,
        shorten: int = 6,
        seed: int = 0,
    ) -> None:
        super().__init__(samples=samples, shorten=shorten)
        for name, value in (("bends", bends), ("draws", draws), ("max_steps", max_steps)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.bends = bends
        self.draws = draws
        self.max_steps = max_steps
        self.optimizer = optimizer
        self.seed = seed

    @abstractmethod
    def coefficients(self, t: Tensor) -> Tensor:
        """``c_i(t)`` for t (m,): tensor (m, n + 2), rows of sum 1."""

    @abstractmethod
    def corners(self, controls: Tensor) -> Tensor:
        """The t in (0, 1) of the polyline's corners, for controls w (n + 2, P)."""

    def search(self, search: Search) -> tuple[Chain, Reason]:
        """Trains the bends."""
        surface = search.surface
        generator = search.generator(self.seed)
        controls = self.through(search.chain)
        bends = controls[1:-1]  # a view: the curve moves with its bends
        scale = _JITTER * search.chain.length / math.sqrt(surface.dimension)
        bends += scale * torch.randn(bends.shape, generator=generator).to(bends)
        factory = self.optimizer or relative_adam(search.line.length, surface.dimension)
        optimizer = factory([bends])
        steps = self.max_steps * search.patience
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 2 - 2 * step / steps))
        watch = Watch(search)

        def step(batch: Any) -> Tensor:
            t = (torch.arange(self.draws) + torch.rand(self.draws, generator=generator)) / self.draws
            losses = self._step(search, controls, self.coefficients(t).to(controls), optimizer, batch)
            schedule.step()
            return losses

        def polyline(mean: Tensor) -> Tensor:
            return self._polyline(torch.cat([controls[:1], mean, controls[-1:]]))

        def look(mean: Tensor, done: float) -> bool:
            search.progress(f"{type(self).__name__}: height {watch.best.height:.4g}", done)
            return watch.verified(polyline(mean))

        mean, ended = train(
            search,
            watch,
            bends,
            surface.training_stream(),
            steps=steps,
            cost=self.draws,
            step=step,
            look=look,
        )
        if ended is None or ended is Reason.DIVERGED:
            return watch.best, ended or Reason.BEAD
        return watch.last(polyline(mean)), ended

    def _step(self, search: Search, controls: Tensor, weights: Tensor, optimizer: Optimizer, batch: Any) -> Tensor:
        """Moves the bends among the controls in place; the losses at the points that ``weights`` (m, n + 2) make."""

        def evaluate() -> tuple[Tensor, Tensor, Tensor]:
            losses, gradients = search.surface.gradients(weights @ controls, batch)
            return losses, losses.mean(), weights[:, 1:-1].T @ gradients / self.draws

        return descend(optimizer, evaluate)

    def through(self, chain: Chain) -> Tensor:
        """Controls of the curve that passes through a chain at equal steps of its arc length."""
        t = torch.linspace(0, 1, self.bends + 2, dtype=torch.float64)
        points = Path(chain.beads())(t)
        weights = self.coefficients(t[1:-1]).to(points)
        rest = points[1:-1] - weights[:, [0, -1]] @ points[[0, -1]]
        return torch.cat([points[:1], torch.linalg.solve(weights[:, 1:-1], rest), points[-1:]])

    def _polyline(self, controls: Tensor) -> Tensor:
        return self.coefficients(self.corners(controls)).to(controls) @ controls
