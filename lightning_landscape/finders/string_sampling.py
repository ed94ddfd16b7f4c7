"""Dynamic String Sampling (Freeman & Bruna 2017)."""

from __future__ import annotations

from typing import Literal

import torch

from lightning_landscape.connection import Reason
from lightning_landscape.finders.base import PathFinder
from lightning_landscape.finders.beads import Bead, train_beads
from lightning_landscape.finders.chain import Chain
from lightning_landscape.finders.search import Search
from lightning_landscape.finders.training import OptimizerFactory, relative_adam


class DynamicStringSampling(PathFinder):
    """Splits segments that rise above the level, and trains the new beads below it.

    Where E on a segment exceeds the level u, a bead starts at the maximum (or the middle) and is trained
    by stochastic gradients until E <= ``alpha`` u; both halves are then treated alike, all open
    segments of a level of the recursion at once, until the whole path is verified or a limit is met
    (Freeman & Bruna 2017, Algorithm 1). Three things differ from the published algorithm: nothing is
    accepted above u, the result is verified on a finer grid and split again where that fails, and a bead
    stays in the hyperplane orthogonal to its segment, which every path between the ends must cross.

    Args:
        alpha: beads are trained until E <= u - (1 - alpha) |u|, where u is the level.
        max_depth: levels of the recursion; at most 2^max_depth - 1 beads.
        max_bead_steps: optimiser steps that one bead may take, twice as many in each further round of a search.
        split: start beads at the highest sampled point, or in the middle.
        optimizer: makes the optimiser of a bead from its parameters, any of torch's. None is Adam with
            a step of 0.05 times the root mean square coordinate difference of the segment's ends.
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
        >>> found = DynamicStringSampling().connect(
        ...     surface, torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0]), level=0.1)
        >>> str(found.verdict), 1.0 < found.normalized_length < 1.5
        ('connected', True)
    """

    def __init__(
        self,
        *,
        alpha: float = 0.95,
        max_depth: int = 10,
        max_bead_steps: int = 1000,
        split: Literal["argmax", "midpoint"] = "argmax",
        optimizer: OptimizerFactory | None = None,
        shorten: int = 6,
        samples: int = 9,
        seed: int = 0,
    ) -> None:
        super().__init__(samples=samples, shorten=shorten)
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must lie in (0, 1], got {alpha}")
        for name, value in (("max_depth", max_depth), ("max_bead_steps", max_bead_steps)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if split not in ("argmax", "midpoint"):
            raise ValueError(f"split must be 'argmax' or 'midpoint', got {split!r}")
        self.alpha = alpha
        self.max_depth = max_depth
        self.max_bead_steps = max_bead_steps
        self.split = split
        self.optimizer = optimizer
        self.seed = seed

    def search(self, search: Search) -> tuple[Chain, Reason]:
        """Adds beads level by level."""
        best = search.chain
        chain = self._start(search)
        stream = search.surface.training_stream()
        generator = search.generator(self.seed)
        target = search.level - (1 - self.alpha) * abs(search.level)
        rate = 1.0
        for depth in range(self.max_depth):
            if search.ledger.remaining <= 0:
                return best, Reason.BUDGET
            rising = [segment for segment in chain.segments if not segment.height <= search.level]
            if not rising:
                return chain, Reason.DEPTH
            beads = {
                segment: Bead(
                    segment,
                    segment.highest if self.split == "argmax" else 0.5,
                    target,
                    int(torch.randint(2**62, (1,), generator=generator)),
                    self.optimizer or relative_adam(segment.length, search.surface.dimension),
                    rate,
                )
                for segment in rising
            }
            search.progress(f"depth {depth + 1}: {len(beads)} new beads", 0.0)
            failure = train_beads(search, list(beads.values()), self.max_bead_steps * search.patience, stream)
            if failure is Reason.DIVERGED:
                return best, failure
            rate = min(bead.rate for bead in beads.values())
            chain = chain.with_segments(
                [
                    part
                    for segment in chain.segments
                    for part in (beads[segment].split() if segment in beads else [segment])
                ]
            )
            chain.sample(search.surface)
            search.keep(chain)
            if chain.height <= search.level:
                chain.refine(search.surface, search.level)
            best = best.lower(chain)
            if chain.height <= search.level:
                return chain, Reason.DEPTH
            if failure is not None:
                return best, failure
        return best, Reason.DEPTH

    def _start(self, search: Search) -> Chain:
        """The chain to go on from, without its corners above the level: beads are put between corners, which stay."""
        segments = search.chain.segments
        low = [segment.end for segment in segments[:-1] if segment.losses[1.0] <= search.level]
        if len(low) == len(segments) - 1:
            return search.chain
        chain = search.chain.through(torch.stack(low) if low else segments[0].end.new_empty(0, len(segments[0].end)))
        chain.sample(search.surface)
        if chain.height <= search.level:
            chain.refine(search.surface, search.level)
        return chain
