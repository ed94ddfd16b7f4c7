"""The best permutation for a matrix of similarities, by SciPy's assignment solver."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


def best_permutation(similarity: NDArray[np.float64], block: int = 1) -> NDArray[np.int64]:
    """The permutation p that maximises ``sum_i similarity[i, p[i]]``.

    Args:
        similarity: matrix (n, n).
        block: p maps consecutive blocks of this many entries onto each other. The best match of every two
            blocks is found first and then the best match of blocks, which together is exact.

    Returns:
        p, shape (n,).

    Example:
        >>> best_permutation(np.array([[0.0, 2.0], [1.0, 0.0]])).tolist()
        [1, 0]
    """
    size = len(similarity)
    if block == 1:
        return np.asarray(linear_sum_assignment(similarity, maximize=True)[1])
    count = size // block
    inner = np.empty((count, count, block), dtype=np.int64)
    values = np.empty((count, count))
    tiles = similarity.reshape(count, block, count, block).transpose(0, 2, 1, 3)
    for row in range(count):
        for column in range(count):
            tile = tiles[row, column]
            places, inner[row, column] = linear_sum_assignment(tile, maximize=True)
            values[row, column] = tile[places, inner[row, column]].sum()
    rows, outer = linear_sum_assignment(values, maximize=True)
    return np.asarray((outer[:, None] * block + inner[rows, outer]).reshape(-1))
