"""Which pairs of many points are searched for a path, so that k points cost about k - 1 searches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import Tensor

from lightning_landscape.certificates.apart import proved_floors
from lightning_landscape.components.merge_tree import MergeTree
from lightning_landscape.components.searches import Pair, Record, Searches
from lightning_landscape.components.sharding import Share, in_turn
from lightning_landscape.finders import Budget, PathFinder, default_finder
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.work import Progress

PairChoice = Literal["tree", "all"]
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PairwiseHeights:
    """Heights between k points, and what the searches for them found.

    Attributes:
        names: of the points.
        losses: E at the points, shape (k,).
        heights: of the lowest path known, shape (k, k), symmetric: that of the search where there was one, else
            that of the straight line; NaN between points whose loss is not finite.
        floors: heights that every path between two points is proved to reach, shape (k, k); minus infinity where
            nothing is proved.
        rows: one a searched pair: ``a``, ``b`` and the fields of :class:`~lightning_landscape.connection.Connection`.
        lines: the same for the straight lines between all pairs.
    """

    names: tuple[str, ...]
    losses: Array
    heights: Array
    floors: Array
    rows: list[dict[str, Any]] = field(repr=False)
    lines: list[dict[str, Any]] = field(repr=False, default_factory=list)

    def tree(self) -> MergeTree:
        """The merge tree of these heights and floors."""
        return MergeTree.from_heights(self.losses, self.heights, self.names, self.floors)


def untouched(seed: int) -> AbstractContextManager[None]:
    """Leaves the global random state to itself."""
    return nullcontext()


def search_heights(
    surface: LossSurface,
    points: Mapping[str, Tensor],
    finder: PathFinder | None = None,
    *,
    pairs: PairChoice = "tree",
    level: float | None = None,
    margin: float = 0.0,
    budget: Budget | None = None,
    progress: Progress | None = None,
    record: Record | None = None,
    lines: Record | None = None,
    share: Share = in_turn,
    isolate: Callable[[int], AbstractContextManager[None]] = untouched,
) -> PairwiseHeights:
    """Heights between k points of a loss surface, for :class:`~lightning_landscape.components.MergeTree`.

    The straight line between all pairs is measured, once. ``pairs="tree"`` then searches a path for the
    k - 1 edges of the minimum spanning tree of these heights alone (Kruskal's: what joins the points at the lowest
    level that lines can). ``"all"`` searches k (k - 1) / 2 pairs. All heights are those of paths, so both give upper
    bounds of the saddles; and as a search never returns a path above the line, and does not depend on the pairs
    searched before it, every height of ``"all"`` is at most that of ``"tree"``, and so is every N_u.

    A finder that permutes units (``aligned`` in its rows) counts a point and its permuted copies as one.

    Where the surface is one that separations are proved for (docs/certificates.md), ``floors`` has them, for all pairs.

    Results depend on neither order nor number of processes: each search draws its random numbers from a seed that
    is a hash of its two points, when ``isolate`` is given.

    Args:
        surface: the loss surface E.
        points: the k >= 1 points by name, each of shape (P,).
        finder: how a path is searched; ``None`` is :class:`~lightning_landscape.finders.CurveThenBeads`.
        pairs: "tree" searches the k - 1 edges of the minimum spanning tree of straight lines, "all" every pair.
        level: for every search; ``None`` takes it from the two ends and ``margin``.
        margin: without a level, each search gets u = L + margin |L|, where L is the larger loss of its two ends.
        budget: what each search may spend; ``None`` is without limit. With a limit of work the straight lines are
            sampled on a coarse grid alone; those of searched pairs are not measured again.
        progress: called with a description and the fraction done.
        record: of finished searches: one that is there is not done again, if the two points, their losses and the
            settings of the search are the same.
        lines: the same of straight lines.
        share: how the work is divided among processes; by default this process does all of it, in turn.
        isolate: entered with a seed around every search, as ``callbacks.rng.isolated_rng``, for training batches
            that draw from global random states.

    Raises:
        ValueError: for no points, a wrong shape or an unknown choice of pairs.

    Example:
        >>> import torch
        >>> from lightning_landscape import LossSurface
        >>> from lightning_landscape.finders import LinearPath
        >>> waves = torch.nn.Linear(1, 1, bias=False)  # minima at the integers, hills of height 1 between them
        >>> surface = LossSurface(waves, [None], loss_fn=lambda m, batch: (m.weight * torch.pi).sin().square().sum())
        >>> points = {name: torch.tensor([float(name)]) for name in ("0", "1", "2", "5")}
        >>> found = search_heights(surface, points, LinearPath())
        >>> [row["a"] + "-" + row["b"] for row in found.rows], found.tree().num_components([0.5, 1.0]).tolist()
        (['0-1', '0-2', '0-5'], [4, 1])
    """
    if not points:
        raise ValueError("points is empty: a merge tree needs at least one point")
    if pairs not in get_args(PairChoice):
        raise ValueError(f"pairs must be one of {', '.join(get_args(PairChoice))}, got {pairs!r}")
    searches = Searches(surface, points, finder or default_finder(), level, margin, budget, record, lines, isolate)
    steps = _Steps(progress)
    # The first of them chooses for all by the clock how stacks are evaluated.
    surface.adopt(share(searches.choice, [0])[0])
    losses = np.array(share(searches.loss, range(len(points))), dtype=np.float64)
    searches.losses = losses
    finite = [index for index in range(len(points)) if math.isfinite(losses[index])]
    candidates = list(itertools.combinations(finite, 2))
    heights = np.full((len(points), len(points)), math.nan)
    np.fill_diagonal(heights, losses)
    measured = share(steps.counted(searches.line, "straight lines", len(candidates)), candidates)
    searches.known = dict(zip(candidates, measured, strict=True))
    costs = [searches.height(row, pair) for row, pair in zip(measured, candidates, strict=True)]
    _fill(heights, candidates, costs)
    if pairs == "tree":
        candidates = cheapest_tree(candidates, costs)
    rows = share(steps.counted(searches.search, "paths", len(candidates)), candidates)
    _fill(heights, candidates, [searches.height(row, pair) for row, pair in zip(rows, candidates, strict=True)])
    aligned = any(row["aligned"] for row in rows)
    with isolate(0):
        floors = proved_floors(surface, list(points.values()), reordered=aligned)
    return PairwiseHeights(tuple(points), losses, heights, floors, rows, measured)


def most_searches(points: int, pairs: PairChoice) -> int:
    """How many pairs of so many points are searched at most.

    Example:
        >>> most_searches(4, "tree"), most_searches(4, "all")
        (3, 6)
    """
    return points - 1 if pairs == "tree" else math.comb(points, 2)


def cheapest_tree(pairs: Sequence[Pair], costs: Sequence[float]) -> list[Pair]:
    """The edges of the minimum spanning tree, cheapest first; equal ones in the order of ``pairs``.

    A cost that is NaN comes after all others. Where the pairs do not connect all points, there is a tree for each
    part.

    Example:
        >>> cheapest_tree([(0, 1), (0, 2), (1, 2)], [3.0, 1.0, 2.0])
        [(0, 2), (1, 2)]
    """
    if not pairs:
        return []
    order = sorted(range(len(pairs)), key=lambda index: (math.isnan(costs[index]), costs[index], index))
    # Ranks from 1: SciPy reads a cost of 0 as no edge, and may return either of two equal ones.
    rank = np.empty(len(pairs), dtype=np.int64)
    rank[order] = np.arange(1, len(pairs) + 1)
    rows, columns = np.array(pairs).T
    size = int(columns.max()) + 1
    kept = minimum_spanning_tree(csr_array((rank, (rows, columns)), shape=(size, size)))
    return [pairs[order[int(place) - 1]] for place in sorted(kept.data)]


class _Steps:
    """Progress over the items of this process."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def counted(self, function: Callable[[Pair], Any], description: str, total: int) -> Callable[[Pair], Any]:
        if self._progress is None:
            return function
        progress, done = self._progress, itertools.count()

        def shown(pair: Pair) -> Any:
            number = next(done)
            progress(f"{description}: {number + 1} of {total}", number / total)
            return function(pair)

        return shown


def _fill(heights: Array, pairs: Sequence[Pair], values: Sequence[float]) -> None:
    for (first, second), value in zip(pairs, values, strict=True):
        heights[first, second] = heights[second, first] = value
