"""The disconnectivity graph of a merge tree, and beside it the number of components at each level."""

from __future__ import annotations

import math

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_landscape.components.merge_tree import Array, MergeTree
from lightning_landscape.report.style import LINEAR, LOG_DECADES, PATH, STYLE

_NAME = 21  # characters of a name that are shown
_LINE = 60  # characters that fit under the graph side by side
_CROWDED = 40  # points from which names would lie on each other


def tree_figure(tree: MergeTree, title: str | None = None) -> Figure:
    """Draws a tree: every point is a line that begins at its loss, two lines meet where they are joined.

    Lines that are never joined run to the upper edge. Points whose loss is not finite are counted in the note
    and not drawn. The axis of levels is logarithmic where it spans more than 1.5 decades.

    Args:
        tree: the merge tree that is drawn.
        title: a line above the figure.

    Returns:
        A figure with two axes that share the axis of levels, not known to pyplot.
    """
    with style.context(STYLE):
        figure = Figure(figsize=(8.0, 5.8))
        FigureCanvasAgg(figure)
        graph, count = figure.subplots(1, 2, sharey=True, width_ratios=[2.4, 1.0])
        figure.subplots_adjust(left=0.11, right=0.97, top=0.85, bottom=0.36, wspace=0.08)
        figure.text(0.11, 0.96, title or "", fontsize=13, parse_math=False)
        levels = tree.levels()
        top = _scale(graph, levels)
        _draw_graph(graph, tree, top)
        _draw_count(count, tree, levels, top)
        if tree.proved:
            _draw_fewest(count, tree, levels, top)
        note = "Heights are upper bounds: lines that meet are connected there; lines apart may be connected lower."
        left_out = int((~np.isfinite(tree.losses)).sum())
        if left_out:
            note += f"\n{left_out} of {len(tree.names)} points left out: the loss is not finite."
        figure.text(0.11, 0.87, note, fontsize=9.5, color="#303030", va="bottom")
    return figure


def _draw_graph(axes: Axes, tree: MergeTree, top: float) -> None:
    order = leaf_order(tree)
    place: dict[int, float] = {leaf: float(x) for x, leaf in enumerate(order)}
    foot = {leaf: float(tree.losses[leaf]) for leaf in order}
    for number, (height, left, right) in enumerate(tree.merges):
        x, y = (place.pop(left), place.pop(right)), (foot.pop(left), foot.pop(right))
        axes.plot([x[0], x[0], x[1], x[1]], [y[0], height, height, y[1]], color=PATH, linewidth=2.2)
        place[len(tree.names) + number], foot[len(tree.names) + number] = (x[0] + x[1]) / 2, height
    for node, stem in place.items():
        axes.plot([stem, stem], [foot[node], top], color=PATH, linewidth=2.2)
    axes.plot(range(len(order)), tree.losses[order], "o", color=PATH, markersize=6)
    for height, *_ in tree.merges:
        axes.axhline(height, color="#D0D0D0", linewidth=0.8, zorder=0)
    axes.set_xlim(-0.6, max(len(order), 1) - 0.4)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("loss, level u")
    names = [tree.names[leaf] for leaf in order] if len(order) <= _CROWDED else []
    # The end of a name tells more: paths and snapshots of one run begin alike.
    shown = [name if len(name) <= _NAME else f"...{name[3 - _NAME :]}" for name in names]
    upright = sum(map(len, shown)) > _LINE
    axes.set_xticks(range(len(shown)), shown, rotation=90 if upright else 0, fontsize=9, parse_math=False)
    if not order:
        axes.text(0.5, 0.5, "no point has a finite loss", transform=axes.transAxes, ha="center")


def _draw_count(axes: Axes, tree: MergeTree, levels: Array, top: float) -> None:
    edges = np.append(levels, top)
    counts = np.append(0, tree.num_components(levels))
    axes.stairs(counts[1:], edges, orientation="horizontal", baseline=None, color=LINEAR, linewidth=2.2)
    axes.set_xlim(0, 1.1 * max(1, int(counts.max())))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("components among\nthe points, $N_u$")


def _draw_fewest(axes: Axes, tree: MergeTree, levels: Array, top: float) -> None:
    """The proved lower bound of N_u, which falls at floors too, dashed."""
    edges = np.unique([*levels, *tree.floors[np.isfinite(tree.floors)], top])
    counts = [tree.fewest_components(float(u)) for u in edges[:-1]]
    axes.stairs(counts, edges, orientation="horizontal", baseline=None, color=LINEAR, linewidth=1.4, linestyle="--")
    axes.set_xlabel("components among the points,\n$N_u$; dashed: proved at least")


def leaf_order(tree: MergeTree) -> list[int]:
    """The points with a loss, each next to those it is joined with first, the lower side of a merge on the left."""
    groups = {index: [index] for index in range(len(tree.names)) if math.isfinite(tree.losses[index])}
    for number, merge in enumerate(tree.merges):
        sides = [groups.pop(merge.left), groups.pop(merge.right)]
        sides.sort(key=lambda side: tree.losses[side].min())
        groups[len(tree.names) + number] = sides[0] + sides[1]
    return [leaf for group in groups.values() for leaf in group]


def _scale(axes: Axes, levels: Array) -> float:
    """Fixes the axis of levels around what is drawn, and gives its upper edge."""
    if not levels.size:
        return 1.0
    low, high = float(levels[0]), float(levels[-1])
    decades = math.log10(high) - math.log10(low) if low > 0 else 0.0
    if decades > LOG_DECADES:
        axes.set_yscale("log")
        factor = math.pow(10.0, 0.12 * decades)
        axes.set_ylim(low / factor, high * factor)
        return high * factor
    reach = 0.12 * ((high - low) or abs(high) or 1.0)
    axes.set_ylim(low - reach, high + reach)
    return high + reach
