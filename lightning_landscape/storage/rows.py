"""A file of finished pieces of work, by key, from which interrupted work goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_landscape.storage.atomic import replacing


class Record:
    """Rows of plain JSON by key, one a line, in a file that is always whole.

    Several processes share the work by writing parts, ``pairs.jsonl``, ``pairs.1.jsonl``, ...; each reads all.

    Args:
        path: the file of part 0; made by the first :meth:`put`.
        part: the number of this process, its rank.

    Raises:
        ValueError: if one of the files holds something else.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "pairs.jsonl"
        >>> Record(path).put("a-b", {"height": 0.5})
        >>> Record(path).get("a-b"), Record(path, part=1).get("c-d")
        ({'height': 0.5}, None)
    """

    def __init__(self, path: str | os.PathLike[str], part: int = 0) -> None:
        self.path = Path(path)
        parts = [self.path, *sorted(self.path.parent.glob(f"{self.path.stem}.*{self.path.suffix}"))]
        if part:
            self.path = self.path.with_name(f"{self.path.stem}.{part}{self.path.suffix}")
        self._own: dict[str, dict[str, Any]] = {}
        self._all: dict[str, dict[str, Any]] = {}
        for file in parts:
            rows = _read(file) if file.exists() else {}
            self._all |= rows
            if file == self.path:
                self._own = rows

    def get(self, key: str) -> dict[str, Any] | None:
        """The row of this key, ``None`` if there is none."""
        return self._all.get(key)

    def put(self, key: str, row: Mapping[str, Any]) -> None:
        """Adds a row, or takes the place of the one of this key; a reader sees the file before or after."""
        self._own[key] = self._all[key] = dict(row)
        text = "".join(json.dumps({"key": key, **row}, allow_nan=False) + "\n" for key, row in self._own.items())
        with replacing(self.path) as file:
            file.write(text.encode())


def _read(file: Path) -> dict[str, dict[str, Any]]:
    rows = {}
    for number, line in enumerate(file.read_bytes().decode(errors="replace").splitlines(), start=1):
        try:
            row = json.loads(line)
            rows[str(row.pop("key"))] = row
        except (json.JSONDecodeError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"line {number} of {file} is no row of a record ({error!r}): move the file away and start anew"
            ) from error
    return rows
