"""Cost against layers and iterations: the table and the figure of a data set, ISTA and FISTA always beside."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from scripts.reproduce.shared import pages
from scripts.reproduce.sparse_coding.reference import Reference
from scripts.reproduce.sparse_coding.training import NETWORKS, Row, training_of

NAMES = {
    "lista": "LISTA",
    "l_fista": "L-FISTA",
    "facnet": "FacNet",
    "lista_cp": "LISTA-CP",
    "alista": "ALISTA",
    "tilista": "TiLISTA",
    "slista": "SLISTA",
}
# Okabe and Ito's colours, with a marker each.
_MARKS = {
    "lista": ("#0072B2", "o"),
    "l_fista": ("#009E73", "s"),
    "facnet": ("#D55E00", "D"),
    "lista_cp": ("#CC79A7", "^"),
    "alista": ("#56B4E9", "v"),
    "tilista": ("#E69F00", "P"),
    "slista": ("#882255", "*"),
}
_SAID_FROM = 7  # layers
_SOLVERS = {"ista": ("ISTA", "-"), "fista": ("FISTA", "--")}


def table(rows: Sequence[Row], reference: Reference) -> str:
    """Markdown: a trained network a row, with what ISTA and FISTA reach in as many iterations."""
    header = [
        "network", "layers", "mean F", "F - F*", "ISTA, as many", "FISTA, as many", "worth ISTA", "worth FISTA",
        "parameters", "epochs", "CPU s",
    ]  # fmt: skip
    lines = []
    for row in _sorted(rows):
        training = training_of(row)
        depth = training.depth
        cells = [
            NAMES[training.network],
            f"{depth}",
            f"{row['objective']:.4f}",
            f"{row['layers'][-1]:.3g}",
            f"{reference.ista[depth] - reference.optimum:.3g}",
            f"{reference.fista[depth] - reference.optimum:.3g}",
            worth(row, "ista", reference),
            worth(row, "fista", reference),
            f"{row['parameters']}",
            f"{training.epochs[-1]}",
            f"{row['cpu_seconds']:.0f}",
        ]
        lines.append(cells)
    return pages.table(header, lines)


def conclusions(rows: Sequence[Row], reference: Reference) -> list[str]:
    """Sentences: what LISTA is worth, and where FacNet lies, at every depth that both have."""
    above = {(training_of(row).network, _depth(row)): row["layers"][-1] for row in rows}
    said = [
        f"LISTA with {_depth(row)} layers is worth {worth(row, 'ista', reference)} iterations of ISTA and "
        f"{worth(row, 'fista', reference)} of FISTA."
        for row in _sorted(rows)
        if training_of(row).network == "lista" and _depth(row) >= _SAID_FROM
    ]
    places: dict[str, list[int]] = {}
    for network, depth in sorted(above):
        if network == "facnet" and ("lista", depth) in above:
            facnet, lista = above[network, depth], above["lista", depth]
            ista = reference.ista[depth] - reference.optimum
            place = "between ISTA and LISTA" if facnet < ista else "above ISTA"
            if facnet <= lista:
                place = "below LISTA"
            places.setdefault(place, []).append(depth)
    said += [f"FacNet lies {place} at K = {', '.join(map(str, depths))}." for place, depths in places.items()]
    return said


def worth(row: Row, solver: str, reference: Reference) -> str:
    """How many iterations the solver needs for the same mean F, in words."""
    count: int | None = row[solver]
    return f"over {len(getattr(reference, solver)) - 1}" if count is None else f"{count}"


def figure(rows: Sequence[Row], reference: Reference, title: str) -> Figure:
    """Left: mean F - F* of each network against its depth. Right: the iterations of ISTA it is worth."""
    drawn = Figure(figsize=(11.5, 4.6), layout="constrained")
    FigureCanvasAgg(drawn)
    cost, value = drawn.subplots(1, 2)
    most = max(row["ista"] or len(reference.ista) - 1 for row in rows)
    shown = min(len(reference.ista), round(1.2 * most) + 1)
    for name, (label, dashes) in _SOLVERS.items():
        curve: list[float] = getattr(reference, name)[1:shown]
        above = [value - reference.optimum for value in curve]
        cost.plot(range(1, shown), above, dashes, color="0.35", linewidth=1.8, label=label)
        same = [_first(reference.ista, reached) for reached in getattr(reference, name)[: shown + 1]]
        value.plot(range(len(same)), same, dashes, color="0.35", linewidth=1.8)
    for network, group in groupby(_sorted(rows), key=lambda row: row["training"]["network"]):
        mine = [*group]
        color, marker = _MARKS[network]
        depths = [_depth(row) for row in mine]
        style = {"color": color, "marker": marker, "markersize": 6, "linewidth": 1.4}
        cost.plot(depths, [row["layers"][-1] for row in mine], label=NAMES[network], **style)
        value.plot(depths, [row["ista"] or len(reference.ista) - 1 for row in mine], **style)
    least = min(row["layers"][-1] for row in rows)
    cost.set_ylim(bottom=least / 2)
    for axes in (cost, value):
        axes.set_xscale("log")
        axes.set_yscale("log")
    deepest = max(_depth(row) for row in rows)
    value.set_xlim(0.9, 2 * deepest)
    value.set_ylim(0.9, 1.3 * most)
    _plain_ticks(cost.xaxis, shown)
    _plain_ticks(value.xaxis, 2 * deepest)
    _plain_ticks(value.yaxis, round(1.3 * most))
    cost.set_xlabel("layers of a network, iterations of a solver")
    cost.set_ylabel("mean F - F*")
    value.set_xlabel("layers, iterations")
    value.set_ylabel("iterations of ISTA to the same mean F")
    drawn.legend(*cost.get_legend_handles_labels(), loc="outside right center")
    drawn.suptitle(title, x=0.01, ha="left")
    return drawn


def _first(curve: Sequence[float], value: float) -> float:
    return next((float(count) for count, reached in enumerate(curve) if reached <= value), float("nan"))


def _plain_ticks(axis: Axis, end: int) -> None:
    ticks = [tick for tick in (1, 2, 3, 5, 7, 12, 20, 50, 100, 200, 500, 1000, 2000, 5000) if tick <= end]
    axis.set_ticks(ticks, labels=[str(tick) for tick in ticks])
    axis.set_minor_locator(NullLocator())


def _depth(row: Row) -> int:
    return training_of(row).depth


def _sorted(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (NETWORKS.index(row["training"]["network"]), _depth(row)))
