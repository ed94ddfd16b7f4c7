"""The page as one file."""

from __future__ import annotations

import base64
import gzip
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning_landscape.report.page.charts import Chart, comparison_chart, digits
from lightning_landscape.report.page.records import Record
from lightning_landscape.report.page.sections import Section, cut, section, thinned
from lightning_landscape.report.page.words import WORDS
from lightning_landscape.storage.atomic import replacing
from lightning_landscape.storage.plain_files import shown

LARGEST = 8_000_000  # bytes of a page
_ROWS, _PROFILES = 1500, 600  # of all sections together
_PICTURES = 1_500_000  # bytes of PNG figures


def write_report(records: Sequence[Record], path: str | os.PathLike[str]) -> None:
    """Writes the page of what several folders hold; an older file of that name is replaced in one step.

    Args:
        records: what is told, in this order.
        path: the file, ``report.html``.

    Raises:
        ValueError: if the page would have more than 8 MB.
        OSError: if the disk refuses.
    """
    content = page_of(records).encode(errors="replace")  # a name may hold bytes that are no text
    if len(content) > LARGEST:
        raise ValueError(
            f"the report of {len(records)} folders has {len(content)} bytes, over 8 MB: give fewer folders"
        )
    with replacing(Path(path)) as file:
        file.write(content)


def page_of(records: Sequence[Record]) -> str:
    """The page as HTML.

    Args:
        records: what is told; at least one.
    """
    from jinja2 import Environment, PackageLoader  # here, because importing the callbacks need not wait for it

    environment = Environment(
        loader=PackageLoader("lightning_landscape.report.page", "."), autoescape=True, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters["cell"] = _cell
    count = len(records)
    names = _names(records)
    sections = [
        section(record, name, max(10, _ROWS // count), max(5, _PROFILES // count))
        for record, name in zip(records, names, strict=True)
    ]
    runs = {name: thinned(record.checks, 300) for record, name in zip(records, names, strict=True) if record.checks}
    comparison = comparison_chart(runs) if len(runs) > 1 else None
    pictures, left_out = _pictures(records)
    now = datetime.now(UTC)
    return environment.get_template("page.html").render(
        title=names[0] if count == 1 else f"{count} folders",
        sections=sections,
        comparison=comparison,
        data=_data(sections, comparison),
        pictures=pictures,
        left_out=left_out,
        words=WORDS,
        written=now.isoformat(timespec="seconds"),
        versions={
            **{name: version(name) for name in ("lightning_landscape", "torch", "pytorch_lightning")},
            "Python": platform.python_version(),
        },
        plotly=_plotly(),
    )


@cache
def _plotly() -> str:
    """plotly.js, packed: a third of its size, which matters where every run leaves a page."""
    script = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(script, 6)).decode()


def _data(sections: Sequence[Section], comparison: Chart | None) -> dict[str, Any]:
    charts = {
        f"chart-{number}-{place}": drawing.chart
        for number, each in enumerate(sections)
        for place, drawing in enumerate(each.drawings)
    }
    if comparison is not None:
        charts["comparison"] = comparison
    profiles = {
        str(number): [one and {"words": one.words, **one.chart} for one in each.profiles]
        for number, each in enumerate(sections)
        if any(each.profiles)
    }
    return {"charts": charts, "profiles": profiles}


def _names(records: Sequence[Record]) -> list[str]:
    """The folders without what is common to all of them; one folder has its own name."""
    folders = [os.path.abspath(record.folder) for record in records]
    if len(set(folders)) == 1:
        return [shown(Path(folder).name or folder) for folder in folders]
    common = os.path.commonpath(folders)
    return [shown(Path(common).name if folder == common else os.path.relpath(folder, common)) for folder in folders]


def _pictures(records: Sequence[Record]) -> tuple[dict[str, str], list[str]]:
    """PNG figures as data URIs by their place, and the names of those that would make the page too large."""
    found: dict[str, str] = {}
    left_out: list[str] = []
    room = _PICTURES
    for path in (path for record in records for path in record.pictures):
        try:
            size = path.stat().st_size
            content = path.read_bytes() if size <= room else b""
        except OSError:
            content = b""
        if content:
            room -= len(content)
            found[str(path)] = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        else:
            left_out.append(shown(path))
    return found, left_out


def _cell(value: Any) -> str:
    """A cell of a table: four digits of a number, all of a whole one, a dash for none."""
    if not isinstance(value, float):
        return "-" if value is None else cut(value)
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else digits(value)
