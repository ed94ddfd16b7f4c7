"""From which step on a run is stable to the order of its data, in numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.table import Table

Below = float | Literal["spread"]


def checked_below(below: Below) -> Below:
    """What :func:`threshold` takes.

    Raises:
        ValueError: for anything else.
    """
    number = isinstance(below, int | float) and not isinstance(below, bool) and 0 <= below < math.inf
    if below != "spread" and not number:
        raise ValueError(
            f"stable_below must be an error barrier of at least 0, such as 0.02, or 'spread', got {below!r}"
        )
    return below


def threshold(rows: Sequence[Mapping[str, Any]], below: Below) -> float:
    """The error barrier up to which a fork is stable.

    Args:
        rows: rows of ``forks.jsonl``.
        below: the barrier itself; ``"spread"``: twice the mean difference between the errors of the two children of a
            fork, which have nothing but the order of their data apart.

    Example:
        >>> threshold([{"reason": None, "error_profile": {"loss": [0.10, 0.5, 0.13]}}], "spread")
        0.06
    """
    if below != "spread":
        return float(below)
    ends = [row["error_profile"]["loss"] for row in rows if row["reason"] is None]
    spreads = [abs(errors[0] - errors[-1]) for errors in ends if None not in (errors[0], errors[-1])]
    return 2 * math.fsum(spreads) / len(spreads) if spreads else math.nan


def stable_step(rows: Sequence[Mapping[str, Any]], below: Below) -> int | None:
    """The first fork from which the error barrier stays at most at the threshold; ``None`` if there is none.

    Args:
        rows: rows of ``forks.jsonl``. One that failed is not known to be stable.
        below: see :func:`threshold`.

    Example:
        >>> rows = [{"step": step, "reason": None, "error_barrier": barrier}
        ...         for step, barrier in ((0, 0.3), (50, 0.01), (100, 0.05), (200, 0.02), (400, 0.0))]
        >>> stable_step(rows, 0.02)
        200
    """
    limit, found = threshold(rows, below), None
    for row in sorted(rows, key=lambda row: row["step"], reverse=True):
        barrier = row["error_barrier"] if row["reason"] is None else None
        if barrier is None or not barrier <= limit:
            break
        found = int(row["step"])
    return found


def stability_conclusion(rows: Sequence[Mapping[str, Any]], below: Below) -> str:
    """The first stable step in words, with the barriers on both sides of it.

    Example:
        >>> rows = [{"step": step, "reason": None, "error_barrier": barrier} for step, barrier in ((0, 0.3), (9, 0.01))]
        >>> for sentence in stability_conclusion(rows, 0.02).split(": ", 1)[::-1]:
        ...     print(sentence)
        on the line between two orders of the data the error rises by at most 1.0 points, 2.0 are allowed. At step 0 \
it rises by 30.0.
        Stable from step 9
    """
    limit, step = threshold(rows, below), stable_step(rows, below)
    if step is None:
        last = max(rows, key=lambda row: row["step"], default=None)
        if last is None or last["error_barrier"] is None:
            return "From which step on the run is stable is not known: the last fork was not measured."
        return (
            f"Not stable: from step {last['step']} on two orders of the data still end apart, the error between them "
            f"rises by {100 * last['error_barrier']:.1f} points, {100 * limit:.1f} are allowed. Fork later too."
        )
    highest = max(row["error_barrier"] for row in rows if row["step"] >= step)
    said = (
        f"Stable from step {step}: on the line between two orders of the data the error rises by at most "
        f"{max(0.0, 100 * highest):.1f} points, {100 * limit:.1f} are allowed."
    )
    before = [row for row in rows if row["step"] < step]
    if not before:
        return f"{said} It was the first fork: earlier steps may be stable too." if step > 0 else said
    nearest = max(before, key=lambda row: row["step"])
    if nearest["error_barrier"] is None:
        return said
    return f"{said} At step {nearest['step']} it rises by {100 * nearest['error_barrier']:.1f}."


def fork_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line a fork: its step, the barriers of error and loss, the mean error of its children, and seconds.

    Example:
        >>> row = {"step": 50, "error_barrier": 0.013, "loss_barrier": 0.2, "child_error": 0.04, "seconds": 3.21}
        >>> [str(cell) for column in fork_table([row]).columns for cell in column.cells]
        ['50', '1.3', '0.2', '4.0', '3.2']
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for header in ("fork at\nstep", "error barrier\n(points)", "loss\nbarrier", "child\nerror (%)", "seconds"):
        table.add_column(header, justify="right")
    for row in rows:
        percent = [None if row[key] is None else 100 * row[key] for key in ("error_barrier", "child_error")]
        values = (percent[0], row["loss_barrier"], percent[1], row["seconds"])
        cells = (
            "-" if value is None else format(value, spec)
            for value, spec in zip(values, (".1f", ".4g", ".1f", ".1f"), strict=True)
        )
        table.add_row(str(row["step"]), *cells)
    return table


def work_ahead(steps: int, forks: int, seconds_per_step: float) -> str:
    """What the children of all forks will cost, in words.

    Example:
        >>> work_ahead(1200, 3, 0.25)
        'ForkStability trains the children of 3 forks now: 1200 training steps, about 5 min'
    """
    seconds = steps * seconds_per_step
    time = (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
    return f"ForkStability trains the children of {forks} forks now: {steps} training steps, about {time}"
