"""Which points a merge tree joins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from lightning_landscape.callbacks.keeping import Keep, left, spread
from lightning_landscape.callbacks.level_set import LevelSetConnectivity
from lightning_landscape.callbacks.pairings.base import Partner
from lightning_landscape.storage.run_folders import lacking
from lightning_landscape.storage.snapshots import SnapshotStore


def tree_points(
    store: SnapshotStore,
    snapshots: Mapping[str, str],
    callbacks: Iterable[Any],
    references: Mapping[str, Partner],
    keep: Keep,
    max_points: int,
    count: int,
) -> dict[str, Callable[[], Partner]]:
    """What reads the points of a tree, by name.

    Args:
        store: of the run's snapshots.
        snapshots: content hashes of these by name, in the order of saving.
        callbacks: those of the trainer; the twins of ``LevelSetConnectivity`` among them are points too.
        references: states of other runs by file; all are points.
        keep: which snapshots trees join.
        max_points: the most that a tree may join.
        count: how many this one joins, evenly spread, of the run and of each twin.
    """
    kept = left(list(snapshots), keep, 2 * max_points)
    gone = lacking(store, {name: snapshots[name] for name in kept})
    own = spread([name for name in kept if name not in gone], count)
    points: dict[str, Callable[[], Partner]] = {name: partial(store.load, name) for name in own}
    for other in callbacks:
        if isinstance(other, LevelSetConnectivity):
            beside = other.companions()
            kept = [name for name in left(other.companion_names(), keep, 2 * max_points) if name in beside]
            points |= {name: beside[name].load for name in spread(kept, count)}
    return points | {path: partial(references.__getitem__, path) for path in references}
