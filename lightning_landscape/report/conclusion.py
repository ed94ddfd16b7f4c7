"""One plain sentence or two on what a search found: may the two be averaged, and how are they connected?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from itertools import pairwise
from typing import Any

from lightning_landscape.averaging.advice import TOLERANCE, Advice, advice
from lightning_landscape.connection import Connection, Reason, Verdict


class Word(StrEnum):
    """How two points are connected; every conclusion has exactly one of these words in it."""

    LINEARLY = "linearly connected"  # the barrier of the straight line is at most 1% of the larger end loss
    CURVE = "connected by a curve"  # the found path stays below the level
    SEPARATED = "separated"  # proved: every path rises above the level
    UNDECIDED = "undecided"  # neither; the reason follows in brackets


_WHY = {
    Reason.ENDPOINT: "level below an end",
    Reason.DEPTH: "depth",
    Reason.BEAD: "bead",
    Reason.BUDGET: "budget",
    Reason.DIVERGED: "diverged",
    Reason.ERROR: "error",
}
_NEXT = {
    Reason.ENDPOINT: "no path from an end above the level can stay below it: give a level above both ends",
    Reason.DEPTH: "give the search more depth or a higher level",
    Reason.BEAD: "give the search more training or a higher level",
    Reason.BUDGET: "give the search a larger budget",
}


def word(row: Mapping[str, Any]) -> Word:
    """The word for what was found.

    A proof comes first: the line of two separated points rises above the level, however little.
    A level below an end leaves a pair undecided, whatever the line is like: no path can answer that question.

    Args:
        row: see :func:`conclusion`.
    """
    if row["verdict"] == Verdict.SEPARATED:
        return Word.SEPARATED
    if row["reason"] in (Reason.ERROR, Reason.DIVERGED, Reason.ENDPOINT):
        return Word.UNDECIDED
    if is_linear(row):
        return Word.LINEARLY
    return Word.CURVE if row["verdict"] == Verdict.CONNECTED else Word.UNDECIDED


def is_linear(row: Mapping[str, Any]) -> bool:
    """Whether the barrier of the straight line is at most 1% of the larger end loss."""
    ends = [_number(row[key]) for key in ("loss_a", "loss_b")]
    barrier = _number(row["linear_barrier"])
    return all(map(math.isfinite, (barrier, *ends))) and barrier <= TOLERANCE * max(map(abs, ends))


def half_way(row: Mapping[str, Any]) -> float:
    """E half way on the straight line, which is E of the average of the two; between samples the larger neighbour."""
    t = row["linear_profile"]["t"]
    losses = [_number(loss) for loss in row["linear_profile"]["loss"]]
    for here, loss in zip(t, losses, strict=True):
        if math.isclose(here, 0.5, abs_tol=1e-6):
            return loss
    around = [losses[i : i + 2] for i, (before, after) in enumerate(pairwise(t)) if before < 0.5 < after]
    return math.nan if not around or math.isnan(sum(around[0])) else max(around[0])


def conclusion(found: Connection | Mapping[str, Any], reordered: float | None = None) -> str:
    """What a search found, in plain words: advice on averaging, then how the two are connected.

    The words are fixed: *linearly connected*, *connected by a curve*, *separated*, *undecided (why)*.

    Args:
        found: a connection, or the row that its ``to_dict`` gives.
        reordered: the largest loss on the line to a copy of B with reordered hidden units, where that is known.

    Example:
        >>> from lightning_landscape.path import Profile
        >>> line = Profile((0.0, 0.5, 1.0), (0.37, 1.79, 0.38))
        >>> said = conclusion(Connection(
        ...     Verdict.CONNECTED, None, path=None, level=0.4, loss_a=0.37, loss_b=0.38, linear_height=1.79,
        ...     linear_barrier=1.415, height=0.399, barrier=0.02, length=1.2, normalized_length=1.2, num_beads=3,
        ...     gradient_steps=9, loss_evaluations=3, work=1.0, seconds=0.1, profile=line, linear_profile=line))
        >>> for sentence in said.split(". "):
        ...     print(sentence)
        Do not average: half way the loss is 1.79, against 0.37 and 0.38
        The two are connected by a curve on which the loss stays below 0.4.
    """
    row = found.to_dict() if isinstance(found, Connection) else found
    if row["reason"] == Reason.ERROR:
        return f"No answer: undecided (error), the check failed: {row['message']}."
    sentences = [_on_averaging(row), _on_connection(row)]
    if reordered is not None:
        sentences.append(f"After reordering hidden units the line peaks at {reordered:.4g}.")
    return " ".join(sentences)


def _on_averaging(row: Mapping[str, Any]) -> str:
    a, b, middle = _number(row["loss_a"]), _number(row["loss_b"]), half_way(row)
    second = "the reordered copy of B" if row["aligned"] else "B"
    for name, loss in (("A", a), (second, b)):
        if not math.isfinite(loss):
            return f"Do not average: the loss of {name} is no finite number."
    if row["length"] == 0:
        return f"Nothing to average: A and {second} are the same point."
    figures = f"half way the loss is {middle:.4g}, against {a:.4g} and {b:.4g}"
    better = "A" if a <= b else second
    match advice(middle, (a, b)):
        case Advice.AVERAGE:
            return f"You may average{' A and ' + second if row['aligned'] else ''}: {figures}."
        case Advice.BEST_ALONE:
            return f"You may average, but {better} alone is better: {figures}."
        case _:
            gain = f": {better} alone is far better" if middle <= max(a, b) else ""
            return f"Do not average{gain}: {figures}."


def _on_connection(row: Mapping[str, Any]) -> str:
    found, reason = word(row), row["reason"]
    level, height = _number(row["level"]), _number(row["height"])
    copy = ", up to the order of hidden units" if row["aligned"] else ""
    if found is Word.SEPARATED:
        every = ", also after any reordering of hidden units" if row["aligned"] else ""
        proved = f"it is proved that every path between them rises to {row['floor']:.4g} or more"
        return f"The two are {found}{every}: {proved}."
    if found is Word.UNDECIDED:
        what = f"Whether they are connected is undecided ({_WHY.get(reason, reason)})"
        if reason == Reason.ENDPOINT:
            return f"{what}: {_NEXT[Reason.ENDPOINT]}."
        if reason == Reason.DIVERGED:
            return f"{what}."
        low = f"the lowest path found rises to {height:.4g}, above the level {level:.4g}, and others may be lower"
        return f"{what}: {low}; {_NEXT[reason]}." if reason in _NEXT else f"{what}: {low}."
    if found is Word.CURVE:
        line = ", here the straight line itself," if row["num_beads"] == 0 else ""
        return f"The two are {found}{copy}{line} on which the loss stays below {level:.4g}."
    beyond = "" if row["verdict"] == Verdict.CONNECTED else f", though not below the level {level:.4g}"
    return f"The two are {found}{copy}{beyond}."


def _number(value: float | None) -> float:
    return math.nan if value is None else value
