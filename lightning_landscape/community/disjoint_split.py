"""Random splits of examples that share elements, such that no two parts do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def disjoint_split(
    elements: Sequence[npt.NDArray[np.int64]], shares: Sequence[float], seed: int
) -> list[npt.NDArray[np.int64]]:
    """Deal examples out to parts so that an element occurs in one part alone.

    Examples are dealt in random order. One that shares elements with a part goes there; one that shares elements with
    two is left out; any other goes to the part that is furthest below its share. Elements of an example that was left
    out belong to no part because of it. Where examples fall into many small groups that share nothing, hardly any is
    lost.

    Args:
        elements: the elements of each example, integers of at least 0.
        shares: positive, one a part; what they sum to does not matter.
        seed: random seed of the order in which communities are taken.

    Returns:
        For each part the indices of its examples, ascending.

    Raises:
        ValueError: if a share is not positive.

    Example:
        >>> disjoint_split([np.array([0, 1]), np.array([1, 2]), np.array([3]), np.array([4])], (1, 1), seed=0)
        [array([2, 3]), array([0, 1])]
    """
    if not all(share > 0 for share in shares):
        raise ValueError(f"shares must be positive, got {shares!r}")
    wanted = np.array(shares, dtype=np.float64)
    dealt = np.zeros(len(shares), dtype=np.int64)
    part_of = np.full(len(elements), -1, dtype=np.int64)
    owner = np.full(max((int(part.max(initial=-1)) for part in elements), default=-1) + 1, -1, dtype=np.int64)
    for example in np.random.default_rng(seed).permutation(len(elements)):
        owners = np.unique(owner[elements[example]])
        owners = owners[owners >= 0]
        if len(owners) > 1:
            continue
        part = owners[0] if len(owners) else ((dealt + 1) / wanted).argmin()
        owner[elements[example]] = part
        part_of[example] = part
        dealt[part] += 1
    return [np.flatnonzero(part_of == part) for part in range(len(shares))]
