"""The simplified string method (E, Ren & Vanden-Eijnden 2007), with a climbing bead."""

from __future__ import annotations

import itertools
import math
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

_JITTER = 1e-3  # first displacement of a bead, as a share of the distance between beads


class SimplifiedString(PathFinder):
    """Lets a string of beads fall by gradient steps, and spaces the beads equally by arc length after each.

    Descent moves every bead, reparametrisation puts them back to equal distances along the string they make
    (E, Ren & Vanden-Eijnden 2007), so that the string comes to lie along a path of least energy. Its highest point
    is then a saddle, which the string passes between two beads. To reach it, from a share of the steps on the
    highest bead climbs: it follows ``-grad L + 2 (grad L . tau) tau``, tau being the direction of the string there,
    and the two halves of the string beside it are reparametrised each for itself. What is looked at, and returned,
    is the string of averaged beads; the search stops as soon as that lies below the level.

    Args:
        beads: interior beads, each of which costs a gradient step a step.
        max_steps: optimiser steps; twice as many in each further round of a search.
        climb_after: the share of max_steps after which the highest bead climbs; 1 for never.
        optimizer: makes the optimiser of the beads, a tensor (K, P), any of torch's. None is Adam with a step of
            0.05 times the root mean square coordinate difference of the endpoints.
        samples: points per straight-line distance of the endpoints on the grid that a search uses. The result is
            measured at a spacing three times finer, and finer still around its largest points.
        shorten: rounds of pulling the found path tight inside the level set; 0 leaves it as found.
        seed: of the random numbers of the search, such as the small first displacement off symmetric saddles.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> from lightning_landscape import LossSurface
        >>> ring = torch.nn.Linear(2, 1, bias=False)  # minima on the unit circle, a hill in the middle
        >>> surface = LossSurface(ring, [None], loss_fn=lambda module, batch: (module.weight.norm() - 1) ** 2)
        >>> found = SimplifiedString().connect(
        ...     surface, torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0]), level=0.1)
        >>> str(found.verdict), 1.0 < found.normalized_length < 1.6
        ('connected', True)
    """

    def __init__(
        self,
        *,
        beads: int = 7,
        max_steps: int = 300,
        climb_after: float = 0.5,
        optimizer: OptimizerFactory | None = None,
        samples: int = 9,
        shorten: int = 6,
        seed: int = 0,
    ) -> None:
        super().__init__(samples=samples, shorten=shorten)
        for name, value in (("beads", beads), ("max_steps", max_steps)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= climb_after <= 1:
            raise ValueError(f"climb_after must lie in [0, 1], got {climb_after}")
        self.beads = beads
        self.max_steps = max_steps
        self.climb_after = climb_after
        self.optimizer = optimizer
        self.seed = seed

    def search(self, search: Search) -> tuple[Chain, Reason]:
        """Trains the string."""
        surface = search.surface
        generator = search.generator(self.seed)
        string = Path(search.chain.beads()).resample(self.beads + 2).beads
        beads = string[1:-1]  # a view: the string moves with its beads
        scale = _JITTER * search.chain.length / (self.beads + 1) / math.sqrt(surface.dimension)
        beads += scale * torch.randn(beads.shape, generator=generator).to(beads)
        optimizer = (self.optimizer or relative_adam(search.line.length, surface.dimension))([beads])
        watch = Watch(search)
        numbers = itertools.count(1)
        steps = self.max_steps * search.patience

        def step(batch: Any) -> Tensor:
            climbs = next(numbers) > self.climb_after * steps
            losses, climber = self._step(search, string, optimizer, batch, climbs)
            string.copy_(_respaced(string, climber))
            return losses

        def look(mean: Tensor, done: float) -> bool:
            search.progress(f"string of {self.beads}: height {watch.best.height:.4g}", done)
            return watch.verified(mean)

        mean, ended = train(
            search,
            watch,
            beads,
            surface.training_stream(),
            steps=steps,
            cost=self.beads,
            step=step,
            look=look,
        )
        if ended is None or ended is Reason.DIVERGED:
            return watch.best, ended or Reason.BEAD
        return watch.last(mean), ended

    def _step(
        self, search: Search, string: Tensor, optimizer: Optimizer, batch: Any, climbs: bool
    ) -> tuple[Tensor, int | None]:
        """Moves the beads of a string in place; their losses, and which of them climbed."""
        beads = string[1:-1]

        def evaluate() -> tuple[Tensor, Tensor, Tensor]:
            losses, gradients = search.surface.gradients(beads, batch)
            if climbs:
                highest = int(losses.argmax())
                _reflect(gradients[highest], string[highest + 2] - string[highest])
            return losses, losses.max(), gradients

        losses = descend(optimizer, evaluate)
        return losses, int(losses.argmax()) if climbs else None


def _reflect(gradient: Tensor, direction: Tensor) -> None:
    """Turns the part of a gradient (P,) along a direction (P,) around, in place: descent then climbs along it."""
    tangent = direction / direction.norm().clamp_min(torch.finfo(direction.dtype).tiny)
    gradient -= 2 * torch.dot(gradient, tangent) * tangent


def _respaced(string: Tensor, fixed: int | None) -> Tensor:
    """The string (K, P) with beads at equal arc lengths, on either side of the interior bead ``fixed``, if any."""
    if fixed is None:
        return Path(string).resample(len(string)).beads
    return torch.cat([_respaced(string[: fixed + 2], None), _respaced(string[fixed + 1 :], None)[1:]])
