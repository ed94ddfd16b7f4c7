"""Automated nudged elastic band (Draxler et al. 2018)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_landscape.connection import Reason
from lightning_landscape.finders.base import PathFinder
from lightning_landscape.finders.chain import Chain, Segment
from lightning_landscape.finders.search import Search
from lightning_landscape.finders.training import OptimizerFactory, Watch, descend, relative_adam, train

_JITTER = 1e-3  # first displacement of a pivot, as a share of the length of its segment


class AutoNEB(PathFinder):
    """A nudged elastic band that gets pivots where it needs them.

    The band theta_a, p_1, ..., p_n, theta_b is trained in cycles (Draxler et al. 2018). Each begins by inserting a
    pivot into every segment on which E rises above the interpolation of its ends by more than a share of the
    band's height, at the largest deviation, and ends early once all pivots lie below the level. In a step, pivots
    feel two forces. The gradient acts across the band only, ``grad L - (grad L . tau_i) tau_i``, and so does the
    optimiser's step; tau_i points along the band to the neighbour of larger loss, and at extrema between the two
    (Henkelman & Jonsson 2000). A spring acts along the band, ``k / 2 (|p_{i+1} - p_i| - |p_i - p_{i-1}|) tau_i``, where
    k is a share of the way to where both neighbours are equally far, whatever the scale of the loss. A weak one will
    do: on a network's surface a stiff one pulls pivots away from where they were needed. The learning rate falls
    from cycle to cycle. What is returned is the band of averaged pivots, the first that lies below the level.

    Args:
        cycles: how many times pivots are inserted and the band is trained.
        steps: optimiser steps in a cycle, each of which costs a gradient step a pivot.
        decay: what the learning rate is multiplied by after each cycle, in (0, 1].
        stiffness: k, how hard the spring pulls towards equal distances, in (0, 1].
        insert_above: a segment gets a pivot where E deviates from the interpolation by more than this share of the
            band's height above its lower end, at least 0. A band that deviates nowhere by so much gets none.
        optimizer: makes the optimiser of the pivots, a tensor (n, P), any of torch's. None is Adam with a step of
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
        >>> found = AutoNEB().connect(
        ...     surface, torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0]), level=0.1)
        >>> str(found.verdict), 1.0 < found.normalized_length < 1.6
        ('connected', True)
    """

    def __init__(
        self,
        *,
        cycles: int = 10,
        steps: int = 60,
        decay: float = 0.8,
        stiffness: float = 0.02,
        insert_above: float = 0.2,
        optimizer: OptimizerFactory | None = None,
        samples: int = 9,
        shorten: int = 6,
        seed: int = 0,
    ) -> None:
        super().__init__(samples=samples, shorten=shorten)
        for name, count in (("cycles", cycles), ("steps", steps)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        for name, share in (("decay", decay), ("stiffness", stiffness)):
            if not 0 < share <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {share}")
        if not insert_above >= 0:
            raise ValueError(f"insert_above must be at least 0, got {insert_above}")
        self.cycles = cycles
        self.steps = steps
        self.decay = decay
        self.stiffness = stiffness
        self.insert_above = insert_above
        self.optimizer = optimizer
        self.seed = seed

    def search(self, search: Search) -> tuple[Chain, Reason]:
        """Trains the band."""
        surface = search.surface
        generator = search.generator(self.seed)
        stream = surface.training_stream()
        watch = Watch(search)
        chain = search.chain
        for cycle in range(self.cycles):
            band = self._with_insertions(chain, generator)
            pivots = band[1:-1]  # a view: the band moves with its pivots
            reach = 2 * search.line.length / (len(pivots) + 1)  # from neighbour to neighbour, if the band were straight
            optimizer = (self.optimizer or relative_adam(reach, surface.dimension))([pivots])
            for group in optimizer.param_groups:
                group["lr"] *= self.decay**cycle
            mean, ended = train(
                search,
                watch,
                pivots,
                stream,
                steps=self.steps * search.patience,
                cost=len(pivots),
                step=partial(self._step, search, band, optimizer),
                look=partial(self._look, search, watch, cycle),
            )
            if ended is Reason.DIVERGED:
                return watch.best, ended
            if ended is Reason.BUDGET:
                return watch.last(mean), ended
            if watch.last(mean).height <= search.level:
                break
            chain = watch.latest
        return watch.best, Reason.DEPTH

    def _with_insertions(self, chain: Chain, generator: torch.Generator) -> Tensor:
        """The band through a sampled chain's corners and the new pivots, shape (n + 2, P)."""
        ends = chain.segments[0].losses[0.0], chain.segments[-1].losses[1.0]
        least = self.insert_above * (chain.height - min(ends))
        corners = [chain.segments[0].start]
        for segment in chain.segments:
            t, deviation = _deviation(segment)
            if not deviation <= least or len(chain.segments) == 1:
                noise = torch.randn(corners[0].shape, generator=generator).to(corners[0])
                corners.append(segment.at(t) + _JITTER * segment.length / math.sqrt(len(noise)) * noise)
            corners.append(segment.end)
        return torch.stack(corners)

    def _look(self, search: Search, watch: Watch, cycle: int, pivots: Tensor, done: float) -> bool:
        """Whether all pivots (n, P) lie below the level."""
        description = f"cycle {cycle + 1}: {len(pivots)} pivots, height {watch.best.height:.4g}"
        search.progress(description, (cycle + done) / self.cycles)
        return watch.reached(pivots)

    def _step(self, search: Search, band: Tensor, optimizer: Optimizer, batch: Any) -> Tensor:
        """Moves the pivots of a band in place; their losses."""
        pivots = band[1:-1]
        before = pivots.clone()
        lengths = (band[1:] - band[:-1]).norm(dim=1)
        ends = [torch.tensor([search.line.losses[t]]).to(pivots) for t in (0.0, 1.0)]
        tangents = torch.empty(0)

        def evaluate() -> tuple[Tensor, Tensor, Tensor]:
            nonlocal tangents
            losses, gradients = search.surface.gradients(pivots, batch)
            tangents = _tangents(band, torch.cat([ends[0], losses.to(pivots), ends[1]]))
            return losses, losses.max(), _across(gradients, tangents)

        losses = descend(optimizer, evaluate)
        spring = self.stiffness / 2 * (lengths[1:] - lengths[:-1])[:, None] * tangents
        pivots.copy_(before + _across(pivots - before, tangents) + spring)
        return losses


def _deviation(segment: Segment) -> tuple[float, float]:
    """Where between its ends E deviates most from their interpolation, and by how much; a NaN counts as most."""
    first, last = segment.losses[0.0], segment.losses[1.0]
    excess = {t: loss - ((1 - t) * first + t * last) for t, loss in segment.losses.items() if 0 < t < 1}
    t = max(excess, key=lambda t: math.inf if math.isnan(excess[t]) else excess[t])
    return t, excess[t]


def _across(vectors: Tensor, tangents: Tensor) -> Tensor:
    """The rows of ``vectors`` (n, P) less their parts along unit tangents (n, P)."""
    return vectors - (vectors * tangents).sum(dim=1, keepdim=True) * tangents


def _tangents(band: Tensor, losses: Tensor) -> Tensor:
    """Unit tangents (n, P) at the pivots of a band (n + 2, P), by its losses (n + 2,)."""
    steps = band[1:] - band[:-1]
    into, out = losses[1:-1] - losses[:-2], losses[2:] - losses[1:-1]
    larger, smaller = torch.maximum(into.abs(), out.abs()), torch.minimum(into.abs(), out.abs())
    rising = losses[2:] > losses[:-2]
    monotone = into * out > 0
    # At an extremum both neighbours count, the higher one more; elsewhere the higher one alone.
    ahead = torch.where(rising, larger, torch.where(monotone, 0.0, smaller))
    back = torch.where(rising, torch.where(monotone, 0.0, smaller), larger)
    flat = larger == 0
    tangents = (ahead + flat)[:, None] * steps[1:] + (back + flat)[:, None] * steps[:-1]
    return nn.functional.normalize(tangents, dim=1, eps=torch.finfo(band.dtype).tiny)
