"""Files of rows, one JSON object a line, to which rows are added and never changed.

Two policies: rows by number, the record of a run, and rows by key, from which interrupted work goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import count as counting
from pathlib import Path
from typing import Any

from lightning_landscape.storage.atomic import CorruptFileError, append
from lightning_landscape.storage.plain_files import file_size, shown

Row = dict[str, Any]


class LostRowsError(ValueError):
    """Rows that a run counts are not in its file; the message says which, and what to do.

    Attributes:
        numbers: of the rows that are gone.
        foreign: whether all are there, and are not those of the run.
    """

    def __init__(self, message: str, numbers: Sequence[int], foreign: bool = False) -> None:
        super().__init__(message)
        self.numbers = list(numbers)
        self.foreign = foreign


class NumberedRows:
    """The rows of a run, numbered from 1 under ``check``: its canonical record. A row is appended, and then stays.

    A run that was killed may have written rows after its last checkpoint. Resumed, it makes them again: they are
    :attr:`ahead`, and a row that repeats one of them is not written a second time.

    Args:
        path: the file; its folder is made when the first row is written.

    Attributes:
        rows: of this run, so far.
        ahead: what the file holds beyond them.

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
        self.start()

    def start(self) -> None:
        """Begins a new record."""
        self.rows: list[Row] = []
        self.ahead: list[Row] = []
        self._kept = 0  # of the rows, on the disk
        self._size = 0  # bytes of the file that are whole rows
        self._damaged = False

    def resume(self, count: int, lost: Sequence[int] = (), digest: str | None = None) -> None:
        """Goes on after row ``count``; the file stays as it is.

        Args:
            count: number of the last row that the checkpoint knows.
            lost: numbers that are known to be gone.
            digest: :attr:`digest` as the checkpoint has it; ``None`` if it has none.

        Raises:
            LostRowsError: if the file lacks one of these rows, or holds something else in its place.
        """
        self.start()
        found, ahead, size, problem = self._read(count)
        gone = [number for number in range(1, count + 1) if number not in found and number not in lost]
        if gone:
            raise LostRowsError(self._message(count, gone, problem), gone)
        if digest is not None and digest_of(found.values()) != digest:
            raise LostRowsError(
                f"{shown(self.path)} holds the {len(found)} checks of another run, or was altered: pass the dirpath= "
                "of the run that is resumed",
                list(found),
                foreign=True,
            )
        self.rows, self.ahead, self._size = list(found.values()), ahead, size
        self._kept = len(self.rows)

    def salvage(self, count: int, digest: str | None = None) -> None:
        """As :meth:`resume`, with those rows that are there; with none where all are there and have another digest."""
        self.start()
        found, self.ahead, self._size, problem = self._read(count)
        self._damaged = problem is not None
        if len(found) < count or digest is None or digest_of(found.values()) == digest:
            self.rows = list(found.values())
            self._kept = len(self.rows)

    def repair(self) -> None:
        """Has the file end with a whole row: what a killed process left of one is cut off, a missing line end added.

        A file with damage between the rows is kept beside one that holds the others.
        """
        if self._damaged:
            names = (f"{self.path.stem}.damaged-{number}{self.path.suffix}" for number in counting(1))
            os.replace(self.path, next(kept for name in names if not (kept := self.path.with_name(name)).exists()))
            self.continue_in(self.path)
            return
        there = _size(self.path)
        if there != self._size:
            append(self.path, b"\n" * (self._size - there), min(there, self._size))

    @property
    def digest(self) -> str:
        """SHA-256 of the rows so far, by which a resumed run knows them again."""
        return digest_of(self.rows)

    def repeats(self, row: Mapping[str, Any]) -> bool:
        """Whether the row may come next: it is the one that lies ahead, but for the seconds it took, or none does."""
        if not self.ahead:
            return True
        there = self.ahead[0]
        return all(there[key] == row[key] for key in there.keys() & row.keys() if not key.startswith("seconds"))

    def append(self, row: Row) -> None:
        """Adds a row, which is on the disk when this returns.

        Raises:
            ValueError: if a row holds a number that is not finite, which JSON has no word for.
            OSError: if the disk refuses; the row is then written with the next one.
        """
        if self.ahead and self.repeats(row):
            self.rows.append(self.ahead.pop(0))
            self._kept += 1
            return
        self.rows.append(row)
        self._write()

    def continue_in(self, path: Path) -> None:
        """Writes the rows so far into another file, and goes on there."""
        self.path, self.ahead, self._damaged = path, [], False
        self._kept = self._size = 0
        self._write()

    def _write(self) -> None:
        if _size(self.path) < self._size:  # the file was lost while the run went on
            self._kept = self._size = 0
        data = lines_of(self.rows[self._kept :])
        if data:
            append(self.path, data, self._size)
        self._size += len(data)
        self._kept = len(self.rows)

    def _message(self, count: int, gone: Sequence[int], problem: str | None) -> str:
        what = f"of the {count} checks that the checkpoint counts, {shown(self.path)} lacks {ranges(gone)}"
        if not self.path.exists():
            what = f"{shown(self.path)} is not there, and the checkpoint counts {count} checks"
        reason = "" if problem is None else f" ({problem})"
        return f"{what}{reason}: put the file back, or pass the dirpath= that it is in now"

    def _read(self, count: int) -> tuple[dict[int, Row], list[Row], int, str | None]:
        """Rows to ``count`` by number, those that follow in order, the bytes of all, and what damage lies between."""
        found: dict[int, Row] = {}
        ahead: list[Row] = []
        size, last = 0, 0
        problem = None
        for place, line in enumerate(_whole_lines(self.path, "check"), start=1):
            row, damage = _numbered(line)
            check = 0 if row is None else row["check"]
            if row is not None and last < check <= count:
                found[check] = row
            elif row is not None and check == max(last, count) + 1:
                ahead.append(row)
            elif last < count:
                problem = problem or f"line {place} is {damage or f'check {check} again'}"
                check = last
            else:  # what a run wrote after its checkpoint may be anything
                break
            size, last = size + len(line) + 1, check
        return found, ahead, size, problem


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
        self._size = 0  # bytes of the own file that are whole rows
        for file in parts:
            rows, size = _by_key(file)
            self._all |= rows
            if file == self.path:
                self._own, self._size = rows, size

    def __len__(self) -> int:
        return len(self._all)

    def get(self, key: str) -> Row | None:
        """The row of this key, ``None`` if there is none."""
        return self._all.get(key)

    def put(self, key: str, row: Mapping[str, Any]) -> None:
        """Adds a row; of several with one key the last counts.

        Raises:
            ValueError: if a row holds a number that is not finite, which JSON has no word for.
            OSError: if the disk refuses, for example when it is full; the file is then as it was.
        """
        own, there = self._own | {key: dict(row)}, _size(self.path)
        if there < self._size - 1:  # the file was lost while the work went on
            self._size, data = 0, lines_of({"key": each, **found} for each, found in own.items())
        else:  # the last line may lack its end
            self._size, data = min(there, self._size), b"\n" * (self._size - there) + lines_of([{"key": key, **row}])
        append(self.path, data, self._size)
        self._size += len(data)
        self._own = own
        self._all[key] = own[key]


def lines_of(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """One JSON object a line.

    Raises:
        ValueError: if a row holds a number that is not finite, which JSON has no word for.
    """
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()


def digest_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of the lines of rows, hexadecimal."""
    return hashlib.sha256(lines_of(rows)).hexdigest()


def ranges(numbers: Iterable[int]) -> str:
    """Increasing numbers as a reader takes them in.

    Example:
        >>> ranges([1, 2, 3, 7])
        '1 to 3, 7'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _whole_lines(path: Path, lead: str) -> list[bytes]:
    """The lines of a file, without a last one that is the start of a row; a row begins with the field ``lead``."""
    try:
        file_size(path)
    except FileNotFoundError:
        return []
    except CorruptFileError as error:
        raise ValueError(str(error)) from error
    *lines, rest = path.read_bytes().split(b"\n")
    start = f'{{"{lead}": '.encode()
    try:
        begun = not isinstance(_parsed(rest), dict)
    except ValueError:
        begun = True
    begun = begun and (rest.startswith(start) or start.startswith(rest))
    return lines if begun else [*lines, rest]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode(errors="replace"))
    except RecursionError as error:
        raise ValueError(str(error)) from error


def _numbered(line: bytes) -> tuple[Row | None, str]:
    """A row with a number, or why it is none."""
    try:
        row = _parsed(line)
    except ValueError as error:
        return None, f"not JSON, {error}"
    if not isinstance(row, dict) or type(row.get("check")) is not int or row["check"] < 1:
        return None, "no check of a run"
    return row, ""


def _by_key(path: Path) -> tuple[dict[str, Row], int]:
    rows, size = {}, 0
    for number, line in enumerate(_whole_lines(path, "key"), start=1):
        try:
            row = _parsed(line)
            rows[str(row.pop("key"))] = row
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"line {number} of {shown(path)} is no row of a record ({error!r}): move the file away and start anew"
            ) from error
        size += len(line) + 1
    return rows, size
