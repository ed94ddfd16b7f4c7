"""What a folder holds: the rows and results that callbacks and commands have written there."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_landscape.storage.plain_files import file_size, shown

Row = dict[str, Any]
LARGEST = 1 << 28  # bytes of a file of rows: at 4 kB a check, more checks than any run has
_ROWS = {"checks": "checks.jsonl", "trees": "trees.jsonl", "forks": "forks.jsonl"}
_RESULTS = {"connection": "connection.json", "components": "components.json"}
_CHARTED = ("profile", "history", "tree-", "forks", "components")  # how figures begin that the page draws itself
_LEFT_ALONE = ("snapshots", "running")  # folders of weights


@dataclass(frozen=True)
class Record:
    """One folder, read.

    Attributes:
        folder: where it lies.
        checks, trees, forks: rows of the three files of rows, oldest first; empty where there is none.
        connection, components, average: what the commands of these names, or a callback, have written.
        pictures: PNG figures that the page has no chart for.
        troubles: what could not be read, in words.
    """

    folder: Path
    checks: list[Row] = field(default_factory=list)
    trees: list[Row] = field(default_factory=list)
    forks: list[Row] = field(default_factory=list)
    connection: Row | None = None
    components: Row | None = None
    average: Row | None = None
    pictures: list[Path] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        rows = (self.checks, self.trees, self.forks)
        results = (self.connection, self.components, self.average)
        return any(rows) or any(result is not None for result in results)


def read_record(folder: str | os.PathLike[str]) -> Record:
    """Reads what is in a folder, but not in folders inside it.

    A file that is damaged or larger than any run writes is told in ``troubles``; the rest is read.

    Args:
        folder: of a callback or a command.

    Example:
        >>> from tempfile import mkdtemp
        >>> place = Path(mkdtemp())
        >>> _ = (place / "checks.jsonl").write_text('{"check": 1, "step": 5}\\n{"chec')
        >>> read_record(place).checks, read_record(place).troubles
        ([{'check': 1, 'step': 5}], ['checks.jsonl: 1 line is damaged and left out'])
    """
    place, troubles = Path(folder), list[str]()
    rows: dict[str, Any] = {kind: _attempt(_rows, place / name, troubles) or [] for kind, name in _ROWS.items()}
    rows["forks"].sort(key=lambda row: number(row.get("step")))
    found: dict[str, Any] = {kind: _attempt(_result, place / name, troubles) for kind, name in _RESULTS.items()}
    averages = [_attempt(_result, path, troubles) for path in sorted(place.glob("average*.json"))]
    found["average"] = next((each for each in averages if each is not None and "conclusion" in each), None)
    pictures = [path for path in sorted(place.glob("*.png")) if not path.name.startswith(_CHARTED)]
    return Record(place, **rows, **found, pictures=pictures, troubles=troubles)


def find_records(folder: str | os.PathLike[str]) -> list[Record]:
    """The records in a folder and in all folders inside it, but for those of weights.

    Args:
        folder: of a run, a callback or a command.

    Raises:
        ValueError: if there is no such folder, or no record in it.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"{shown(folder)} is no folder: give the folder that holds checks.jsonl, or one above it")
    found = []
    for place, inside, _ in os.walk(folder):
        inside[:] = sorted(name for name in inside if name not in _LEFT_ALONE and not name.startswith("."))
        if record := read_record(place):
            found.append(record)
    if not found:
        raise ValueError(
            f"nothing in {shown(folder)} can be reported: it holds none of {', '.join(_ROWS.values())}, "
            f"{', '.join(_RESULTS.values())} or average.json; give the folder of a run or of a command"
        )
    return found


def number(value: Any) -> float:
    """A finite number as it is, NaN for anything else that a file may hold in its place.

    Example:
        >>> number(3), number(None), number("<b>")
        (3.0, nan, nan)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:  # an integer of 400 digits
        return math.nan


def numbers(rows: Sequence[Row], key: str) -> list[float | None]:
    """A field of rows as JSON, ``None`` where it is no finite number."""
    return [None if math.isnan(value := number(row.get(key))) else value for row in rows]


def _attempt(read: Callable[[Path, list[str]], Any], path: Path, troubles: list[str]) -> Any:
    try:
        file_size(path, LARGEST)
        return read(path, troubles)
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, ValueError) as error:  # RecursionError is a RuntimeError
        troubles.append(f"{path.name} could not be read: {error}")
        return None


def _rows(path: Path, troubles: list[str]) -> list[Row]:
    rows, damaged = [], 0
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            damaged += 1
    if damaged:
        troubles.append(f"{path.name}: {damaged} line{'s are' if damaged > 1 else ' is'} damaged and left out")
    return rows


def _result(path: Path, troubles: list[str]) -> Row | None:
    found = json.loads(path.read_bytes())
    if isinstance(found, dict):
        return found
    troubles.append(f"{path.name} holds no result and is left out")
    return None
