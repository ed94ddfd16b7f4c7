"""Charts of checks as plain values that plotly.js draws: heights over training, and the losses along one path.

Text that a file brings is escaped here, because plotly reads HTML in labels.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_landscape.connection import Reason, Verdict, outcome
from lightning_landscape.report.page.records import Row, number, numbers
from lightning_landscape.report.style import LEVEL, LINEAR, LOG_DECADES, NOT_FOUND, PATH

Chart = dict[str, Any]

# Each verdict and each reason has a shape of its own, so that grey paper tells them apart.
_SHAPES: dict[str, str] = {
    Verdict.CONNECTED: "circle",
    Verdict.SEPARATED: "diamond",
    Reason.ENDPOINT: "triangle-up",
    Reason.DEPTH: "triangle-down",
    Reason.BEAD: "star",
    Reason.BUDGET: "x",
    Reason.DIVERGED: "cross",
    Reason.ERROR: "hourglass",
}
_COLORS: dict[str, str] = {Verdict.CONNECTED: PATH, Verdict.SEPARATED: "#000000"}
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_SERIES = (PATH, LINEAR, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito


def text(value: Any, most: int = 300) -> str:
    """A value as a label of a chart may hold it: cut off, and with nothing that plotly reads as HTML.

    Example:
        >>> text("<b>a & b")
        '&lt;b&gt;a &amp; b'
    """
    said = str(value)
    return html.escape(said if len(said) <= most else said[: most - 3] + "...", quote=False)


def said_of(row: Mapping[str, Any]) -> str:
    """The verdict of a row in words, whatever the row holds.

    Example:
        >>> said_of({"verdict": "not_found", "reason": "budget"}), said_of({})
        ('undecided: budget spent', 'undecided')
    """
    try:
        return outcome(str(row.get("verdict")), row.get("reason"))
    except (ValueError, TypeError):
        return "undecided"


def digits(value: float | None) -> str:
    """Four significant digits, a dash for what was not measured."""
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def history_chart(rows: Sequence[Row]) -> Chart:
    """Heights with the level, barriers, and distance with length, over the steps of training.

    The marks of the found path are the verdicts; each carries the place of its row for a click.

    Args:
        rows: of ``checks.jsonl``, at least one.
    """
    steps = numbers(rows, "step")
    height, level, linear = (numbers(rows, key) for key in ("height", "level", "linear_height"))
    measured = [value for value in (*height, *level, *linear) if value is not None]
    foot = min(measured, default=0.0)
    hover = [
        f"check {text(row.get('check'))}, epoch {text(row.get('epoch'))}, step {text(row.get('step'))}<br>"
        f"{text(said_of(row))}<br>height {digits(number(row.get('height')))}, level {digits(number(row.get('level')))}"
        for row in rows
    ]
    traces = [
        _line(steps, level, "level", LEVEL, "dash"),
        _line(steps, linear, "straight line", LINEAR, "dot", symbol="square-open"),
        _line(steps, height, "found path", PATH, "solid"),
    ]
    outcomes: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        outcomes.setdefault(said_of(row), []).append(place)
    for said, places in outcomes.items():
        row = rows[places[0]]
        kind = str(row.get("reason") or row.get("verdict"))
        traces.append(
            {
                "x": [steps[place] for place in places],
                "y": [foot if height[place] is None else height[place] for place in places],
                "customdata": places,
                "text": [hover[place] + ("<br>no finite height" if height[place] is None else "") for place in places],
                "hoverinfo": "text",
                "name": text(said),
                "mode": "markers",
                "marker": {
                    "symbol": _SHAPES.get(kind, "x"),
                    "color": _COLORS.get(kind, NOT_FOUND),
                    "size": 12,
                    "line": {"color": "white", "width": 1},
                },
            }
        )
    lower = [
        (_line(steps, numbers(rows, "linear_barrier"), "straight line", LINEAR, "dot", symbol="square-open"), 2),
        (_line(steps, numbers(rows, "barrier"), "found path", PATH, "solid", symbol="circle"), 2),
        (_line(steps, [distance(row) for row in rows], "distance", LINEAR, "dot", symbol="square-open"), 3),
        (_line(steps, numbers(rows, "length"), "length of the path", PATH, "solid", symbol="circle"), 3),
    ]
    for trace, panel in lower:
        known = any(trace["name"] == other["name"] for other in traces)
        traces.append(trace | {"yaxis": f"y{panel}", "showlegend": not known})
    layout = {
        "xaxis": {"title": {"text": "step of training"}, "anchor": "y3"},
        "yaxis": {"title": {"text": "height (loss)"}, "domain": [0.5, 1.0], "type": scale(measured)},
        "yaxis2": {"title": {"text": "barrier"}, "domain": [0.25, 0.44]},
        "yaxis3": {"title": {"text": "distance"}, "domain": [0.0, 0.19], "rangemode": "tozero"},
        "height": 680,
    }
    return {"data": traces, "layout": layout}


def profile_chart(row: Mapping[str, Any]) -> Chart:
    """The losses along the found path and along the straight line, their samples, the level and the proved bound.

    Args:
        row: of a check, or ``connection.json``.
    """
    level = number(row.get("level"))
    line, path, proved = (_profile(row.get(key)) for key in ("linear_profile", "profile", "proved_profile"))
    straight = not number(row.get("num_beads")) > 0
    traces = [
        _line(*line, "straight line", LINEAR, "dot", symbol="square-open"),
        _line(*path, "straight line, the path found" if straight else "found path", PATH, "solid", symbol="circle"),
    ][straight:]
    if proved[0]:
        bounds = [proved[1][0], *proved[1]]
        traces.append(_line([0.0, *proved[0]], bounds, "proved bound", LEVEL, "solid") | {"line": _STAIRS})
    if not math.isnan(level):
        traces.append(_line([0.0, 1.0], [level, level], f"level {digits(level)}", LEVEL, "dash"))
    losses = [value for trace in traces for value in trace["y"] if value is not None]
    layout = {
        "xaxis": {"title": {"text": "t (share of the way from A to B)"}, "range": [-0.02, 1.02]},
        "yaxis": {"title": {"text": "loss"}, "type": scale(losses)},
        "height": 420,
    }
    return {"data": traces, "layout": layout}


def comparison_chart(runs: Mapping[str, Sequence[Row]]) -> Chart:
    """Barriers of several runs over the steps of training.

    Args:
        runs: rows of ``checks.jsonl`` by the name of the run.
    """
    traces = [
        _line(
            numbers(rows, "step"),
            numbers(rows, "barrier"),
            text(name, 60),
            _SERIES[place % len(_SERIES)],
            _DASHES[place % len(_DASHES)],
            symbol=place % 25,
        )
        for place, (name, rows) in enumerate(runs.items())
    ]
    layout = {
        "xaxis": {"title": {"text": "step of training"}},
        "yaxis": {"title": {"text": "barrier of the found path"}, "rangemode": "tozero"},
        "height": 420,
    }
    return {"data": traces, "layout": layout}


def fork_chart(rows: Sequence[Row]) -> Chart:
    """On the left the barriers by the step of the fork, on the right the losses between the children.

    Args:
        rows: of ``forks.jsonl``.
    """
    steps = numbers(rows, "step")
    error = [None if value is None else 100 * value for value in numbers(rows, "error_barrier")]
    traces = [
        _line(steps, numbers(rows, "loss_barrier"), "loss barrier", PATH, "solid", symbol="circle"),
        _line(steps, error, "error barrier, points", LINEAR, "dot", symbol="square-open") | {"yaxis": "y2"},
    ]
    for place, row in enumerate(rows):
        style = (_SERIES[place % len(_SERIES)], _DASHES[place % len(_DASHES)])
        between = _line(*_profile(row.get("loss_profile")), f"fork at step {text(row.get('step'))}", *style)
        traces.append(between | {"xaxis": "x2", "yaxis": "y3"})
    layout = {
        "xaxis": {"title": {"text": "step of the fork"}, "domain": [0.0, 1.0], "anchor": "y2"},
        "yaxis": {"title": {"text": "loss barrier"}, "domain": [0.8, 1.0]},
        "yaxis2": {"title": {"text": "error (points)"}, "domain": [0.54, 0.74]},
        "xaxis2": {"title": {"text": "t, from one child to the other"}, "anchor": "y3"},
        "yaxis3": {"title": {"text": "loss"}, "domain": [0.0, 0.4], "anchor": "x2"},
        "height": 720,
    }
    return {"data": traces, "layout": layout}


def distance(row: Mapping[str, Any]) -> float | None:
    """How far the two ends lie apart: as the row says, else the length of the path by its normalised length."""
    for value in (number(row.get("distance")), number(row.get("length")) / (number(row.get("normalized_length")) or 1)):
        if not math.isnan(value):
            return value
    return None


def scale(values: Sequence[float]) -> str:
    """The scale of an axis of losses: logarithmic where they are positive and span more than 1.5 decades.

    Example:
        >>> scale([0.1, 0.2]), scale([0.001, 2.0]), scale([-1.0, 50.0]), scale([])
        ('linear', 'log', 'linear', 'linear')
    """
    low, high = min(values, default=0.0), max(values, default=0.0)
    return "log" if low > 0 and math.log10(high) - math.log10(low) > LOG_DECADES else "linear"


_STAIRS = {"color": LEVEL, "dash": "solid", "width": 1.5, "shape": "vh"}


def _line(x: Sequence[Any], y: Sequence[Any], name: str, color: str, dash: str, symbol: str | int = "") -> Chart:
    marks = {} if symbol == "" else {"marker": {"symbol": symbol, "size": 7, "color": color}}
    return {
        "x": list(x),
        "y": list(y),
        "name": name,
        "mode": "lines+markers" if marks else "lines",
        "line": {"color": color, "dash": dash, "width": 2},
        **marks,
    }


def _profile(profile: Any) -> tuple[list[float | None], list[float | None]]:
    """The t and the losses of a profile with 5 digits; nothing where it is none."""
    if not isinstance(profile, Mapping):
        return [], []
    t, losses = profile.get("t"), profile.get("loss")
    if not isinstance(t, list) or not isinstance(losses, list):
        return [], []
    pairs = list(zip(t, losses, strict=False))
    return [_short(value) for value, _ in pairs], [_short(value) for _, value in pairs]


def _short(value: Any) -> float | None:
    return None if math.isnan(known := number(value)) else float(f"{known:.5g}")
