"""Averages over the pairs of a threshold, beside what was published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.reproduce.freeman_bruna.pairs import MODES
from scripts.reproduce.freeman_bruna.published_points import Point, published
from scripts.reproduce.freeman_bruna.tasks import TASKS
from scripts.reproduce.shared.kept import KeptError, read
from scripts.reproduce.shared.statistics import Mean

Row = dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """What one mode found at one threshold.

    Attributes:
        mode: ``faithful`` or ``strict``.
        threshold: as published.
        pairs: number of pairs that were run.
        accepted: pairs that count, by the published test or, in strict mode, by the measured height.
        connected: pairs whose path was measured below the level of the search.
        below: pairs whose path was measured below the threshold itself; in strict mode as ``connected``.
        reasons: why pairs do not count, and how often.
        length: normalised length of the weights alone over accepted pairs, the published convention.
        full_length: the same over all parameters.
        every_length: normalised length of the weights over all pairs that have a path, accepted or not.
        beads: interior beads over accepted pairs.
        published_length: the published point.
        published_beads: interior beads of the published point.
    """

    mode: str
    threshold: float
    pairs: int
    accepted: int
    connected: int
    below: int
    reasons: dict[str, int]
    length: Mean
    full_length: Mean
    every_length: Mean
    beads: Mean
    published_length: Point | None
    published_beads: Point | None


def read_rows(folders: Iterable[Path]) -> list[Row]:
    """The rows of all pairs in some folders, each pair once.

    Raises:
        KeptError: if a file is damaged, or a pair was done in two ways.
    """
    rows: dict[tuple[Any, ...], Row] = {}
    for folder in folders:
        for file in sorted(path for mode in MODES for path in (folder / mode).glob("*.json")):
            try:
                row = read(file)[1]
                key = (row["task"], row["mode"], row["threshold"], row["index"])
            except (KeyError, TypeError) as error:
                raise KeptError(f"{file} is damaged ({error!r}): delete it and do the pair anew") from error
            if key in rows and _result(rows[key]) != _result(row):
                raise KeptError(f"{file} differs from the same pair in another folder: merge one of the two alone")
            rows[key] = row
    return [rows[key] for key in sorted(rows)]


def summarize(task: str, rows: Iterable[Row]) -> list[Summary]:
    """One entry for each mode and threshold of ``task``, in order."""
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        if row["task"] == task:
            groups.setdefault((row["mode"], row["threshold"]), []).append(row)
    return [_summary(task, *key, groups[key]) for key in sorted(groups)]


def _summary(task: str, mode: str, threshold: float, rows: list[Row]) -> Summary:
    accepted = [row for row in rows if row["accepted"]]
    found = [row for row in rows if row.get("weights_length") is not None]
    level = TASKS[task].level(threshold)
    length, beads = published(task).get(threshold, (None, None))
    below = [row for row in found if row["height"] is not None and row["height"] <= level]
    connected = sum(row["connected"] for row in rows)
    return Summary(
        mode=mode,
        threshold=threshold,
        pairs=len(rows),
        accepted=len(accepted),
        connected=connected,
        below=len(below) if mode == "faithful" else connected,
        reasons=dict(Counter(row["reason"] for row in rows if row["reason"])),
        length=Mean.of([row["weights_length"] for row in accepted]),
        full_length=Mean.of([row["normalized_length"] for row in accepted]),
        every_length=Mean.of([row["weights_length"] for row in found]),
        beads=Mean.of([row["num_beads"] for row in accepted]),
        published_length=length,
        published_beads=beads,
    )


def _result(row: Row) -> Row:
    return {key: value for key, value in row.items() if key not in ("seconds", "settings", "versions")}
