"""Five communities that avoid each other, between what is possible and what is known to be easy: one table."""

from __future__ import annotations

import argparse
from typing import BinaryIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.reproduce.community.methods import GraphSet, Row, Trained, measured
from scripts.reproduce.shared.pages import table
from scripts.reproduce.shared.statistics import Error, Mean

# p = 0 and q = 18 / n: degree 4/5 of 18, and the largest SNR that it allows.
DEGREE, RATIO = 14.4, 0.9

PUBLISHED = {"CommunityGNN": 0.17, "LineGraphGNN": 0.207, "BP, known parameters": 0.1435}
INDEPENDENT = {"BetheHessian": 0.209, "AdjacencySpectral": 0.200}  # implementations outside of this project
TARGET = 0.19  # of the line graph network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=400)
    parser.add_argument("--graphs", type=int, default=24)


def measure(options: argparse.Namespace, trained: Trained) -> dict[str, Row]:
    graphs = GraphSet(options.nodes, 5, DEGREE, RATIO, False, options.graphs)
    return measured(graphs, options.methods, trained, options.out / "disassortative")


def markdown(rows: dict[str, Row]) -> str:
    """The table, best first."""
    header = [
        "method", f"overlap, {Error.OF_MEAN.label}", "published", "independent", "parameters", "steps of training",
        "CPU seconds a graph",
        "graphs without convergence",
    ]  # fmt: skip
    lines = [
        [
            name,
            Mean.of(row["overlap"]).text(),
            f"{PUBLISHED[name]:g}" if name in PUBLISHED else "-",
            f"{INDEPENDENT[name]:.3f}" if name in INDEPENDENT else "-",
            f"{row['parameters']:,}" if "parameters" in row else "-",
            f"{row['steps']:,}" if "steps" in row else "-",
            f"{row['cpu_seconds']:.3f}",
            f"{row['unconverged']} of {len(row['overlap'])}",
        ]
        for name, row in sorted(rows.items(), key=lambda item: -Mean.of(item[1]["overlap"]).mean)
    ]
    chance = Mean.of([row["chance"] for row in rows.values()]).mean
    return table(header, lines) + f"\nUniform guessing has an overlap of {chance:.3f}.\n"


def draw(rows: dict[str, Row], file: BinaryIO) -> None:
    """Writes the figure as PNG: the table, and how the networks came there."""
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    overlaps, curves = figure.subplots(1, 2)
    names = sorted(rows, key=lambda name: Mean.of(rows[name]["overlap"]).mean)
    means, errors = zip(*(Mean.of(rows[name]["overlap"]).bar for name in names), strict=True)
    overlaps.errorbar(means, names, xerr=errors, ls="", marker="o", capsize=3, label="here")
    for figures, marker, label in ((PUBLISHED, "s", "published"), (INDEPENDENT, "D", "independent")):
        known = [name for name in names if name in figures]
        if known:
            overlaps.plot([figures[name] for name in known], known, marker, mfc="none", color="0.3", label=label)
    chance = Mean.of([row["chance"] for row in rows.values()]).mean
    overlaps.axvline(chance, color="0.6", ls="--", label="uniform guessing")
    overlaps.set_xlabel("overlap, mean and standard error")
    overlaps.set_xlim(left=0)
    overlaps.legend(fontsize=8, loc="lower left")
    _curves(curves, rows)
    curves.axhline(chance, color="0.6", ls="--")
    figure.savefig(file, format="png", dpi=110)


def _curves(axes: Axes, rows: dict[str, Row]) -> None:
    trained = {name: row["curve"] for name, row in rows.items() if row.get("curve")}
    for name, curve in trained.items():
        axes.plot([int(step) + 1 for step in curve], [*curve.values()], marker=".", label=name)
    axes.axhline(TARGET, color="tab:green", lw=1, ls=":", label=f"aim of the line graph network, {TARGET}")
    axes.set_xlabel("steps of training")
    axes.set_ylabel("overlap on the validation graphs")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
