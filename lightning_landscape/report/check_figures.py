"""Figures of a check and of the history of checks.

Drawn with matplotlib's object interface on the Agg canvas: pyplot, its current figure and the
``rcParams`` of the user's session stay as they are, and no random numbers are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import patheffects, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lightning_landscape.connection import Connection, Verdict, outcome
from lightning_landscape.path import Profile
from lightning_landscape.report.style import LEVEL, LINEAR, LINEAR_DASHES, LOG_DECADES, NOT_FOUND, PATH, STYLE, Array

CROWDED = 30  # checks from which single markers would merge into a blot


class Curve(NamedTuple):
    """A labelled line: x and y of shape (n,), where y is NaN wherever there is no finite number."""

    x: Array
    y: Array
    label: str
    color: str


def profile_figure(connection: Connection, title: str | None = None) -> Figure:
    """Losses along the straight segment and along the found path, with the level.

    The axis is t, arc length / length, of each of the two; the loss axis is logarithmic when what it
    shows spans more than 1.5 decades. Heights are ringed, beads are dots (only where the connection
    still holds its path), and losses that are not finite leave a gap.

    Args:
        connection: the outcome of a search.
        title: a line above the verdict.

    Returns:
        A figure with one axes, not known to pyplot.

    Example:
        >>> line = Profile((0.0, 0.5, 1.0), (0.1, 0.2, 0.1))
        >>> figure = profile_figure(Connection(
        ...     Verdict.CONNECTED, None, path=None, level=0.3, loss_a=0.1, loss_b=0.1, linear_height=0.2,
        ...     linear_barrier=0.1, height=0.2, barrier=0.1, length=1.0, normalized_length=1.0, num_beads=0,
        ...     gradient_steps=0, loss_evaluations=3, work=1.0, seconds=0.1, profile=line, linear_profile=line))
        >>> figure.axes[0].get_title(loc="left")
        'connected: height 0.2 <= level 0.3'
    """
    with style.context(STYLE):
        figure, (axes,) = _canvas([1.0], right=0.86, title=title)
        curves = [_curve(connection.profile, "found path", PATH)]
        if connection.num_beads:
            curves.insert(0, _curve(connection.linear_profile, "straight line", LINEAR))
            axes.plot(curves[0].x, curves[0].y, color=LINEAR, dashes=LINEAR_DASHES)
        else:
            curves[0] = curves[0]._replace(label="straight line, the path found")
        path = curves[-1]
        axes.plot(path.x, path.y, color=PATH)
        if connection.path is not None and connection.num_beads and path.x.size:
            knots = connection.path.knots.numpy()[1:-1]
            axes.plot(knots, np.interp(knots, path.x, path.y), "o", color=PATH, markersize=5)
        axes.axhline(connection.level, color=LEVEL, linestyle="--", linewidth=1.8)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("t  (arc length / length)")
        axes.set_ylabel("loss")
        axes.set_title(_outcome(connection), loc="left", fontsize=13, fontweight="bold", parse_math=False)
        _scale_losses(axes, [*(curve.y for curve in curves), np.array([connection.level])])
        _margin_labels(axes, [(connection.level, f"level\n{connection.level:.3g}", LEVEL)])
        _label_heights(axes, [curve for curve in curves if np.isfinite(curve.y).any()], connection.level)
    return figure


def history_figure(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> Figure:
    """Level, heights and normalised length over the checks of a run.

    Above: level, linear height and height; a dot is ``connected``, a cross undecided, and a check
    without a finite height has its cross and reason at the foot of the axes. Below: normalised length,
    with the number of beads above the points. The axis is the epoch, or the step where two checks
    share an epoch.

    Args:
        rows: rows of ``checks.jsonl``, oldest first; ``None`` stands for a number that is not finite.
        title: a line above the figure.

    Returns:
        A figure with two axes, not known to pyplot.

    Raises:
        ValueError: if ``rows`` is empty.
    """
    if not rows:
        raise ValueError("rows is empty: there is no history before the first check; pass at least one row")
    few = len(rows) <= CROWDED
    with style.context(STYLE):
        figure, (above, below) = _canvas([1.7, 1.0], right=0.78, title=title)
        axis, x = _history_axis(rows)
        level = Curve(x, _numbers(rows, "level"), "level", LEVEL)
        linear = Curve(x, _numbers(rows, "linear_height"), "straight line", LINEAR)
        height = Curve(x, _numbers(rows, "height"), "found path", PATH)
        above.plot(x, level.y, color=LEVEL, linestyle="--", linewidth=1.8, marker="." if few else None)
        above.plot(x, linear.y, color=LINEAR, dashes=LINEAR_DASHES, marker="s" if few else None, markersize=5)
        above.plot(x, height.y, color=PATH)
        above.set_ylabel("height (loss)")
        _scale_losses(above, [level.y, linear.y, height.y])
        _mark_verdicts(above, rows, height, markersize=8 if few else 4)
        _margin_labels(above, [(_last(curve.y), curve.label, curve.color) for curve in (linear, level, height)])

        length = _numbers(rows, "normalized_length")
        below.plot(x, length, color=PATH, marker="o" if few else None, markersize=5)
        for index in range(len(rows) - 1, -1, -math.ceil(len(rows) / 12)):
            if math.isfinite(length[index]):
                text = str(rows[index]["num_beads"])
                below.annotate(text, (x[index], length[index]), (0, 7), textcoords="offset points", ha="center")
        below.text(1.02, 0.5, "numbers:\nbeads on\nthe path", transform=below.transAxes, va="center", fontsize=10)
        below.set_ylabel("normalised\nlength")
        below.set_xlabel(axis)
        # A path is never shorter than the segment, so 1 is the floor of the axis.
        below.set_ylim(0.98, max(1.1, 1 + 1.35 * (np.nanmax([*length, 1.0]) - 1)))
        spread = float(np.ptp(x)) or 1.0
        below.set_xlim(x.min() - 0.06 * spread, x.max() + 0.06 * spread)
        below.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        figure.align_ylabels()
    return figure


def _canvas(heights: list[float], right: float, title: str | None) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(7.0, 3.4 + sum(heights) ** 0.7))
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    figure.subplots_adjust(left=0.14, right=right, top=0.85, bottom=0.14, hspace=0.16)
    # A name such as "cost $1" is text, not mathematics.
    figure.text(0.14, 0.95, title or "", fontsize=13, parse_math=False)
    return figure, list(axes[:, 0])


def _curve(profile: Profile, label: str, color: str) -> Curve:
    y = np.array(profile.loss, dtype=np.float64)
    return Curve(np.array(profile.t, dtype=np.float64), np.where(np.isfinite(y), y, np.nan), label, color)


def _numbers(rows: Sequence[Mapping[str, Any]], key: str) -> Array:
    return np.array([math.nan if row[key] is None else row[key] for row in rows], dtype=np.float64)


def _last(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else math.nan


def _history_axis(rows: Sequence[Mapping[str, Any]]) -> tuple[str, Array]:
    for key in ("epoch", "step"):
        x = _numbers(rows, key)
        if np.isfinite(x).all() and len(np.unique(x)) == len(x):
            return key, x
    return "check", _numbers(rows, "check")


def _outcome(connection: Connection) -> str:
    verdict = outcome(connection.verdict, connection.reason)
    if connection.message:
        return f"{verdict}: {' '.join(connection.message.split())[:36]}"
    if not math.isfinite(connection.height):
        return f"{verdict}: the height is not finite"
    # Three digits, or as many more as tell the two apart.
    for digits in range(3, 17):
        height, level = f"{connection.height:.{digits}g}", f"{connection.level:.{digits}g}"
        if height != level:
            break
    return f"{verdict}: height {height} {'<=' if connection.connected else '>'} level {level}"


def _scale_losses(axes: Axes, values: Sequence[Array]) -> None:
    """Fix the loss axis around all finite values, logarithmic when they span over 1.5 decades."""
    losses = np.concatenate(values)
    losses = losses[np.isfinite(losses)]
    if not losses.size:
        axes.text(0.5, 0.5, "no finite loss was measured", transform=axes.transAxes, ha="center", color=NOT_FOUND)
        axes.set_yticks([])
        return
    low, high = float(losses.min()), float(losses.max())
    decades = math.log10(high) - math.log10(low) if low > 0 else 0.0
    if decades > LOG_DECADES:
        axes.set_yscale("log")
        axes.set_ylim(low / 10 ** (0.12 * decades), high * 10 ** (0.2 * decades))
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        margin = (high - low) or 0.5 * abs(high) or 0.5
        axes.set_ylim(low - 0.12 * margin, high + 0.2 * margin)


def _margin_labels(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write (y, text, colour) right of the axes at y, lowest first, pushed apart where they would overlap."""
    floor = 0.0
    for y, text, color in sorted(label for label in labels if math.isfinite(label[0])):
        floor = max(floor, axes.transAxes.inverted().transform(axes.transData.transform((0.0, y)))[1])
        axes.text(1.02, floor, text, transform=axes.transAxes, va="center", color=color, fontweight="bold")
        floor += 0.11


def _mark_verdicts(axes: Axes, rows: Sequence[Mapping[str, Any]], height: Curve, markersize: int) -> None:
    connected = np.array([row["verdict"] == Verdict.CONNECTED for row in rows])
    measured = np.isfinite(height.y)
    foot = axes.get_xaxis_transform()
    if connected.any():
        axes.plot(height.x[connected], height.y[connected], "o", color=PATH, markersize=markersize, label="connected")
    if not connected.all():
        x = height.x[~connected]
        # Twice: at its height, and at the foot of the axes where it has none.
        y, absent = height.y[~connected], np.where(measured[~connected], np.nan, 0.06)
        cross = axes.plot(x, y, "X", color=NOT_FOUND, markersize=markersize + 2, markeredgecolor="white", zorder=4)[0]
        cross.set_label("undecided")
        axes.plot(x, absent, "X", color=NOT_FOUND, markersize=markersize + 2, markeredgecolor="white", transform=foot)
    reasons = [None if ok else row["reason"] for ok, row in zip(measured, rows, strict=True)]
    for x, reason, before in zip(height.x, reasons, [None, *reasons], strict=False):
        if reason != before and reason is not None:
            axes.text(x, 0.13, reason, transform=foot, ha="center", color=NOT_FOUND, fontsize=10)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=2, frameon=False, handletextpad=0.1)


def _label_heights(axes: Axes, curves: Sequence[Curve], level: float) -> None:
    """Ring each height and write the line's name and height where it hides least of the lines."""
    t = np.linspace(0.0, 1.0, 600)
    drawn = [np.full_like(t, level)] if math.isfinite(level) else []
    drawn += [np.interp(t, curve.x[np.isfinite(curve.y)], curve.y[np.isfinite(curve.y)]) for curve in curves]
    taken = np.concatenate([axes.transData.transform(np.stack([t, y], axis=1)) for y in drawn]) if drawn else t[:0]
    for curve in curves:
        top = int(np.nanargmax(curve.y))
        height = (float(curve.x[top]), float(curve.y[top]))
        axes.plot(*height, "o", color="white", markeredgecolor=curve.color, markeredgewidth=2.2, markersize=9, zorder=4)
        text = axes.annotate(f"{curve.label}\n{height[1]:.3g}", height, (0, 0), textcoords="offset points")
        text.set(ha="center", va="center", color=curve.color, fontweight="bold", zorder=5)
        text.set_path_effects([patheffects.withStroke(linewidth=3, foreground="white")])
        taken = np.concatenate([taken, _move_clear(axes, text, taken)])


def _move_clear(axes: Axes, text: Annotation, taken: Array) -> Array:
    """Move ``text`` to the best offset from its anchor; return pixels, shape (n, 2), that cover its place."""
    frame = axes.get_window_extent()

    def cost(offset: tuple[float, float]) -> float:
        text.set_position(offset)
        box = text.get_window_extent().padded(6)
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        hidden = np.all((taken >= box.min) & (taken <= box.max), axis=1).sum()
        return float(hidden + 0.6 * math.hypot(*offset) + (0 if inside else 1000))

    angles = np.radians([90, 270, 45, 135, 315, 225, 0, 180])
    offsets = [(1.9 * r * math.cos(angle), r * math.sin(angle)) for r in (26, 40, 60, 85) for angle in angles]
    text.set_position(min(offsets, key=cost))
    box = text.get_window_extent()
    corners = np.meshgrid(np.linspace(box.x0, box.x1, 40), np.linspace(box.y0, box.y1, 20))
    return np.stack(corners, axis=-1).reshape(-1, 2)
