"""Files of rows, one JSON object a line, that a reader never sees half-written.

Two policies: rows by number, the record of a run, and rows by key, from which interrupted work goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any

from lightning_landscape.storage.atomic import CorruptFileError, replacing
from lightning_landscape.storage.plain_files import file_size

Row = dict[str, Any]


class NumberedRows:
    """The rows of a run, numbered from 1 under ``check``: its canonical record.

    Args:
        path: the file; its folder is made when the first row is written.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "checks.jsonl"
        >>> NumberedRows(path).append({"check": 1})
        >>> resumed = NumberedRows(path)
        >>> resumed.resume(1)
        >>> resumed.rows
        [{'check': 1}]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []

    def start(self) -> None:
        """Begins a new record; one that is there already is kept under a numbered name."""
        self.rows = []
        if self.path.exists():
            names = (self.path.with_name(f"{self.path.stem}.{number}{self.path.suffix}") for number in count(1))
            os.replace(self.path, next(kept for kept in names if not kept.exists()))

    def resume(self, count: int) -> None:
        """Goes on after the first ``count`` rows: what a run wrote after its checkpoint is written again.

        Raises:
            ValueError: if the file lacks one of these rows, or holds something else in its place.
        """
        rows = []
        for number, line in enumerate(islice(_lines(self.path), count), start=1):
            try:
                row = _parsed(line)
            except ValueError as error:
                raise ValueError(f"line {number} of {self.path} is not JSON ({error}): restore the file") from error
            if not isinstance(row, dict) or row.get("check") != number:
                raise ValueError(f"line {number} of {self.path} is not check {number} of a run: restore the file")
            rows.append(row)
        if len(rows) < count:
            raise ValueError(
                f"{self.path} holds {len(rows)} checks where the checkpoint counts {count}: resume with the dirpath of "
                "the interrupted run, or move the file away and start a new run"
            )
        self.rows = rows
        self._write()

    def append(self, row: Row) -> None:
        """Adds a row; a reader sees the file with or without it."""
        self.rows.append(row)
        self._write()

    def _write(self) -> None:
        write_rows(self.path, self.rows)


class KeyedRows:
    """Finished pieces of work by key.

    Several processes share the work by writing parts, ``pairs.jsonl``, ``pairs.1.jsonl``, ...; each reads all.

    Args:
        path: the file of part 0; made by the first :meth:`put`.
        part: the number of this process, its rank.

    Raises:
        ValueError: if one of the files holds something else.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "pairs.jsonl"
        >>> KeyedRows(path).put("a-b", {"height": 0.5})
        >>> KeyedRows(path).get("a-b"), KeyedRows(path, part=1).get("c-d")
        ({'height': 0.5}, None)
    """

    def __init__(self, path: str | os.PathLike[str], part: int = 0) -> None:
        self.path = Path(path)
        parts = [self.path, *sorted(self.path.parent.glob(f"{self.path.stem}.*{self.path.suffix}"))]
        if part:
            self.path = self.path.with_name(f"{self.path.stem}.{part}{self.path.suffix}")
        self._own: dict[str, Row] = {}
        self._all: dict[str, Row] = {}
        for file in parts:
            rows = _by_key(file)
            self._all |= rows
            if file == self.path:
                self._own = rows

    def get(self, key: str) -> Row | None:
        """The row of this key, ``None`` if there is none."""
        return self._all.get(key)

    def put(self, key: str, row: Mapping[str, Any]) -> None:
        """Adds a row, or takes the place of the one of this key; a reader sees the file before or after."""
        self._own[key] = self._all[key] = dict(row)
        write_rows(self.path, ({"key": key, **row} for key, row in self._own.items()))


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line; the file is there with all of them, or as it was.

    Raises:
        ValueError: if a row holds a number that is not finite, which JSON has no word for.
        OSError: if the disk refuses, for example when it is full.
    """
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    with replacing(path) as file:
        file.write(text.encode())


def _lines(path: Path) -> list[str]:
    try:
        file_size(path)
    except FileNotFoundError:
        return []
    except CorruptFileError as error:
        raise ValueError(str(error)) from error
    return path.read_bytes().decode(errors="replace").splitlines()


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def _by_key(path: Path) -> dict[str, Row]:
    rows = {}
    for number, line in enumerate(_lines(path), start=1):
        try:
            row = _parsed(line)
            rows[str(row.pop("key"))] = row
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"line {number} of {path} is no row of a record ({error!r}): move the file away and start anew"
            ) from error
    return rows
