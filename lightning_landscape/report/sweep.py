"""What a sweep over a hyperparameter shows: a table, a figure and an answer in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from lightning_landscape.report.style import LEVEL, LINEAR, PATH, STYLE

Rows = Sequence[Mapping[str, Any]]
_PANELS = (
    ("steps", "training steps to the level"),
    ("linear_barrier", "barrier of the straight line"),
    ("height", "height of the found path"),
    ("normalized_length", "length / distance"),
    ("gap", "validation less training loss"),
)


def summarised(values: Sequence[Any], runs: Rows, pairs: Rows) -> list[dict[str, Any]]:
    """For each value of the hyperparameter the mean and the standard deviation of all that was measured.

    Args:
        values: in the order asked for.
        runs: ``value``, ``loss``, ``val_loss`` and ``steps`` to the level of each run; ``None`` where unknown.
        pairs: ``value``, ``connected``, ``linear_barrier``, ``height`` and ``normalized_length`` of each pair.

    Returns:
        Rows with ``NAME`` and ``NAME_std`` for each quantity, ``None`` where nothing was measured; ``connected`` is the
        number of connected pairs of ``pairs``.
    """
    table = []
    for value in values:
        mine, ours = ([row for row in rows if row["value"] == value] for rows in (runs, pairs))
        gaps = [_difference(row["val_loss"], row["loss"]) for row in mine]
        quantities: dict[str, list[float | None]] = {
            **{key: [row[key] for row in mine] for key in ("loss", "val_loss", "steps")},
            **{key: [row[key] for row in ours] for key in ("linear_barrier", "height", "normalized_length")},
            "gap": gaps,
        }
        row: dict[str, Any] = {"value": value, "pairs": len(ours), "connected": sum(row["connected"] for row in ours)}
        row["reached"] = sum(steps is not None for steps in quantities["steps"])
        for key, numbers in quantities.items():
            known = [number for number in numbers if number is not None and math.isfinite(number)]
            row[key] = float(np.mean(known)) if known else None
            row[f"{key}_std"] = float(np.std(known, ddof=1)) if len(known) > 1 else None
        table.append(row)
    return table


def sweep_answer(name: str, level: float, table: Rows) -> str:
    """From which value on all pairs are connected at the level, and where overfitting begins.

    Example:
        >>> rows = [{"value": 2, "pairs": 3, "connected": 1, "val_loss": 0.9, "val_loss_std": 0.1},
        ...         {"value": 8, "pairs": 3, "connected": 3, "val_loss": 0.3, "val_loss_std": 0.02},
        ...         {"value": 32, "pairs": 3, "connected": 3, "val_loss": 0.5, "val_loss_std": 0.03}]
        >>> for sentence in sweep_answer("width", 0.4, rows).split(". "):
        ...     print(sentence)
        From width=8 on all pairs are connected at the level 0.4
        Overfitting begins after width=8, where the validation loss is least: 0.3, and 0.5 at width=32.
    """
    first = None
    for row in reversed(table):
        if row["connected"] < row["pairs"]:
            break
        first = row["value"]
    if first is None:
        last = table[-1]
        said = (
            f"At the level {level:.4g} pairs were not all connected at any end of the sweep: {last['connected']} of "
            f"{last['pairs']} at {name}={last['value']}, which never proves that the others are apart."
        )
    elif first == table[0]["value"]:
        said = f"All pairs are connected at the level {level:.4g}, from {name}={first} on: ask a lower --level."
    else:
        said = f"From {name}={first} on all pairs are connected at the level {level:.4g}."
    return f"{said} {_overfitting(name, table)}"


def _overfitting(name: str, table: Rows) -> str:
    known = [row for row in table if row["val_loss"] is not None]
    if not known:
        return "The module has no validation loss to see overfitting by."
    best = min(known, key=lambda row: row["val_loss"])
    later = known[known.index(best) + 1 :]
    # By more than the spread of both, so that chance between seeds is no overfitting.
    worse = [row for row in later if row["val_loss"] - best["val_loss"] > _spread(row) + _spread(best)]
    if not worse:
        least = f"the validation loss is least at {name}={best['value']}, {best['val_loss']:.4g}"
        return f"No overfitting is seen: {least}{', and rises by no more than its spread' if later else ''}."
    return (
        f"Overfitting begins after {name}={best['value']}, where the validation loss is least: {best['val_loss']:.4g}, "
        f"and {worse[0]['val_loss']:.4g} at {name}={worse[0]['value']}."
    )


def sweep_table(name: str, table: Rows) -> Table:
    """One line a value: connected pairs, steps to the level, barrier, height, length, losses."""
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    headers = (name, "connected", "steps to\nlevel", "linear\nbarrier", "height", "length", "training\nloss", "gap")
    for header in headers:
        drawn.add_column(header, justify="right")
    for row in table:
        keys = ("steps", "linear_barrier", "height", "normalized_length", "loss", "gap")
        cells = ("-" if row[key] is None else f"{row[key]:.4g}" for key in keys)
        drawn.add_row(str(row["value"]), f"{row['connected']} of {row['pairs']}", *cells)
    return drawn


def sweep_figure(name: str, level: float, table: Rows) -> Figure:
    """Five panels over the hyperparameter, means with the standard deviation between seeds as error bars.

    Returns:
        A figure that pyplot does not know.
    """
    values = [row["value"] for row in table]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places: list[Any] = values if numeric else list(range(len(values)))
    with style.context(STYLE):
        figure = Figure(figsize=(13.0, 7.0))
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 3).ravel()
        figure.subplots_adjust(left=0.07, right=0.98, top=0.92, bottom=0.09, wspace=0.28, hspace=0.32)
        for axis, (key, label) in zip(axes, _PANELS, strict=False):
            known = [(x, row[key], row[f"{key}_std"] or 0.0) for x, row in zip(places, table, strict=True)
                     if row[key] is not None]  # fmt: skip
            if known:
                x, mean, spread = zip(*known, strict=True)
                color = LINEAR if key == "linear_barrier" else PATH
                axis.errorbar(x, mean, spread, fmt="o-", color=color, capsize=4, linewidth=1.8)
            if key == "height":
                axis.axhline(level, color=LEVEL, linestyle="--", linewidth=1.2)
            axis.set_title(label, fontsize=12)
            _place(axis, name, places, values, numeric)
        axes[-1].bar(range(len(values)), [row["connected"] / max(1, row["pairs"]) for row in table], color=PATH)
        axes[-1].set_title(f"connected at {level:.4g}, share of pairs", fontsize=12)
        axes[-1].set_ylim(0, 1.05)
        _place(axes[-1], name, list(range(len(values))), values, False)
    return figure


def _place(axis: Any, name: str, places: Sequence[Any], values: Sequence[Any], numeric: bool) -> None:
    if numeric and min(values) > 0 and max(values) > 8 * min(values):
        axis.set_xscale("log")
    axis.set_xticks(places, [str(value) for value in values])
    axis.minorticks_off()
    axis.set_xlabel(name, parse_math=False)


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _spread(row: Mapping[str, Any]) -> float:
    spread: float | None = row["val_loss_std"]
    return spread or 0.0
