"""How far a run has moved between two checks, and whether it has settled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_landscape.connection import Connection
from lightning_landscape.path import distance
from lightning_landscape.report.conclusion import half_way
from lightning_landscape.storage.plain import plain_json

SETTLED_AFTER = 3  # checks in a row
_TOLERANCE = 1e-3  # of a loss: less is no rise


def movement(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any], connection: Connection) -> dict[str, Any]:
    """What a check's row says of movement: ``distance``, ``relative_distance`` and ``settled``.

    With a the earlier and b the present weights, these are ||b - a||, ||b - a|| / ||a||, and whether this check and the
    last ones, ``SETTLED_AFTER`` in all, were :func:`quiet`.

    Args:
        rows: of the earlier checks, in their order.
        row: of this check, as ``Connection.to_dict`` gives it.
        connection: of this check.
    """
    moved = relative = math.nan
    if connection.path is not None:
        start, end = connection.path.beads[0], connection.path.beads[-1]
        moved, norm = distance(start, end), distance(start.new_zeros(()), start)
        relative = moved / norm if norm else math.nan
    recent = [*rows, row][-SETTLED_AFTER:]
    return {
        "distance": plain_json(moved),
        "relative_distance": plain_json(relative),
        "settled": len(recent) == SETTLED_AFTER and all(map(quiet, recent)),
    }


def quiet(row: Mapping[str, Any]) -> bool:
    """Whether a run did nothing but move within one valley between two checks.

    It did where the loss does not rise on the straight line between the two (the barrier is at most 0.1% of the larger
    loss), and half way is no worse than at either end, up to 0.1%. While the loss still falls, the later end is better
    than the middle.

    Args:
        row: of the check.

    Example:
        >>> line = {"t": [0.0, 0.5, 1.0], "loss": [3.0, 2.5, 2.0]}
        >>> quiet({"loss_a": 3.0, "loss_b": 2.0, "linear_barrier": 0.0, "linear_profile": line})
        False
        >>> line = {"t": [0.0, 0.5, 1.0], "loss": [2.1, 1.9, 2.0]}
        >>> quiet({"loss_a": 2.1, "loss_b": 2.0, "linear_barrier": 0.0, "linear_profile": line})
        True
    """
    ends, barrier = (row["loss_a"], row["loss_b"]), row["linear_barrier"]
    if None in ends or barrier is None:
        return False
    best, worst = min(ends), max(map(abs, ends))
    # Written so that NaN is not quiet.
    return bool(barrier <= _TOLERANCE * worst and half_way(row) <= best + _TOLERANCE * abs(best))
