"""What is measured and searched for one point or one pair of many, and kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from lightning_landscape.connection import Connection
from lightning_landscape.finders import Budget, LinearPath, PathFinder
from lightning_landscape.path import Profile
from lightning_landscape.storage.named_tensors import content_hash
from lightning_landscape.surface import LossSurface

Pair = tuple[int, int]
Row = dict[str, Any]
_ROUNDING = 1e-6  # relative, of float32


class Record(Protocol):
    """Finished pieces of work by key, as :class:`~lightning_landscape.storage.rows.KeyedRows` keeps them."""

    def get(self, key: str) -> Row | None:
        """The row of this key, ``None`` if there is none."""

    def put(self, key: str, row: Mapping[str, Any]) -> None:
        """Adds a row."""


class Searches:
    """What is done for one point or one pair, whatever process it falls to.

    Args:
        surface: the loss surface E.
        points: the points by name.
        finder: how a path is searched.
        level: of every search.
        margin: how far above the larger end loss the level of a search lies, as a share of it, where none is given.
        budget: what each search may spend.
        record: of finished searches.
        lines: of measured straight lines.
        isolate: entered with a seed around everything that is computed.

    Attributes:
        losses: E at the points, shape (k,).
        known: rows of the straight lines measured, which a search does not measure again.
    """

    def __init__(
        self,
        surface: LossSurface,
        points: Mapping[str, Tensor],
        finder: PathFinder,
        level: float | None,
        margin: float,
        budget: Budget | None,
        record: Record | None,
        lines: Record | None,
        isolate: Callable[[int], AbstractContextManager[None]],
    ) -> None:
        self._surface = surface
        self._names = list(points)
        self._thetas = list(points.values())
        self._finder = finder
        self._level = level
        self._margin = margin
        self._budget = budget
        self._record = record
        self._lines = lines
        self._isolate = isolate
        self._hashes = [content_hash({"theta": theta}) for theta in self._thetas]
        limits = None if budget is None else [budget.work, budget.max_seconds]
        self._settings = json.dumps([finder.describe(), level, margin, limits], sort_keys=True)
        self.losses = np.empty(0)
        self.known: dict[Pair, Row] = {}

    def choice(self, _: int) -> dict[str, bool]:
        """How the surface evaluates stacks of points."""
        with self._isolate(0):
            return self._surface.choice()

    def loss(self, index: int) -> float:
        """E at a point."""
        with self._isolate(0):
            return self._surface.loss(self._thetas[index])

    def line(self, pair: Pair) -> Row:
        """The straight line of a pair, measured once; on a coarse grid where searches have a limit of work."""
        coarse = self._budget is not None and self._budget.work is not None
        finder = LinearPath(samples=self._finder.samples)
        ends = float(self.losses[pair[0]]), float(self.losses[pair[1]])

        def measured() -> Connection:
            with self._isolate(0):
                a, b = (self._thetas[index] for index in pair)
                budget = Budget(0.0) if coarse else None
                return finder.connect(self._surface, a, b, budget=budget, known=Profile((0.0, 1.0), ends))

        return self._kept(self._lines, json.dumps(["line", finder.samples, coarse]), pair, lambda key: measured())

    def search(self, pair: Pair) -> Row:
        """The path that the finder finds for a pair."""
        line = self.known[pair]["profile"]
        losses = [math.nan if loss is None else loss for loss in line["loss"]]  # ``None`` in a row is not finite

        def found(key: str) -> Connection:
            with self._isolate(int(key[:8], 16)):
                return self._finder.connect(
                    self._surface,
                    self._thetas[pair[0]],
                    self._thetas[pair[1]],
                    level=self._level,
                    margin=self._margin,
                    budget=self._budget,
                    known=Profile(tuple(line["t"]), tuple(losses)),
                )

        return self._kept(self._record, self._settings, pair, found)

    def height(self, row: Mapping[str, Any], pair: Pair) -> float:
        """The height of a path as one with the losses of the points, NaN if it was not finite.

        The ends of a path are evaluated in stacks, which rounds otherwise than a point alone: a path that is
        highest at an end would seem to rise above it, and count as a component of its own for a moment.
        """
        if None in (row["height"], row["loss_a"], row["loss_b"]):
            return math.nan
        top, end = float(self.losses[list(pair)].max()), max(row["loss_a"], row["loss_b"])
        return top if row["height"] <= end + _ROUNDING * abs(end) else max(top, row["height"])

    def _kept(self, record: Record | None, settings: str, pair: Pair, make: Callable[[str], Connection]) -> Row:
        """The row of a pair: that of the record, if it was made with these settings on this surface, or a new one."""
        first, second = pair
        parts = [settings, self._hashes[first], self._hashes[second]]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        row = None if record is None else record.get(key)
        if row is None or not self._agrees(row, pair):
            row = make(key).to_dict()
            if record is not None:
                record.put(key, row)
        return {"a": self._names[first], "b": self._names[second], **row}

    def _agrees(self, row: Mapping[str, Any], pair: Pair) -> bool:
        """Whether a recorded search was made on this surface, judged by the losses of its ends."""
        known: Any = (row.get("loss_a"), row.get("loss_b"))
        return all(isinstance(loss, float) for loss in known) and np.allclose(
            known, self.losses[list(pair)], rtol=1e-4, atol=1e-6
        )
