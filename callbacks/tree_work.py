"""What a merge tree may cost, out of what training has earned, and what its row says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import numpy as np

from lightning_landscape.callbacks.account import Account
from lightning_landscape.components import MergeTree
from lightning_landscape.components.heights import PairChoice, most_searches
from lightning_landscape.components.searches import Record
from lightning_landscape.connection import level_above
from lightning_landscape.finders import Budget, PathFinder
from lightning_landscape.surface import LossSurface

_ROUNDING = 1e-3  # of sums of thirds
FEWEST = 4  # points of each kind that are joined however little was earned


class Paid:
    """A record whose rows are paid for once: also by a resumed run, which finds rows there that it has yet to pay for.

    Args:
        record: the rows.
        keys: of those that are paid for; added to.
        surface: whose work they were, and may not exceed its limit together.

    Attributes:
        work: what the others cost.
    """

    def __init__(self, record: Record, keys: set[str], surface: LossSurface) -> None:
        self._record = record
        self._keys = keys
        self._surface = surface
        self.work = 0.0

    def get(self, key: str) -> dict[str, Any] | None:
        """The row of this key."""
        row = self._record.get(key)
        if row is not None:
            self._surface.work.limit -= self._pay(key, row)
        return row

    def put(self, key: str, row: Mapping[str, Any]) -> None:
        """Adds a row."""
        self._pay(key, row)
        self._record.put(key, row)

    def _pay(self, key: str, row: Mapping[str, Any]) -> float:
        work = 0.0 if key in self._keys else row.get("work") or 0.0
        self._keys.add(key)
        self.work += work
        return work


def new_lines(names: Sequence[str], joined: Sequence[str]) -> int:
    """How many straight lines between the points of these names are not known from a tree of ``joined``.

    Example:
        >>> new_lines(["a", "b", "c"], ["a", "b"])
        2
    """
    known = set(joined)
    return sum(not (a in known and b in known) for a, b in combinations(names, 2))


class TreeBudget:
    """What one tree may spend: straight lines first, then searches.

    Args:
        account: what training has earned.
        surface: the loss surface.
        finder: of the searches, whose grid the lines have.
        joined: the names in the tree before, whose lines are known.
    """

    def __init__(self, account: Account, surface: LossSurface, finder: PathFinder, joined: Sequence[str]) -> None:
        self._account = account
        self._point = surface.evaluation_passes / 3
        self._line = finder.least_work(surface) - 2 * self._point  # the losses of its ends are known
        self._joined = joined

    def price(self, names: Sequence[str]) -> float:
        """Work for the losses of so many points and the lines between them that are not known."""
        # E of a point, and what it may take to see whether that is the loss of the model by itself.
        return 3 * len(names) * self._point + new_lines(names, self._joined) * self._line

    def count(self, named: Callable[[int], Sequence[str]], most: int) -> int:
        """How many points of each kind are joined: the most that leave half of what was earned to searches.

        Args:
            named: the names of the points, given how many of each kind.
            most: how many of each kind at most.

        Returns:
            A number from 4, or ``most`` if that is less, to ``most``.
        """
        counts = range(most, min(most, FEWEST), -1)
        fit = (count for count in counts if self.price(named(count)) <= self._account.earned / 2)
        return next(fit, min(most, FEWEST))

    def each(self, names: Sequence[str], pairs: PairChoice, snapshots: int | None) -> Budget:
        """What each search of the tree may spend: its part of what lines leave.

        Args:
            names: of the points.
            pairs: which of them are searched.
            snapshots: how many were saved so far, where trees grow with them. Each search then may spend half of what
                was earned between two snapshots, so that one which is recorded counts for the next tree too.
        """
        if snapshots is not None:
            work = self._account.total / snapshots / 2
        else:
            work = (self._account.earned - self.price(names)) / max(1, most_searches(len(names), pairs))
        # Rounded, for a recorded search is known by its budget too.
        return Budget(None if math.isinf(work) else float(f"{max(0.0, work):.6g}"))

    @contextmanager
    def limited(self, surface: LossSurface) -> Iterator[None]:
        """Within the block the surface computes no more than was earned, or than the minimum."""
        surface.work.limit = max(self._account.earned, self._account.minimum) + _ROUNDING
        try:
            yield
        finally:
            surface.work.limit = math.inf


def told(tree: MergeTree, level: float | None, margin: float) -> dict[str, Any]:
    """The fields of a row on a tree, and on the components at a level or, without one, a margin above all points."""
    finite = tree.losses[np.isfinite(tree.losses)].tolist()
    if level is None:
        level = level_above(finite, margin) if finite else math.nan
    joined = len(tree.merges) == len(finite) - 1
    counts = tree.num_components(tree.levels())
    known = math.isfinite(level)
    return {
        "num_points": len(tree.names),
        "level": level if known else None,
        "num_components": tree.num_components(level) if known else 0,
        "max_components": int(counts.max()) if counts.size else 0,
        "top_merge": tree.merges[-1].height if joined and tree.merges else None,
        "tree": tree.to_dict(),
    }
