"""The merge tree of points on a loss surface, and the number of components of its level sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

from lightning_landscape.storage.plain import plain_json

Array = NDArray[np.float64]
# Two evaluations of one loss differ in their rounding by less.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-6


class Merge(NamedTuple):
    """Two clusters become one: ``left`` and ``right`` are points (< k) or earlier merges, the m-th as k + m."""

    height: float
    left: int
    right: int


@dataclass(frozen=True, eq=False)
class MergeTree:
    """The minimax (single-linkage) tree of k points: which of them lie in one component, at every level.

    With E_i the loss of point i and h_ij the height of a path between i and j, two points are joined at
    level u when a chain of paths of height at most u leads from one to the other. Then ::

        N_u = #{i : E_i <= u} - #{merges of the tree of height <= u}

    is the number of components among the given points whose loss is at most u. Heights are those of paths
    that were found, upper bounds of the true saddles: two points that are joined at u are connected there,
    two that are not may be. Components of the level set that hold none of the points are not counted.

    Where separations are proved, ``floors`` has for a pair a height that every path between the two reaches; then each
    merge is known up to an interval, and N_u up to a range.

    A point whose loss is not finite lies in no level set. A height that is NaN or +inf was not searched.

    Attributes:
        names: of the points.
        losses: E_i, shape (k,).
        heights: h_ij, shape (k, k), symmetric; the losses on the diagonal, +inf where nothing was searched.
        floors: heights that every path between two points is proved to reach, shape (k, k); at least the larger loss.
        merges: lowest first; fewer than k - 1 where some points are never joined.

    Example:
        >>> tree = MergeTree.from_heights([0.1, 0.2, 0.1], [[0.1, 0.5, 0.9], [0.5, 0.2, 0.7], [0.9, 0.7, 0.1]])
        >>> [merge.height for merge in tree.merges]
        [0.5, 0.7]
        >>> tree.num_components([0.05, 0.1, 0.2, 0.5, 0.7]).tolist()
        [0, 2, 3, 2, 1]
    """

    names: tuple[str, ...]
    losses: Array
    heights: Array
    floors: Array
    merges: tuple[Merge, ...]
    _steps: Array = field(repr=False)  # SciPy's linkage of the ranks of the heights
    _values: Array = field(repr=False)  # the height of each rank

    @classmethod
    def from_heights(
        cls,
        losses: ArrayLike,
        heights: ArrayLike,
        names: Sequence[str] | None = None,
        floors: ArrayLike | None = None,
    ) -> MergeTree:
        """The tree of pairwise heights.

        Args:
            losses: E at the points, shape (k,), k >= 1; a tensor, an array or a list.
            heights: heights of paths between them, shape (k, k), symmetric; NaN or +inf where none was
                searched. The diagonal is not read.
            names: of the points; default ``"0"``, ``"1"``, ...
            floors: heights that every path between two points is proved to reach, shape (k, k), symmetric; minus
                infinity or NaN where nothing is proved, ``None`` for nowhere. A height below a floor is raised to it:
                it was measured at points of a path, and missed a peak between them.

        Raises:
            ValueError: for other shapes, heights or floors that are not symmetric, and a height below the loss of
                one of its ends, which no path has: it holds its ends. (A difference of rounding is lifted.)
        """
        loss = _array(losses)
        height = _array(heights)
        if loss.ndim != 1 or not loss.size:
            raise ValueError(f"losses must have shape (k,) with k >= 1, got {loss.shape}")
        k = len(loss)
        if height.shape != (k, k):
            raise ValueError(f"heights must have shape ({k}, {k}), one row a loss, got {height.shape}")
        chosen = tuple(str(i) for i in range(k)) if names is None else tuple(names)
        if len(chosen) != k or len(set(chosen)) != k:
            raise ValueError(f"names must be {k} different strings, one a loss, got {list(chosen)}")
        height = _checked_heights(loss, height, chosen)
        lowest = _checked_floors(loss, height, floors)
        height = np.where(np.isfinite(height), np.fmax(height, lowest), height)
        condensed = height[np.triu_indices(k, 1)]
        finite = np.isfinite(condensed)
        # Single linkage looks at the order of the heights alone. Ranks have it without the values that SciPy
        # refuses (infinite ones).
        values, order = np.unique(condensed[finite], return_inverse=True)
        ranks = np.full(condensed.shape, len(values), dtype=np.float64)
        ranks[finite] = order
        steps = linkage(ranks, "single") if k > 1 else np.empty((0, 4))
        merges = tuple(
            Merge(float(values[int(rank)]), int(left), int(right))
            for left, right, rank, _ in steps
            if rank < len(values)
        )
        return cls(chosen, loss, height, lowest, merges, steps, np.append(values, math.inf))

    @overload
    def num_components(self, u: float) -> int: ...

    @overload
    def num_components(self, u: Sequence[float] | Array | torch.Tensor) -> NDArray[np.int64]: ...

    def num_components(self, u: float | Sequence[float] | Array | torch.Tensor) -> int | NDArray[np.int64]:
        """N_u at one level, or at each of an array of them; an int, or int64 of the shape of ``u``.

        Raises:
            ValueError: if a level is NaN.
        """
        levels = _array(u)
        if np.isnan(levels).any():
            raise ValueError("u is NaN: give a level, a number that losses are compared with")
        born = np.searchsorted(np.sort(self.losses[np.isfinite(self.losses)]), levels, side="right")
        joined = np.searchsorted([merge.height for merge in self.merges], levels, side="right")
        count = np.asarray(born - joined, dtype=np.int64)
        return int(count) if count.ndim == 0 else count

    def fewest_components(self, u: float) -> int:
        """A proved lower bound of N_u among the given points: so many of them are separated from each other.

        1 where nothing is proved and a point lies below the level. :meth:`num_components` is the upper bound.

        Example:
            >>> tree = MergeTree.from_heights([0, 0, 0], np.ones((3, 3)), floors=[[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])
            >>> [(tree.fewest_components(u), tree.num_components(u)) for u in (0.1, 0.6, 1.0)]
            [(2, 3), (1, 3), (1, 1)]
        """
        apart: list[int] = []
        for point in np.flatnonzero(np.isfinite(self.losses) & (self.losses <= u)):
            if all(self.floors[point, other] > u for other in apart):
                apart.append(int(point))
        return len(apart)

    @property
    def proved(self) -> bool:
        """Whether any two points are proved to be separated above their losses."""
        return bool((self.floors > np.maximum.outer(self.losses, self.losses)).any())

    def intervals(self) -> tuple[tuple[float, float], ...]:
        """For each merge the least and the largest height at which its two clusters can meet: proved, and found."""
        groups = {index: [index] for index in range(len(self.names))}
        bounds = []
        for number, merge in enumerate(self.merges):
            left, right = groups.pop(merge.left), groups.pop(merge.right)
            groups[len(self.names) + number] = left + right
            bounds.append((float(self.floors[np.ix_(left, right)].min()), merge.height))
        return tuple(bounds)

    def components(self, u: float) -> tuple[tuple[str, ...], ...]:
        """The points of each component at level ``u`` by name; the component of the lowest point comes first."""
        inside = np.flatnonzero(np.isfinite(self.losses) & (self.losses <= u))
        joined = csr_array(self.heights[np.ix_(inside, inside)] <= u)
        labels = connected_components(joined, directed=False)[1] if len(inside) else []
        groups: dict[int, list[int]] = {}
        for index, label in sorted(zip(inside, labels, strict=True), key=lambda pair: self.losses[pair[0]]):
            groups.setdefault(int(label), []).append(int(index))
        return tuple(tuple(self.names[index] for index in group) for group in groups.values())

    def minimax(self) -> Array:
        """The height at which each pair is joined, by whatever detour: (k, k), the losses on the diagonal."""
        k = len(self.names)
        joined = np.full((k, k), math.inf)
        if k > 1:
            joined = self._values[squareform(cophenet(self._steps)).astype(int)]
        np.fill_diagonal(joined, self.losses)
        return joined

    def levels(self) -> Array:
        """The levels at which N_u changes, ascending: the losses and the heights of the merges."""
        return np.unique([*self.losses[np.isfinite(self.losses)], *(merge.height for merge in self.merges)])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: names, losses, heights, floors, merges; a number that is not finite becomes ``None``."""
        return {
            "names": list(self.names),
            "losses": plain_json(self.losses),
            "heights": plain_json(self.heights),
            "floors": plain_json(self.floors),
            "merges": [merge._asdict() for merge in self.merges],
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> MergeTree:
        """Reads :meth:`to_dict` back.

        Raises:
            KeyError: if a field is missing.
            ValueError: if the values are no losses with symmetric heights, as :meth:`from_heights` checks.
        """
        losses = [math.nan if value is None else value for value in row["losses"]]
        heights = [[math.inf if value is None else value for value in line] for line in row["heights"]]
        floors = row.get("floors")  # none in a tree from before there were proofs
        if floors is not None:
            floors = [[-math.inf if value is None else value for value in line] for line in floors]
        return cls.from_heights(losses, heights, row["names"], floors)


def _array(values: Any) -> Array:
    return torch.as_tensor(values, dtype=torch.float64).detach().cpu().numpy().copy()


def _checked_heights(losses: Array, heights: Array, names: Sequence[str]) -> Array:
    if np.isneginf(losses).any() or np.isneginf(heights).any():
        raise ValueError("a loss or a height is -inf: a surface without a floor has no merge tree")
    known = np.where(np.isnan(heights), math.inf, heights)
    floor = np.maximum.outer(losses, losses)  # of NaN with a number is NaN
    known[~np.isfinite(floor)] = math.inf
    np.fill_diagonal(known, 0.0)
    slack = _RELATIVE * np.where(np.isfinite(known), np.abs(known), 0.0) + _ABSOLUTE
    with np.errstate(invalid="ignore"):
        same = (known == known.T) | (np.abs(known - known.T) <= slack)
    for i, j in zip(*np.nonzero(~same), strict=True):
        raise ValueError(
            f"heights must be symmetric, and from {names[i]!r} to {names[j]!r} it is {heights[i, j]:g}, back "
            f"{heights[j, i]:g}: a path can be walked both ways, so pass np.fmin(heights, heights.T)"
        )
    known = np.minimum(known, known.T)
    below = known < floor - slack
    np.fill_diagonal(below, False)
    for i, j in zip(*np.nonzero(below), strict=True):
        raise ValueError(
            f"the height {known[i, j]:g} between {names[i]!r} and {names[j]!r} lies below the loss {floor[i, j]:g} of "
            "an end, which is on every path: pass heights (the largest loss on a path), not barriers"
        )
    known = np.where(np.isfinite(known), np.fmax(known, floor), known)
    np.fill_diagonal(known, losses)
    return known


def _checked_floors(losses: Array, heights: Array, floors: ArrayLike | None) -> Array:
    ends = np.maximum.outer(losses, losses)
    if floors is None:
        return ends
    known = _array(floors)
    if known.shape != heights.shape:
        raise ValueError(f"floors must have the shape {heights.shape} of heights, got {known.shape}")
    known = np.where(np.isnan(known), -math.inf, known)
    if not np.array_equal(known, known.T):
        raise ValueError("floors must be symmetric: a path can be walked both ways")
    np.fill_diagonal(known, -math.inf)
    return np.fmax(known, ends)
