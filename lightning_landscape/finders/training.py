"""How the points of a path are trained: the steps they take, their averages, and when the path is looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_landscape.connection import Reason
from lightning_landscape.finders.chain import Chain
from lightning_landscape.finders.search import Search
from lightning_landscape.path import Path

OptimizerFactory = Callable[[Iterable[Tensor]], Optimizer]
_STEP = 0.05  # step of Adam, as a share of the root mean square difference of a coordinate
_RECENCY = 8  # of the polynomial-decay average (Shamir & Zhang 2013), their eta
_PAUSE = 5  # least training steps between looks
_WHOLE = 4  # looks before the first that is whole


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


class Watch:
    """Looks at a path in training: at one point often, at the whole path where that pays.

    A path is not below the level while it is above it where the last whole look found it highest; so that
    point, one evaluation of E, is looked at first. The whole path is sampled when the point has come
    below the level, and each time the work has doubled, so that a search that is stopped has
    a path to show. After a look at least as much is spent on training as the look has cost.

    Args:
        search: the running search.

    Attributes:
        best: the lowest path of all whole looks, and of what the search started from.
        latest: the path of the last whole look; before the first, what the search started from.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._start = search.surface.work.total
        self._pause = max(_PAUSE, search.surface.evaluation_passes)
        self._due = float(self._pause)
        self._whole = float(_WHOLE * self._pause)
        self._highest = search.chain.highest
        self.best = self.latest = search.chain

    @property
    def due(self) -> bool:
        """Whether it is time for a look."""
        return self._spent >= self._due

    def verified(self, corners: Tensor) -> bool:
        """Looks at the path through ``corners`` (K, P), ends excluded: whether it lies below the level."""
        before = self._spent
        path = Path(self._search.chain.through(corners).beads())
        loss = self._search.surface.loss(path(self._highest))
        if loss <= self._search.level or before >= self._whole:
            self._whole = max(self._whole, 2 * before)
            self._measure(corners)
        self._looked(before)
        return self.best.height <= self._search.level

    def reached(self, corners: Tensor) -> bool:
        """Looks at the ``corners`` (K, P) alone: whether all of them lie below the level."""
        before = self._spent
        losses = self._search.surface.losses(corners)
        self._looked(before)
        return bool((losses <= self._search.level).all())

    def last(self, corners: Tensor) -> Chain:
        """The lowest path, after a whole look at the last one, unless nothing was spent on it."""
        if self._spent:
            self._measure(corners)
        return self.best

    def _looked(self, before: float) -> None:
        spent = self._spent
        self._due = spent + max(self._pause, spent - before)

    def _measure(self, corners: Tensor) -> None:
        chain = self._search.chain.through(corners)
        chain.sample(self._search.surface)
        if chain.height <= self._search.level:
            chain.refine(self._search.surface, self._search.level)
        self._search.keep(chain)
        self._highest = chain.highest
        self.latest, self.best = chain, self.best.lower(chain)

    @property
    def _spent(self) -> float:
        return self._search.surface.work.total - self._start


def train(
    search: Search,
    watch: Watch,
    points: Tensor,
    stream: Iterator[Any],
    *,
    steps: int,
    cost: int,
    step: Callable[[Any], Tensor],
    look: Callable[[Tensor, float], bool],
) -> tuple[Tensor, Reason | None]:
    """Moves the points of a path step by step, as long as the budget lasts, and averages what they pass through.

    Args:
        search: the running search, whose ledger is asked before each step.
        watch: says when it is time for a look.
        points: the movable points (n, P), which ``step`` changes in place.
        stream: training batches without end.
        steps: the most steps to take.
        cost: gradient steps that one step costs.
        step: moves the points by one batch, and returns the losses it met.
        look: looks at the averaged points (n, P), given the share of the steps that is done; true ends the training.

    Returns:
        The averaged points, and why the training ended: ``budget``; ``diverged`` once a loss or a point is not finite;
        ``bead`` when the steps are used up; ``None`` when ``look`` has ended it.
    """
    mean = points.clone()
    for number in range(1, steps + 1):
        if search.ledger.remaining < cost:
            return mean, Reason.BUDGET
        losses = step(next(stream))
        if not (losses.isfinite().all() and points.isfinite().all()):
            return mean, Reason.DIVERGED
        mean.lerp_(points, averaging_weight(number))
        if watch.due and look(mean, number / steps):
            return mean, None
    return mean, Reason.BEAD


def descend(optimizer: Optimizer, evaluate: Callable[[], tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """One step of an optimiser that holds a single tensor.

    Args:
        optimizer: the optimiser of the points.
        evaluate: returns the losses, the value that they make together, which a line search compares, and the direction
            against which the points go; it is called again where the optimiser tries other points.

    Returns:
        The losses of the last call.
    """
    losses = torch.empty(0)

    def closure() -> float:
        nonlocal losses
        losses, value, optimizer.param_groups[0]["params"][0].grad = evaluate()
        return float(value)

    optimizer.step(closure)
    return losses
