"""A table in Markdown and JSON for a task, with its figure."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lightning_landscape.storage.atomic import replacing
from scripts.reproduce.freeman_bruna.figure import draw
from scripts.reproduce.freeman_bruna.published_points import Point
from scripts.reproduce.freeman_bruna.summary import Row, Summary, summarize
from scripts.reproduce.freeman_bruna.task import Settings
from scripts.reproduce.freeman_bruna.tasks import TASKS
from scripts.reproduce.shared.pages import table

_LEGEND = """\
- **length**: arc length / distance of the endpoints, of the weights without biases, mean -+ standard error over the
  accepted pairs: the published convention. *all parameters* takes the biases along, *all pairs* takes along the pairs
  that were not accepted, whose paths rise too high.
- **beads** are interior ones; the published counts include the two endpoints, which are subtracted here.
- **accepted**: pairs that count. In faithful mode, by the test of the published script: below the slack on its grid.
  In strict mode, those connected.
- **connected**: the height, measured between the grid points too, is at most the level of the search: in faithful mode
  slack x threshold, in strict mode the threshold or, where that is no loss, the larger training loss of the two
  networks. **below the threshold**: the same without slack.
- **published**: mean [mean - standard error, mean + standard error] of the published figure, over accepted pairs.
"""


def write_report(task: str, rows: Sequence[Row], out: Path, command: str) -> list[Summary]:
    """Writes ``<task>.md``, ``<task>.json`` and ``<task>.png`` into ``out``, of the pairs there are."""
    mine = [row for row in rows if row["task"] == task]
    summaries = summarize(task, mine)
    records = [{"task": task, **asdict(summary)} for summary in summaries]
    with replacing(out / f"{task}.json") as file:
        file.write(json.dumps(_plain(records), indent=1).encode())
    with replacing(out / f"{task}.png") as file:
        draw(task, summaries, file)
    with replacing(out / f"{task}.md") as file:
        file.write(_markdown(task, summaries, mine, command).encode())
    return summaries


def _markdown(task: str, summaries: Sequence[Summary], rows: Sequence[Row], command: str) -> str:
    header = (
        f"mode | {TASKS[task].axis} | published length | length | all parameters | all pairs | published beads | beads"
        " | accepted | connected | below the threshold | not accepted because"
    ).split(" | ")
    lines = [
        [
            summary.mode,
            f"{summary.threshold:g}",
            _point(summary.published_length, 4),
            summary.length.text(4),
            summary.full_length.text(4),
            summary.every_length.text(4),
            _point(summary.published_beads, 2),
            summary.beads.text(2),
            f"{summary.accepted} of {summary.pairs}",
            f"{summary.connected} of {summary.pairs}",
            f"{summary.below} of {summary.pairs}",
            ", ".join(f"{reason}: {count}" for reason, count in sorted(summary.reasons.items())) or "-",
        ]
        for summary in summaries
    ]
    return f"# {task}\n\n{table(header, lines)}\n![{task}]({task}.png)\n\n{_LEGEND}\n{_origin(rows, command)}"


def _origin(rows: Sequence[Row], command: str) -> str:
    """How the numbers came about."""
    settings = [Settings(**row["settings"]) for row in rows]
    kinds = sorted({_size(one) for one in settings})
    seconds = sum(row["seconds"] for row in rows)
    torch = ", ".join(sorted({row["versions"]["torch"] for row in rows}))
    seeds = ", ".join(str(seed) for seed in sorted({one.seed for one in settings}))
    return (
        f"Command: `{command}`\n\n"
        f"Size: {'; '.join(kinds)}.\n\n"
        f"{len(rows)} searches, {seconds:.0f} s of one thread each after another, on a machine of {os.cpu_count()} "
        f"cores; seed {seeds}; torch {torch}, Python {platform.python_version()}.\n"
    )


def _size(settings: Settings) -> str:
    names = ("probe", "network", "max_steps", "strict_work")
    cut = [f"{name}={getattr(settings, name)}" for name in names if getattr(settings, name) != getattr(Settings, name)]
    return f"**not full**: {', '.join(cut)}" if cut else "full"


def _point(point: Point | None, digits: int) -> str:
    return "-" if point is None else f"{point.mean:.{digits}f} [{point.lower:.{digits}f}, {point.upper:.{digits}f}]"


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
