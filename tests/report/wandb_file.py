"""What an offline run of W&B has written."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import wandb
from wandb.proto import wandb_internal_pb2


class WandbFile:
    """The records of a finished offline run.

    The file is a LevelDB log behind a seven byte header: blocks of 32 KiB hold chunks of (CRC 4 bytes,
    length 2, type 1: full, first, middle, last), and the chunks of one record are joined.
    """

    def __init__(self, folder: Path) -> None:
        wandb.teardown()  # the file is complete only when the service process has ended
        (file,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
        self.files = file.parent / "files"
        data, at, parts = file.read_bytes(), 7, b""
        assert data[:4] == b":W&B"
        self.records = []
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            _, size, kind = struct.unpack_from("<IHB", data, at)
            parts += data[at + 7 : at + 7 + size]
            at += 7 + size
            if kind in (1, 4):
                self.records.append(wandb_internal_pb2.Record.FromString(parts))
                parts = b""

    def of_kind(self, kind: str) -> list[Any]:
        return [getattr(record, kind) for record in self.records if record.WhichOneof("record_type") == kind]

    @property
    def history(self) -> list[dict[str, Any]]:
        """One dictionary a row, nested keys joined by dots."""
        return [
            {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
            for row in self.of_kind("history")
        ]

    @property
    def step_metrics(self) -> list[tuple[str, str]]:
        return [(metric.name or metric.glob_name, metric.step_metric) for metric in self.of_kind("metric")]

    def table(self, row: dict[str, Any], key: str) -> dict[str, Any]:
        return json.loads((self.files / row[f"{key}.path"]).read_text())
