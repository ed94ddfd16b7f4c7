"""The file of checks: one JSON object a line, never half-written for a reader."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lightning_landscape.storage.atomic import replacing


class CheckLog:
    """Rows of ``checks.jsonl`` in a folder, the canonical record of what the checks found.

    Args:
        path: the file; its folder is made when the first row is written.

    Example:
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> log = CheckLog(folder / "checks.jsonl")
        >>> log.append({"check": 1})
        >>> CheckLog(folder / "checks.jsonl").resume(1)
        >>> log.rows
        [{'check': 1}]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def start(self) -> None:
        """Begins a new record; one that is there already is kept under a numbered name."""
        self.rows = []
        if self.path.exists():
            number = 1
            while (kept := self.path.with_name(f"{self.path.stem}.{number}{self.path.suffix}")).exists():
                number += 1
            os.replace(self.path, kept)

    def resume(self, count: int) -> None:
        """Goes on after the first ``count`` rows: what a run wrote after its checkpoint is written again.

        Raises:
            ValueError: if the file lacks one of these rows, or holds something else in its place.
        """
        text = self.path.read_bytes().decode(errors="replace") if self.path.exists() else ""
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(text.splitlines()[:count], start=1):
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
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

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row; a reader sees the file with or without it."""
        self.rows.append(row)
        self._write()

    def _write(self) -> None:
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows)
        with replacing(self.path) as file:
            file.write(text.encode())
