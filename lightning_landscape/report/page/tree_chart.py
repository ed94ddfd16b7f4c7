"""The merge tree as a chart, with N_u beside it over the same levels."""

from __future__ import annotations

import math

from lightning_landscape.components.merge_tree import MergeTree
from lightning_landscape.report.page.charts import Chart, digits, scale, text
from lightning_landscape.report.style import LINEAR, PATH
from lightning_landscape.report.tree_figure import leaf_order

_NAMED = 30  # points from which names would lie on each other


def tree_chart(tree: MergeTree) -> Chart:
    """Every point is a line that begins at its loss, two lines meet where they are joined; beside it the count.

    Args:
        tree: the merge tree.

    Example:
        >>> chart = tree_chart(MergeTree.from_heights([0.1, 0.2], [[0.1, 0.5], [0.5, 0.2]]))
        >>> chart["data"][0]["y"][:5]
        [0.1, 0.5, 0.5, 0.2, None]
    """
    levels = [float(level) for level in tree.levels()]
    kind = scale(levels)
    low, high = min(levels, default=0.0), max(levels, default=1.0)
    top = high * (high / low) ** 0.1 if kind == "log" else high + 0.1 * ((high - low) or abs(high) or 1.0)
    order = leaf_order(tree)
    place = {leaf: float(x) for x, leaf in enumerate(order)}
    foot = {leaf: float(tree.losses[leaf]) for leaf in order}
    x: list[float | None] = []
    y: list[float | None] = []
    for number, (height, left, right) in enumerate(tree.merges):
        ends, feet = (place.pop(left), place.pop(right)), (foot.pop(left), foot.pop(right))
        x += [ends[0], ends[0], ends[1], ends[1], None]
        y += [feet[0], height, height, feet[1], None]
        place[len(tree.names) + number], foot[len(tree.names) + number] = sum(ends) / 2, height
    for node, stem in place.items():
        x += [stem, stem, None]
        y += [foot[node], top, None]
    counts = [int(tree.num_components(level)) for level in levels]
    names = [text(tree.names[leaf], 60) for leaf in order]
    losses = [float(tree.losses[leaf]) for leaf in order]
    line = {"color": PATH, "width": 2}
    data = [
        {"x": x, "y": y, "mode": "lines", "line": line, "name": "joined", "hoverinfo": "skip", "showlegend": False},
        {
            "x": list(range(len(order))),
            "y": losses,
            "text": [f"{name}<br>loss {digits(loss)}" for name, loss in zip(names, losses, strict=True)],
            "hoverinfo": "text",
            "mode": "markers",
            "marker": {"color": PATH, "size": 9},
            "name": "points",
        },
        _count([*counts, *counts[-1:]], [*levels, top][: len(counts) + 1], "components N_u", "solid"),
    ]
    if tree.proved:
        floors = {float(u) for u in tree.floors.flat if math.isfinite(u)}
        edges = sorted({*levels, *floors})
        fewest = [tree.fewest_components(u) for u in edges]
        data.append(_count([*fewest, *fewest[-1:]], [*edges, top], "proved at least", "dash"))
    ends_of = [name if len(name) <= 14 else f"...{name[-11:]}" for name in (tree.names[leaf] for leaf in order)]
    shown = [text(name) for name in ends_of] if len(order) <= _NAMED else []
    layout = {
        "xaxis": {"domain": [0.0, 0.66], "tickvals": list(range(len(shown))), "ticktext": shown, "tickangle": 90},
        "xaxis2": {"domain": [0.72, 1.0], "title": {"text": "N_u"}, "rangemode": "tozero", "dtick": _tick(counts)},
        "yaxis": {"title": {"text": "loss, level u"}, "type": kind},
        "height": 480,
    }
    return {"data": data, "layout": layout}


def _count(x: list[int], y: list[float], name: str, dash: str) -> Chart:
    line = {"color": LINEAR, "dash": dash, "width": 2, "shape": "vh"}
    return {"x": x, "y": y, "xaxis": "x2", "mode": "lines", "line": line, "name": name}


def _tick(counts: list[int]) -> int:
    return max(1, math.ceil(max(counts, default=1) / 5))
