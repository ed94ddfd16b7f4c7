"""What forks of a run show: the losses between two children, and their barriers by the step of the fork."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_landscape.report.style import LINEAR, PATH, STYLE


def fork_figure(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> Figure:
    """On the left the loss on the straight line between the children of each fork, on the right the barriers.

    Args:
        rows: rows of ``forks.jsonl``; one whose search failed has no profile and is left out.
        title: a line above the figure.

    Returns:
        A figure with three axes, the last for the error on the right of the second; not known to pyplot.
    """
    measured = sorted((row for row in rows if row["reason"] is None), key=lambda row: row["step"])
    with style.context(STYLE):
        figure = Figure(figsize=(9.0, 4.3))
        FigureCanvasAgg(figure)
        lines, barriers = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.09, right=0.92, top=0.84, bottom=0.16, wspace=0.3)
        figure.text(0.09, 0.94, title or "", fontsize=13, parse_math=False)
        shades = colormaps["viridis"](np.linspace(0.0, 0.85, max(1, len(measured))))
        for row, shade in zip(measured, shades, strict=False):
            lines.plot(
                row["loss_profile"]["t"],
                _numbers(row["loss_profile"]["loss"]),
                color=shade,
                label=f"step {row['step']}",
            )
        lines.set_xlabel("t, from one child to the other")
        lines.set_ylabel("loss on the straight line")
        steps = [row["step"] for row in measured]
        loss = barriers.plot(
            steps, _numbers([row["loss_barrier"] for row in measured]), "o-", color=PATH, linewidth=4.0, markersize=9
        )[0]
        barriers.set_xlabel("step of the fork")
        barriers.set_ylabel("loss barrier", color=PATH)
        barriers.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        right = barriers.twinx()
        right.spines.right.set_visible(True)
        right.grid(visible=False)
        percent = [100 * value for value in _numbers([row["error_barrier"] for row in measured])]
        error = right.plot(steps, percent, "s--", color=LINEAR, linewidth=1.8)[0]
        right.set_ylabel("error barrier (percentage points)", color=LINEAR)
        if measured:
            lines.legend(title="fork at", frameon=False, fontsize=10, title_fontsize=10)
            barriers.legend([loss, error], ["loss", "error"], frameon=False)
            low = min(barriers.get_ylim()[0], 0.0), min(right.get_ylim()[0], 0.0)
            barriers.set_ylim(bottom=low[0])
            right.set_ylim(bottom=low[1])
        else:
            lines.text(0.5, 0.5, "no fork was measured", transform=lines.transAxes, ha="center")
    return figure


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
