"""Training of the beads of a string until they lie below a target loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_landscape.connection import Reason
from lightning_landscape.finders.chain import Segment
from lightning_landscape.finders.search import Search
from lightning_landscape.finders.training import OptimizerFactory, averaging_weight

_JITTER = 1e-3  # first displacement of a bead, as a share of its segment's length
_IMPROVEMENT = 0.99  # a check counts as progress when the loss fell below this share of the best
_PATIENCE = 6  # checks without progress before the learning rate falls, but at least
_WAIT = 0.25  # this share of the steps so far: what descends by a power law needs ever more steps for 1%
_DECAY = 0.3
_DECAYS = 3  # falls of the learning rate before a bead gives up


class Bead:
    """A point that starts on a segment and moves in the hyperplane orthogonal to it.

    Every path between the segment's ends crosses that hyperplane, so that nothing is lost by staying in
    it, and a bead cannot slide back into the basin of either end.

    It keeps three vectors (P,), and its optimiser those of its own: what follows from the segment is computed anew.

    Args:
        segment: the segment that the bead will split.
        t: where on it the bead starts.
        target: the loss to reach.
        seed: of a small first displacement: at a symmetric saddle the gradient has no component off the segment.
        optimizer: makes the bead's optimiser.
        rate: by which its learning rate is multiplied from the first step on.

    Attributes:
        rate: the same, lowered at each false start, for beads to come.
    """

    def __init__(
        self,
        segment: Segment,
        t: float,
        target: float,
        seed: int,
        optimizer: OptimizerFactory,
        rate: float = 1.0,
    ) -> None:
        self.segment = segment
        self._t = t
        self._seed = seed
        self.point = self._first_point()
        self.mean = self.point.clone()
        self.best = self.point.clone()
        self.loss = math.inf
        self.target = target
        self._first = math.nan
        self._optimizer = optimizer([self.point])
        self.rate = rate
        self._multiply_rate(rate)
        self._idle = 0
        self._progress = 0
        self._decays = 0
        self._averaged = 0
        self.steps = 0

    def step(self, gradients: Iterator[tuple[Tensor, Tensor]]) -> None:
        """One optimiser step; ``gradients`` yields (loss, gradient) at the point, anew for each call."""

        def closure() -> Tensor:
            loss, self.point.grad = next(gradients)
            return loss

        self._optimizer.step(closure)  # type: ignore[arg-type]
        self.point.copy_(self._confined(self.point))
        self.steps += 1
        self._averaged += 1
        self.mean.lerp_(self.point, averaging_weight(self._averaged))

    def record(self, loss: float) -> None:
        """Takes note of E at the mean: keeps the best, and goes on from it at a lower learning rate where it stalls."""
        improved = loss < self.loss - (1 - _IMPROVEMENT) * abs(self.loss) if math.isfinite(self.loss) else True
        if math.isnan(self._first):
            self._first = loss
        if loss < self.loss:
            self.loss = loss
            self.best.copy_(self.mean)
        self._idle = 0 if improved else self._idle + 1
        if improved:
            self._progress = self.steps
        if self._idle >= _PATIENCE and self.steps - self._progress >= _WAIT * self.steps:
            self._slow_down()

    def _slow_down(self) -> None:
        # Where steps were too long they may have led to a plateau without return, such as dead units: a bead that has
        # not come half of the way begins again.
        false_start = self.loss > (self._first + self.target) / 2
        resumed = self._first_point() if false_start else self.best
        self.rate *= _DECAY if false_start else 1.0
        self._idle = 0
        self._progress = self.steps
        self._decays += 1
        self._averaged = 0
        self._multiply_rate(_DECAY)
        self._optimizer.state.clear()
        self.point.copy_(resumed)
        self.mean.copy_(resumed)

    def _multiply_rate(self, factor: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] *= factor

    @property
    def stuck(self) -> bool:
        """Whether falling learning rates no longer help."""
        return self._decays > _DECAYS

    def split(self) -> list[Segment]:
        """The two segments that the bead makes of its own."""
        first, last = self.segment.losses[0.0], self.segment.losses[1.0]
        return [
            Segment(self.segment.start, self.best, {0.0: first, 1.0: self.loss}),
            Segment(self.best, self.segment.end, {0.0: self.loss, 1.0: last}),
        ]

    def _first_point(self) -> Tensor:
        origin = self.segment.at(self._t)
        generator = torch.Generator().manual_seed(self._seed)
        noise = torch.randn(origin.shape, generator=generator).to(origin)
        return self._confined(origin + _JITTER * self.segment.length / math.sqrt(len(noise)) * noise)

    def _confined(self, point: Tensor) -> Tensor:
        """The nearest point of the hyperplane, in which every point's part along the segment is t."""
        start = self.segment.start
        along = self.segment.end - start
        square = torch.dot(along, along).clamp(min=torch.finfo(along.dtype).tiny)
        return point - (torch.dot(point - start, along) / square - self._t) * along


def train_beads(search: Search, beads: list[Bead], max_steps: int, stream: Iterator[Any]) -> Reason | None:
    """Trains all beads together until each has come to its target on the probe set.

    Args:
        search: the running search.
        beads: the beads, changed in place.
        max_steps: steps that one bead may take.
        stream: training batches without end.

    Returns:
        ``None`` when every bead lies below the level, otherwise what stopped the worst of them.
    """
    surface = search.surface
    # A check of E costs a third of a step and bead for each batch: keep that to about a third of the steps.
    pause = max(5, surface.evaluation_passes)
    active = beads
    start = math.nan
    while active:
        values = surface.losses(torch.stack([bead.mean for bead in active])).tolist()
        for bead, value in zip(active, values, strict=True):
            if not math.isfinite(value):
                return Reason.DIVERGED
            bead.record(value)
        worst = max(bead.loss for bead in beads)
        start = worst if math.isnan(start) else start
        target = beads[0].target
        search.progress(f"{len(beads)} beads, loss {worst:.4g}, target {target:.4g}", _share(start, worst, target))
        active = [bead for bead in active if bead.loss > bead.target and not bead.stuck and bead.steps < max_steps]
        affordable = search.ledger.remaining / max(1, len(active))
        if affordable < 1:
            break
        for _ in range(int(min(pause, affordable)) if active else 0):
            batch = next(stream)
            losses, gradients = surface.gradients(torch.stack([bead.point for bead in active]), batch)
            for bead, loss, gradient in zip(active, losses, gradients, strict=True):
                bead.step(_first_then_fresh(search, bead, batch, loss, gradient))
    if all(bead.loss <= search.level for bead in beads):
        return None
    return Reason.BUDGET if active else Reason.BEAD


def _first_then_fresh(
    search: Search, bead: Bead, batch: Any, loss: Tensor, gradient: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    # Most optimisers ask once; LBFGS asks again at points it tries.
    yield loss, gradient
    while True:
        losses, gradients = search.surface.gradients(bead.point[None], batch)
        yield losses[0], gradients[0]


def _share(start: float, now: float, target: float) -> float:
    return min(1.0, (start - now) / (start - target)) if start > target else 1.0
