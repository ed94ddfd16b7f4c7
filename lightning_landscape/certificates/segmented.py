"""The least squared error of functions that are made of a given number of linear pieces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
UNIT = 2.0**-52


def least_error(s: Array, y: Array, weights: Array, pieces: int) -> float:
    r"""A lower bound of ``sum_n w_n |y_n - f(s_n)|^2`` over all f that are linear on each of so many intervals.

    The intervals part the line, and f may jump between them, so that continuous functions are among these f. Points
    with one s lie in one interval. Dynamic programming finds the minimum::

        D_k(j) = min_i D_{k-1}(i) + c(i, j),   c(i, j) the squared residual of the best line for points i, ..., j - 1,

    in O(k N^2) operations and O(N) memory. What rounding can do is taken off, so that the number is no larger than the
    minimum in exact arithmetic (docs/certificates.md).

    Args:
        s: positions, shape (N,), in any order.
        y: values, shape (N, p).
        weights: positive, shape (N,).
        pieces: how many intervals, at least 1.

    Example:
        >>> s, ones = np.arange(5.0), np.ones(5)
        >>> tent = np.array([0.0, 1.0, 2.0, 1.0, 0.0])[:, None]
        >>> [round(least_error(s, tent, ones, pieces), 6) for pieces in (1, 2)]
        [2.8, 0.0]
    """
    place, index = np.unique(s, return_inverse=True)
    mass = np.bincount(index, weights)
    centre = (weights[:, None] * y).sum(0) / weights.sum()
    y = y - centre
    mean = np.stack([np.bincount(index, weights * column) / mass for column in y.T], axis=1)
    within = float((weights * np.square(y - mean[index]).sum(1)).sum())
    rounding = 64 * (len(s) + 64) * UNIT
    off_s = rounding * float(np.abs(place).max())
    off_y = rounding * float(np.abs(y).max() + np.abs(centre).max())
    least = np.zeros((pieces + 1, len(place) + 1))
    least[0, 1:] = np.inf
    lines = _Lines(len(place), y.shape[1])
    for end in range(len(place)):
        cost = lines.add(place[end], mean[end], mass[end], rounding, off_s, off_y)
        for k in range(1, pieces + 1):
            least[k, end + 1] = (least[k - 1, : end + 1] + cost).min()
    off = np.sqrt(weights.sum()) * off_y
    spread = max(0.0, np.sqrt(within) - off) ** 2
    return float(least[pieces, -1] + spread) * (1 - rounding)


class _Lines:
    """The best lines through the points i, ..., j of a growing j, for all i at once."""

    def __init__(self, count: int, outputs: int) -> None:
        self._mass = np.zeros(count)
        self._s, self._y = np.zeros(count), np.zeros((count, outputs))  # weighted means
        self._ss, self._yy = np.zeros(count), np.zeros(count)  # sums of squares around them
        self._sy = np.zeros((count, outputs))
        self._size = 0

    def add(self, s: float, y: Array, weight: float, rounding: float, off_s: float, off_y: float) -> Array:
        """Adds point j, and returns lower bounds of the squared residuals for i = 0, ..., j.

        Means that are updated one by one are those of points that lie off by at most ``off_s`` and ``off_y``. Residuals
        of the best line have a norm that changes by at most ``sqrt(W) (off_y + |slope| off_s)`` then.
        """
        self._size += 1
        part = slice(self._size)
        before = self._mass[part].copy()
        self._mass[part] += weight
        share = weight / self._mass[part]
        step_s, step_y = s - self._s[part], y - self._y[part]
        self._s[part] += share * step_s
        self._y[part] += share[:, None] * step_y
        both = before * share
        self._ss[part] += both * step_s**2
        self._yy[part] += both * np.square(step_y).sum(1)
        self._sy[part] += (both * step_s)[:, None] * step_y
        ss, yy = self._ss[part], self._yy[part]
        known = ss > 0  # a single point lies on a line
        safe = np.where(known, ss, 1.0)
        residual = (1 - rounding) * yy - np.square(self._sy[part]).sum(1) / safe * (1 + rounding)
        moved = np.sqrt(self._mass[part]) * (off_y + off_s * np.sqrt(yy / safe))
        norm = np.sqrt(np.clip(residual, 0.0, None)) - moved
        return np.where(known, np.clip(norm, 0.0, None) ** 2, 0.0)
