"""What the page says of one record: conclusion, charts with their words, tables, settings and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_landscape.components.merge_tree import MergeTree
from lightning_landscape.report.page.charts import (
    Chart,
    digits,
    distance,
    fork_chart,
    history_chart,
    profile_chart,
    said_of,
)
from lightning_landscape.report.page.records import Record, Row, number, numbers
from lightning_landscape.report.page.tree_chart import tree_chart
from lightning_landscape.report.stability import stability_conclusion

_MOST_SAID = 600  # characters of a message that are shown
_SETTINGS = ("pair", "margin", "data", "noise", "keep", "dtype")
_COSTS = {
    "seconds": "seconds of search",
    "work": "work in training steps",
    "gradient_steps": "gradient steps",
    "loss_evaluations": "loss evaluations",
    "twin_work": "batches that a twin trained on",
}


@dataclass(frozen=True)
class Drawing:
    """A chart, its heading, and the same in words for whoever does not see it."""

    title: str
    words: str
    chart: Chart


@dataclass(frozen=True)
class Table:
    """Rows of a table, each cell a number or a text; the first column's cells are buttons where ``opens``."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]
    opens: bool = False


@dataclass
class Section:
    """One folder on the page."""

    name: str
    said: list[str] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    profiles: list[Drawing | None] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)


def section(record: Record, name: str, most_rows: int, most_profiles: int) -> Section:
    """The section of a record.

    Args:
        record: what a folder holds.
        name: of the section.
        most_rows: rows of a table and of a chart; more are thinned evenly, the first and the last stay.
        most_profiles: checks that have a chart of their own.
    """
    page = Section(name, pictures=record.pictures)
    if record.checks:
        _add_checks(page, thinned(record.checks, most_rows), len(record.checks), most_profiles)
        _add_facts(page, record.checks)
    if record.connection is not None:
        _add_connection(page, record.connection)
    if record.trees:
        _add_trees(page, thinned(record.trees, most_rows), record.trees[-1])
    if record.components is not None:
        _add_components(page, record.components)
    if record.forks:
        _add_forks(page, thinned(record.forks, most_rows))
    if record.average is not None:
        _add_average(page, record.average)
    page.said += record.troubles
    return page


def thinned(rows: Sequence[Row], most: int) -> list[Row]:
    """At most so many rows, evenly spread, the first and the last among them.

    Example:
        >>> [row["check"] for row in thinned([{"check": number} for number in range(1, 12)], 3)]
        [1, 6, 11]
    """
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (most - 1))] for place in range(most)]


def cut(value: Any) -> str:
    """A text of a file, no longer than a reader takes in."""
    said = str(value)
    return said if len(said) <= _MOST_SAID else f"{said[:_MOST_SAID]}..."


def _add_checks(page: Section, rows: list[Row], count: int, most_profiles: int) -> None:
    found = [said_of(row) for row in rows]
    tally = ", ".join(f"{found.count(said)} {said}" for said in dict.fromkeys(found))
    last = rows[-1]
    if len(rows) < count:
        page.said.append(f"{count} checks, of which {len(rows)} are shown, evenly spread; of these: {tally}.")
    else:
        page.said.append(f"{count} check{'s' if count > 1 else ''}: {tally}.")
    page.said.append(f"The last check: {cut(last.get('conclusion') or found[-1])}")
    heights = [value for value in numbers(rows, "height") if value is not None]
    span = f" The height goes from {digits(heights[0])} to {digits(heights[-1])}." if heights else ""
    words = f"{len(rows)} checks: {tally}.{span} Choose a mark, or a number in the table, to see that check."
    page.drawings.append(Drawing("Height, barrier and distance over training", words, history_chart(rows)))
    shown = {id(row) for row in thinned([row for row in rows if _has_profile(row)], most_profiles)}
    page.profiles = [_profile_of(row) if id(row) in shown else None for row in rows]
    heads = ("check", "step", "epoch", "verdict", "height", "level", "height of the straight line", "barrier")
    page.tables.append(
        Table(
            "Checks",
            (*heads, "distance", "length", "beads", "work", "seconds", "in words"),
            [
                [
                    *(row.get(key) for key in ("check", "step", "epoch")),
                    said,
                    *(number(row.get(key)) for key in ("height", "level", "linear_height", "barrier")),
                    math.nan if (far := distance(row)) is None else far,
                    *(number(row.get(key)) for key in ("length", "num_beads", "work", "seconds")),
                    cut(row.get("message") or row.get("conclusion") or ""),
                ]
                for row, said in zip(rows, found, strict=True)
            ],
            opens=True,
        )
    )


def _add_connection(page: Section, row: Row) -> None:
    page.said.append(cut(row.get("conclusion") or said_of(row)))
    page.facts |= {"A": cut(row.get("a")), "B": cut(row.get("b"))}
    if _has_profile(row):
        drawing = _profile_of(row)
        page.drawings.append(Drawing("Losses along the path", drawing.words, drawing.chart))
    keys = ("loss_a", "loss_b", "level", "height", "barrier", "linear_height", "linear_barrier", "length", "floor")
    values = [[key.replace("_", " "), number(row.get(key))] for key in keys]
    page.tables.append(Table("Numbers", ("quantity", "value"), values))
    _add_facts(page, [row])
    settings = row.get("settings")
    page.facts |= _flat(settings) if isinstance(settings, Mapping) else {}


def _add_trees(page: Section, rows: list[Row], last: Row) -> None:
    top = number(last.get("top_merge"))
    joined = "some are never joined" if math.isnan(top) else f"all are joined at {digits(top)}"
    page.said.append(
        f"Among {last.get('num_points')} points N_u is {last.get('num_components')} at level "
        f"{digits(number(last.get('level')))}; {joined}."
    )
    _draw_tree(page, last.get("tree"))
    keys = ("check", "step", "epoch", "num_points", "num_components", "max_components", "top_merge", "seconds")
    heads = ("tree", "step", "epoch", "points", "N_u at the level", "most components", "last merge", "seconds")
    page.tables.append(Table("Trees", heads, [[number(row.get(key)) for key in keys] for row in rows]))


def _add_components(page: Section, row: Row) -> None:
    fewest = number(row.get("fewest_components"))
    proved = f" Proved: it is at least {fewest:g}." if fewest > 1 else ""
    level = digits(number(row.get("level")))
    page.said.append(f"N_u is {row.get('num_components')} among these points at level u = {level}.{proved}")
    tree = _draw_tree(page, row)
    steps = row.get("range")
    if isinstance(steps, list) and all(isinstance(step, Mapping) for step in steps):
        keys = ("level", "points", "components")
        values = [[number(step.get(key)) for key in keys] for step in steps]
        page.tables.append(Table("N_u over all levels", ("from level u", "points", "N_u"), values))
    if tree is not None:
        points = [[cut(name), number(float(loss))] for name, loss in zip(tree.names, tree.losses, strict=True)]
        page.tables.append(Table("Points", ("checkpoint", "loss"), points))


def _add_forks(page: Section, rows: list[Row]) -> None:
    try:
        page.said.append(f"{stability_conclusion(rows, 0.02)} The page allows 2 points, the callback's default.")
    except (KeyError, TypeError, ValueError):
        page.said.append(f"{len(rows)} forks, of which some cannot be read.")
    barriers = ", ".join(
        f"step {row.get('step')}: {digits(100 * number(row.get('error_barrier')))} points" for row in rows[:12]
    )
    page.drawings.append(Drawing("Forks", f"Error barriers by the step of the fork. {barriers}.", fork_chart(rows)))
    keys = ("step", "child_steps", "loss_barrier", "error_barrier", "child_loss", "child_error", "seconds")
    heads = (
        "fork at step",
        "steps of a child",
        "loss barrier",
        "error barrier",
        "child loss",
        "child error",
        "seconds",
    )
    page.tables.append(Table("Forks", heads, [[number(row.get(key)) for key in keys] for row in rows]))


def _add_average(page: Section, row: Row) -> None:
    page.said.append(cut(row.get("conclusion")))
    models = row.get("models")
    if not isinstance(models, list):  # the callback's: the average, and the last weights
        pairs = (("running average", "loss", "metrics"), ("last weights", "last_loss", "last_metrics"))
        models = [{"name": name, "loss": row.get(loss), "metrics": row.get(metrics)} for name, loss, metrics in pairs]
    models = [model for model in models if isinstance(model, Mapping)]
    logged = [model["metrics"] if isinstance(model.get("metrics"), Mapping) else {} for model in models]
    names = list(dict.fromkeys(name for metrics in logged for name in metrics))
    values = [
        [cut(model.get("name")), number(model.get("loss")), *(number(metrics.get(name)) for name in names)]
        for model, metrics in zip(models, logged, strict=True)
    ]
    page.tables.append(Table("Models", ("model", "E", *names), values))
    settings = row.get("settings")
    page.facts |= _flat(settings) if isinstance(settings, Mapping) else {}


def _draw_tree(page: Section, tree: Any) -> MergeTree | None:
    try:
        read = MergeTree.from_dict(tree)
    except (KeyError, TypeError, ValueError) as error:
        page.said.append(f"The merge tree cannot be drawn: {cut(error)}")
        return None
    merges = "; ".join(
        f"{len(read.names) - place - 1} groups from {digits(m.height)}" for place, m in enumerate(read.merges[:12])
    )
    words = f"{len(read.names)} points. Heights are upper bounds: points apart here may be connected lower. {merges}."
    page.drawings.append(Drawing("Merge tree, and N_u at each level", words, tree_chart(read)))
    return read


def _profile_of(row: Row) -> Drawing:
    check = f"Check {cut(row.get('check'))}, step {cut(row.get('step'))}" if "check" in row else "The pair"
    numbers_said = f"height {digits(number(row.get('height')))}, level {digits(number(row.get('level')))}"
    words = f"{check}: {said_of(row)}, {numbers_said}. {cut(row.get('conclusion') or '')}"
    return Drawing(check, words, profile_chart(row))


def _has_profile(row: Row) -> bool:
    return bool(profile_chart(row)["data"])


def _add_facts(page: Section, rows: Sequence[Row]) -> None:
    page.facts |= {key: cut(rows[-1][key]) for key in _SETTINGS if rows[-1].get(key) is not None}
    for key, said in _COSTS.items():
        spent = sum(value for value in numbers(rows, key) if value is not None)
        if spent:
            page.facts[said] = f"{spent:.4g}"


def _flat(values: Mapping[str, Any], lead: str = "") -> dict[str, str]:
    """Settings in settings as one list: ``versions.torch``."""
    found: dict[str, str] = {}
    for key, value in values.items():
        found |= _flat(value, f"{lead}{key}.") if isinstance(value, Mapping) else {f"{lead}{key}": cut(value)}
    return found
