"""One search: what it may spend, what it has spent, and what it goes on from."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce

import torch

from lightning_landscape.finders.chain import Chain, Segment
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.work import Progress, Work


@dataclass(frozen=True)
class Budget:
    """What a search may spend.

    Work is counted, not timed, so that a search ends at the same place on every machine: its unit is one
    training step (forward and backward of one point on one batch), a forward pass is a third of it. All that
    :meth:`PathFinder.connect` computes counts: first the straight line, then the search, which leaves enough for the
    verification of what it finds. The coarse line (:meth:`PathFinder.least_work`) is always measured.

    Without a limit of work, line and path are measured on a grid three times finer than the search's throughout; with
    one, only where a bound on the curvature between samples does not exclude a loss above the level.

    Args:
        work: training steps for all of it, or ``None`` for no limit.
        max_seconds: an extra brake on wall time, which makes results depend on the machine. It is asked between steps,
            and does not stop the verification.

    Raises:
        ValueError: for a negative or NaN limit.

    Example:
        >>> Budget(work=100).work
        100
    """

    work: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("work", "max_seconds"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must be at least 0 or None for no limit, got {value}")


class Ledger:
    """A budget being spent: what a surface has computed since the ledger was opened.

    Args:
        surface: the surface whose work is counted.
        budget: the limits.
    """

    def __init__(self, surface: LossSurface, budget: Budget) -> None:
        self._surface = surface
        self._budget = budget
        self._opened = time.perf_counter()
        self._before = copy.copy(surface.work)
        self._reserved = 0.0

    def reserve(self, work: float) -> None:
        """Keeps so many training steps for what comes after the search; 0 sets them free."""
        self._reserved = work

    @contextmanager
    def capped(self) -> Iterator[None]:
        """Within the block the surface computes nothing that the budget cannot pay.

        Raises:
            WorkSpent: from whatever the block computes beyond it.
        """
        work, allowed = self._surface.work, self._budget.work
        outer = work.limit
        if allowed is not None:
            work.limit = min(outer, max(work.total, self._before.total + allowed))
        try:
            yield
        finally:
            work.limit = outer

    @property
    def spent(self) -> Work:
        """Work so far."""
        return self._surface.work.since(self._before)

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.perf_counter() - self._opened

    @property
    def remaining(self) -> float:
        """Training steps left beside the reserve; 0 once the time is up, infinite without limits."""
        limit = self._budget.max_seconds
        if limit is not None and self.seconds >= limit:
            return 0.0
        if self._budget.work is None:
            return math.inf
        return max(0.0, self._budget.work - self._reserved - self.spent.total)

    def part(self, share: float) -> Ledger:
        """A ledger for a part of the search, limited to a share of what remains; what it spends is spent here too."""
        limit, left = self._budget.max_seconds, self.remaining
        seconds = None if limit is None else share * max(0.0, limit - self.seconds)
        return Ledger(self._surface, Budget(None if math.isinf(left) else share * left, seconds))


@dataclass
class Search:
    """One call of :meth:`PathFinder.connect`: what a finder reads, and spends.

    Attributes:
        surface: the loss surface.
        level: the level u that the path has to stay below.
        ledger: the budget.
        line: the straight segment, sampled.
        chain: the lowest chain so far, sampled, from which the search goes on; the straight line at first.
        progress: told what is being done.
        round: how often the finder has searched before in this call, each time from what was lowest then.
        kept: what :meth:`keep` was told.
    """

    surface: LossSurface
    level: float
    ledger: Ledger
    line: Segment
    chain: Chain
    progress: Progress
    round: int = 0
    kept: list[Chain] = field(default_factory=list)

    def keep(self, chain: Chain) -> None:
        """Takes note of a sampled chain, so that it is not lost where the budget ends in mid-computation."""
        self.kept.append(chain)

    @property
    def patience(self) -> int:
        """By what a finder multiplies its limits of steps: 1 in the first round, and twice as much in each further."""
        return 1 << self.round

    def generator(self, seed: int) -> torch.Generator:
        """Random numbers for this round, others than in the rounds before."""
        return torch.Generator().manual_seed(seed + self.round)

    @property
    def lowest(self) -> Chain:
        """The lowest chain that was kept; what the search started from, where none is lower."""
        return reduce(Chain.lower, self.kept, self.chain)
