"""What ``landscape average`` says: a table of models, and one conclusion in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from lightning_landscape.averaging.advice import Advice, advice
from lightning_landscape.averaging.average import Average


def average_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line a model: name, E, and what its own validation logs.

    Args:
        rows: ``name``, ``loss`` and ``metrics`` of each.

    Example:
        >>> table = average_table([{"name": "a.ckpt", "loss": 0.5, "metrics": {"val_loss": 0.6}}])
        >>> [str(cell) for column in table.columns for cell in column.cells]
        ['a.ckpt', '0.5', '0.6']
    """
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("model", overflow="fold")
    for header in ("E", *names):
        table.add_column(header, justify="right")
    for row in rows:
        values = [row["loss"], *(row["metrics"].get(name) for name in names)]
        table.add_row(row["name"], *("-" if value is None else f"{value:.4g}" for value in values))
    table.caption = "E: mean training loss on the batches that define the loss surface"
    table.caption_justify = "left"
    return table


def average_conclusion(found: Average, names: Sequence[str], measure: str, sign: float = 1.0) -> str:
    """What to do with an average, in plain words, with the numbers it rests on.

    Args:
        found: the average.
        names: of its points.
        measure: what the scores are, such as ``val_loss``.
        sign: -1 where the scores are a measure that should be large, with the sign turned.

    Example:
        >>> import torch
        >>> from lightning_landscape.averaging.average import Candidate
        >>> mean = Candidate("uniform", torch.zeros(1), (0.5, 0.5), None, 1.79, 1.79)
        >>> losses = (0.37, 0.38)
        >>> average_conclusion(Average(losses, losses, mean, mean, Advice.AGAINST), ["a.ckpt", "b.ckpt"], "E")
        'Do not average: E of the uniform average of 2 of 2 is 1.79, against 0.37 and 0.38; a.ckpt alone is best.'
    """
    chosen = found.chosen
    ranked = [score if math.isfinite(score) else math.inf for score in found.scores]
    best = names[ranked.index(min(ranked))]
    if not chosen.mixes:
        return f"Nothing to average: {best} alone has a better {measure} than any average tried."
    what = (
        f"the point at {chosen.t:g} of the path"
        if chosen.t is not None
        else f"the {chosen.method} average of {len(chosen.members)} of {len(names)}"
    )
    inside = [found.scores[number] for number in chosen.members] or list(found.scores)
    figures = f"{measure} of {what} is {sign * chosen.score:.4g}, against {_span([sign * score for score in inside])}"
    if found.advice is not Advice.AGAINST:
        but = "" if found.advice is Advice.AVERAGE else f", but {best} alone is better"
        return f"You may average{but}: {figures}.{_on_training(found)}"
    lacking = [name for name, score in zip(names, found.scores, strict=True) if not math.isfinite(score)]
    if lacking:
        return f"Do not average: {measure} of {', '.join(lacking)} is no finite number: leave it out."
    return f"Do not average: {figures}; {best} alone is best."


def _on_training(found: Average) -> str:
    """What the training loss says, where it says the contrary of the scores."""
    loss, ends = found.chosen.loss, [found.losses[number] for number in found.chosen.members] or found.losses
    if found.scores == found.losses or advice(loss, ends) is not Advice.AGAINST:
        return ""
    return f" On training data it is worse: E is {loss:.4g}, against {_span(ends)}."


def _span(values: Sequence[float]) -> str:
    between = "and" if len(values) == 2 else "to"
    return f"{min(values):.4g} {between} {max(values):.4g}"


def running_conclusion(row: Mapping[str, Any]) -> str:
    """What the running average of a run is worth, against its last weights.

    Args:
        row: ``count``, ``steps``, ``loss``, ``last_loss``, ``metrics``, ``last_metrics`` and ``file``.

    Example:
        >>> print(running_conclusion({"count": 5, "steps": [80, 90, 100, 110, 120], "loss": 0.31, "last_loss": 0.33,
        ...                           "metrics": {}, "last_metrics": {}, "file": "average.ckpt"}))
        The average of 5 snapshots, of steps 80 to 120, has E 0.31, the last weights 0.33. You may use average.ckpt.
    """
    if row["count"] == 1:
        return "Nothing to average: no snapshot is linearly connected to the one before without being better alone."
    measure, loss, last = "E", row["loss"], row["last_loss"]
    if name := loss_name(row["metrics"]):
        measure, loss, last = name, row["metrics"][name], row["last_metrics"][name]
    advised = advice(loss, [last])
    use = "Keep the last weights" if advised is Advice.AGAINST else f"You may use {row['file']}"
    span = f"of steps {row['steps'][0]} to {row['steps'][-1]}"
    figures = f"{measure} {loss:.4g}, the last weights {last:.4g}"
    return f"The average of {row['count']} snapshots, {span}, has {figures}. {use}."


def loss_name(metrics: Mapping[str, float]) -> str | None:
    """The metric of a validation that models are judged by: ``val_loss``, or the first that is named a loss.

    Example:
        >>> loss_name({"val_acc": 0.9, "valid/Loss": 0.3})
        'valid/Loss'
    """
    losses = [name for name in metrics if "loss" in name.lower()]
    return "val_loss" if "val_loss" in metrics else losses[0] if losses else None
