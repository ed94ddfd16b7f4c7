"""The figure of a task: lengths, beads and what became of the pairs, over the thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from scripts.reproduce.freeman_bruna.published_points import published
from scripts.reproduce.freeman_bruna.summary import Summary
from scripts.reproduce.freeman_bruna.tasks import TASKS
from scripts.reproduce.shared.statistics import Mean

_COLORS = {"faithful": "tab:blue", "strict": "tab:red"}
_REASONS = {"accepted": "0.75", "bead": "tab:orange", "depth": "tab:purple", "budget": "tab:brown"}
_REST = "black"


def draw(task: str, summaries: Sequence[Summary], file: BinaryIO) -> None:
    """Writes the figure as PNG."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    lengths, beads, fates = figure.subplots(1, 3)
    points = published(task)
    for axes, which in ((lengths, 0), (beads, 1)):
        curve = [pair[which] for pair in points.values()]
        axes.plot([*points], [point.mean for point in curve], color="0.4", marker=".", label="published")
        axes.fill_between([*points], [p.lower for p in curve], [p.upper for p in curve], color="0.8")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(TASKS[task].axis)
    lengths.set_ylabel("normalised length")
    beads.set_ylabel("interior beads")
    for mode, color in _COLORS.items():
        mine = [summary for summary in summaries if summary.mode == mode]
        if mine:
            _curve(lengths, mine, [summary.length for summary in mine], color, mode)
            _curve(beads, mine, [summary.beads for summary in mine], color, mode)
            for summary in mine:
                if summary.accepted < summary.pairs and summary.accepted:
                    share = f"{summary.accepted}/{summary.pairs}"
                    where = (summary.threshold, summary.length.mean)
                    lengths.annotate(share, where, (4, 4), textcoords="offset points", fontsize=8, color=color)
    _fates(fates, summaries)
    lengths.legend()
    figure.suptitle(f"{task}: published points (mean and standard error) and ours")
    figure.savefig(file, format="png", dpi=110)


def _curve(axes: Axes, summaries: Sequence[Summary], means: Sequence[Mean], color: str, mode: str) -> None:
    heights, errors = zip(*(mean.bar for mean in means), strict=True)
    thresholds = [summary.threshold for summary in summaries]
    axes.errorbar(thresholds, heights, errors, color=color, marker="o", capsize=3, ls="", label=mode)


def _fates(axes: Axes, summaries: Sequence[Summary]) -> None:
    labels = [f"{summary.mode[0]} {summary.threshold:g}" for summary in summaries]
    kinds = ["accepted", *sorted({reason for summary in summaries for reason in summary.reasons})]
    bottom = [0] * len(summaries)
    for kind in kinds:
        counts = [s.accepted if kind == "accepted" else s.reasons.get(kind, 0) for s in summaries]
        axes.bar(labels, counts, bottom=bottom, color=_REASONS.get(kind, _REST), label=kind)
        bottom = [low + count for low, count in zip(bottom, counts, strict=True)]
    axes.tick_params(axis="x", rotation=60)
    axes.set_xlabel("f: faithful, s: strict")
    axes.set_ylabel("pairs")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
