"""Two communities in graphs of average degree 3: overlap of every method against the signal-to-noise ratio."""

from __future__ import annotations

import argparse
from typing import BinaryIO

from matplotlib.figure import Figure

from scripts.reproduce.community.methods import NETWORKS, GraphSet, Row, Trained, measured
from scripts.reproduce.shared.pages import table
from scripts.reproduce.shared.statistics import Error, Mean

RATIOS = (0.5, 0.8, 1.0, 1.17, 1.33, 1.69, 2.08, 2.52, 3.0)

# Of implementations that share no code with this project, n = 1000, 12 graphs.
INDEPENDENT = {
    "BetheHessian": {2.52: 0.859, 2.08: 0.763, 1.69: 0.620, 1.33: 0.329},
    "BP, known parameters": {2.52: 0.897, 2.08: 0.811, 1.69: 0.693, 1.33: 0.421},
}
_STYLES = {
    "BP, known parameters": ("black", "-"),
    "BP, learned parameters": ("black", ":"),
    "CommunityGNN": ("tab:red", "-"),
    "BetheHessian": ("tab:blue", "-"),
    "NonBacktrackingSpectral": ("tab:cyan", "-"),
    "ProjectedPowerIteration": ("tab:blue", ":"),
    "BurerMonteiro": ("tab:green", "-"),
    "AdjacencySpectral": ("tab:orange", "-"),
    "LaplacianSpectral": ("tab:brown", "-"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ratios", type=float, nargs="+", default=[*RATIOS], metavar="SNR", help="0 to 3, the degree")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--graphs", type=int, default=12, help="at each SNR (12)")


def measure(options: argparse.Namespace, trained: Trained) -> dict[float, dict[str, Row]]:
    rows = {}
    for ratio in options.ratios:
        graphs = GraphSet(options.nodes, 2, 3.0, ratio, True, options.graphs)
        rows[ratio] = measured(graphs, options.methods, trained, options.out / "overlap")
    return rows


def markdown(rows: dict[float, dict[str, Row]]) -> str:
    """The table of ours, the comparison with independent figures, and what a graph costs."""
    names = list(next(iter(rows.values())))
    ratios = sorted(rows)
    ours = [[name, *(Mean.of(rows[ratio][name]["overlap"]).text() for ratio in ratios)] for name in names]
    chance = ["uniform guessing", *(f"{next(iter(rows[ratio].values()))['chance']:.3f}" for ratio in ratios)]
    text = table(["method", *(f"SNR {ratio:g}" for ratio in ratios)], [*ours, chance])
    text += f"\nOverlaps: {Error.OF_MEAN.label} over the graphs.\n"
    beside = [
        [name, f"{ratio:g}", f"{figure:.3f}", f"{mean:.3f}", f"{mean - figure:+.3f}"]
        for name, figures in INDEPENDENT.items()
        for ratio, figure in figures.items()
        if name in names and ratio in rows
        for mean in [Mean.of(rows[ratio][name]["overlap"]).mean]
    ]
    text += "\n" + table(["method", "SNR", "independent", "here", "difference"], beside)
    networks = [name for name in names if name in NETWORKS["overlap"]]
    against = [
        [name, f"{ratio:g}", f"{mine:.3f}", f"{known:.3f}", f"{mine - known:+.3f}"]
        for name in networks
        for ratio in ratios
        if "BP, known parameters" in names
        for mine, known in [[Mean.of(rows[ratio][one]["overlap"]).mean for one in (name, "BP, known parameters")]]
    ]
    if against:
        text += "\n" + table(["network", "SNR", "overlap", "BP, known parameters", "difference"], against)
    for name in networks:
        row = rows[ratios[0]][name]
        text += f"\n{name}: {row['parameters']:,} parameters, checkpoint after {row['steps']:,} steps of training.\n"
    costs = [[name, *_costs([rows[ratio][name] for ratio in ratios])] for name in names]
    return text + "\n" + table(["method", "CPU seconds a graph", "graphs without convergence"], costs)


def _costs(rows: list[Row]) -> list[str]:
    seconds = Mean.of([row["cpu_seconds"] for row in rows]).mean
    return [
        f"{seconds:.3f}",
        f"{sum(row['unconverged'] for row in rows)} of {sum(len(row['overlap']) for row in rows)}",
    ]


def draw(rows: dict[float, dict[str, Row]], file: BinaryIO) -> None:
    """Writes the figure as PNG."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    ratios = sorted(rows)
    for name in next(iter(rows.values())):
        color, dashes = _STYLES[name]
        means, errors = zip(*(Mean.of(rows[ratio][name]["overlap"]).bar for ratio in ratios), strict=True)
        axes.errorbar(ratios, means, errors, color=color, ls=dashes, marker=".", capsize=2, label=name)
        if name in INDEPENDENT:
            points = INDEPENDENT[name]
            axes.plot([*points], [*points.values()], "o", mfc="none", color=color, ms=9)
    axes.plot([], [], "o", mfc="none", color="0.3", ms=9, label="independent figures")
    chances = [next(iter(rows[ratio].values()))["chance"] for ratio in ratios]
    axes.plot(ratios, chances, color="0.6", ls="--", label="uniform guessing")
    axes.axvline(1, color="0.6", lw=1)
    axes.annotate("threshold", (1, 0.97), (3, 0), textcoords="offset points", color="0.4")
    axes.set_xlabel("SNR")
    axes.set_ylabel("overlap, mean and standard error")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(fontsize=8)
    figure.savefig(file, format="png", dpi=110)
