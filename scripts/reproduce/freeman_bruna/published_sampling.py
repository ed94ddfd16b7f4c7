"""Dynamic String Sampling as the published scripts run it, its verdict measured apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_landscape import LossSurface
from lightning_landscape.connection import Connection, Reason, Verdict
from lightning_landscape.finders.base import PathFinder
from lightning_landscape.finders.chain import Chain, Segment, measure
from lightning_landscape.finders.search import Budget, Ledger, Search
from lightning_landscape.path import Path
from lightning_landscape.surface.work import Progress
from scripts.reproduce.freeman_bruna.descent import descend
from scripts.reproduce.freeman_bruna.task import Recipe


@dataclass(frozen=True)
class PublishedConnection(Connection):
    """A connection, and whether the published scripts would count it.

    Attributes:
        accepted: every bead reached its target, and E lies below the slack on the scripts' own grid.
    """

    accepted: bool = False


class PublishedSampling(PathFinder):
    """The search of the published scripts, with what it does other than the text says.

    - A first bead is trained from the middle of the straight line, even where that lies below the level.
    - Beads move freely, by the optimiser of the scripts; they may slide into the basin of an endpoint.
    - ``level`` is the slack times the threshold, and compared on a grid of each segment alone.
    - The string is returned as found, even where the straight line is lower.

    Two traps are not repeated: a bead that never reaches its target ends the search with the reason
    ``bead`` (the scripts run on forever, CIFAR's and PTB's keep the bead as it started), and the PTB script
    compares a variable that is always 0, so that its strings pass whatever they are. ``verdict`` and
    ``height`` are measured, as for every finder, on the returned path, ends of segments included.

    Args:
        recipe: of the task.
        target: beads are trained until E < ``target``.
        max_steps: after which a bead is given up.
        max_depth: rounds of new beads; 10 in all scripts.
        samples: see :class:`~lightning_landscape.finders.base.PathFinder`.
    """

    def __init__(self, recipe: Recipe, target: float, max_steps: int, max_depth: int = 10, samples: int = 9) -> None:
        super().__init__(samples=samples)
        self.recipe = recipe
        self.target = target
        self.max_steps = max_steps
        self.max_depth = max_depth

    def connect(
        self,
        surface: LossSurface,
        theta_a: Tensor,
        theta_b: Tensor,
        level: float | None = None,
        margin: float = 0.0,
        budget: Budget | None = None,
        progress: Progress | None = None,
    ) -> PublishedConnection:
        """Searches where the base class would take the straight line, and keeps the string it finds.

        Raises:
            ValueError: without a level: the scripts have a threshold, whatever the networks reach.
        """
        if level is None:
            raise ValueError("level is None: give slack * threshold, the published search has no other")
        straight = super().connect(surface, theta_a, theta_b, level=math.inf)
        ledger = Ledger(surface, budget or Budget())
        line = Segment(theta_a, theta_b, dict(zip(*straight.linear_profile, strict=True)))
        chain, reason = self._string(surface, line, level)
        accepted = reason is Reason.DEPTH and all(self._height(segment) < level for segment in chain.segments)
        chain.finish(surface)
        profile, path = chain.profile(), Path(chain.beads())
        if not math.isfinite(profile.height):
            reason = Reason.DIVERGED
        connected = profile.height <= level
        measured = {
            "verdict": Verdict.CONNECTED if connected else Verdict.NOT_FOUND,
            "reason": None if connected else reason,
            "path": path,
            "level": level,
            "height": profile.height,
            "barrier": profile.barrier,
            "length": path.length,
            "normalized_length": path.normalized_length,
            "num_beads": path.num_beads,
            "profile": profile,
            "gradient_steps": ledger.spent.gradient_steps,
            "loss_evaluations": straight.loss_evaluations + ledger.spent.loss_evaluations,
            "work": straight.work + ledger.spent.total,
            "seconds": straight.seconds + ledger.seconds,
        }
        line_alone = {name: getattr(straight, name) for name in Connection.__dataclass_fields__}
        return PublishedConnection(**{**line_alone, **measured}, accepted=accepted)

    def search(self, search: Search) -> tuple[Chain, Reason]:
        """Rounds of new beads, each in every segment that is too high on the grid."""
        return self._string(search.surface, search.line, search.level)

    def _string(self, surface: LossSurface, line: Segment, level: float) -> tuple[Chain, Reason]:
        chain = Chain([line], line.length, self.samples)
        stream = surface.training_stream()
        places = {line: 0.5}
        for _ in range(self.max_depth):
            starts = torch.stack([segment.at(t) for segment, t in places.items()])
            found = descend(surface, starts, self.target, self.recipe, self.recipe.bead_check, self.max_steps, stream)
            halves = {
                segment: [Segment(segment.start, point), Segment(point, segment.end)]
                for segment, point in zip(places, found.points, strict=True)
            }
            chain = chain.with_segments([new for old in chain.segments for new in halves.get(old, [old])])
            grid = [i / self.recipe.grid for i in range(self.recipe.grid)]
            fresh = [new for pair in halves.values() for new in pair]
            measure(surface, [(segment, grid) for segment in fresh])
            if not bool(found.reached.all()):
                return chain, Reason.BEAD
            places = {segment: self._place(segment) for segment in fresh if not self._height(segment) < level}
            if not places:
                break
        return chain, Reason.DEPTH

    def _height(self, segment: Segment) -> float:
        losses = [segment.losses[i / self.recipe.grid] for i in range(self.recipe.grid)]
        return math.inf if any(math.isnan(loss) for loss in losses) else max(losses)

    def _place(self, segment: Segment) -> float:
        return segment.highest if self.recipe.split == "argmax" else 0.5
