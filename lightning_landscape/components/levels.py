"""At which levels a tree is read: one that suits most points, and the range of all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lightning_landscape.components.merge_tree import MergeTree
from lightning_landscape.connection import level_above


class Step(NamedTuple):
    """What changes at a level.

    Attributes:
        level: where N_u changes.
        points: with a loss of at most the level.
        components: N_u at the level.
        apart: pairs that are joined here by a path above the level of their own, that of their two losses and the
            margin: no search found them connected, the level is only higher than what it found.
    """

    level: float
    points: int
    components: int
    apart: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**self._asdict(), "apart": [list(pair) for pair in self.apart]}


def common_level(losses: Sequence[float], margin: float) -> float:
    """A level that one early checkpoint does not set: a margin above the largest loss but for outliers.

    With m the median (of two middle losses the smaller), a loss above m + |m| is an outlier; its point lies above the
    level.

    Args:
        losses: of the points. Those that are not finite are left out.
        margin: how far above, as a share.

    Returns:
        The level; NaN where no loss is finite.

    Example:
        >>> common_level([0.3, 0.4, 0.5, 2.2], 0.0), common_level([0.3, 2.2], 0.0)
        (0.5, 0.3)
    """
    finite = sorted(loss for loss in losses if math.isfinite(loss))
    if not finite:
        return math.nan
    middle = finite[(len(finite) - 1) // 2]
    return level_above([loss for loss in finite if loss <= middle + abs(middle)], margin)


def over_levels(tree: MergeTree, margin: float) -> list[Step]:
    """N_u at every level where it changes, ascending.

    Args:
        tree: the points and the heights between them.
        margin: that of the searches, see :class:`Step`.

    Example:
        >>> tree = MergeTree.from_heights([0.1, 0.1, 2.0], [[0.1, 1.5, 2.0], [1.5, 0.1, 2.0], [2.0, 2.0, 2.0]], "abc")
        >>> for step in over_levels(tree, 0.05):
        ...     print(step.level, step.points, step.components, step.apart)
        0.1 2 2 ()
        1.5 2 1 (('a', 'b'),)
        2.0 3 1 ()
    """
    joins = {merge.height for merge in tree.merges}
    finite = tree.losses[np.isfinite(tree.losses)]
    steps = []
    for level in map(float, tree.levels()):
        rows, columns = np.nonzero(np.triu(tree.heights == level, 1)) if level in joins else ((), ())
        pairs = [(int(i), int(j)) for i, j in zip(rows, columns, strict=True)]
        own = [level_above([float(tree.losses[i]), float(tree.losses[j])], margin) for i, j in pairs]
        apart = tuple((tree.names[i], tree.names[j]) for (i, j), u in zip(pairs, own, strict=True) if level > u)
        # Where one of several paths of this height lies below a level of its own, the join is a search's.
        searched = len(apart) < len(pairs)
        points = int((finite <= level).sum())
        steps.append(Step(level, points, int(tree.num_components(level)), () if searched else apart))
    return steps
