"""Modules and stores for snapshots, and hands that alter their files."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_landscape.storage.snapshots import SnapshotStore


class Tied(nn.Module):
    """Tied weights, a shared child, a frozen parameter, and buffers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.again = self.norm
        self.decoder = nn.Linear(3, 3, bias=False)
        self.decoder.weight = self.encoder.weight
        self.encoder.bias.requires_grad_(False)
        self.register_buffer("kept", torch.tensor(7))
        self.register_buffer("scratch", torch.ones(2), persistent=False)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "snapshots")


def header_of(path: Path) -> tuple[dict[str, object], bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewrite(path: Path, header: dict[str, object], body: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def reseal(path: Path, **changes: object) -> None:
    """Change the record and give it the checksum that belongs to it, as an attacker would."""
    header, body = header_of(path)
    metadata = header["__metadata__"]
    record = json.loads(metadata["lightning_landscape.snapshot"]) | changes
    text = json.dumps(record)
    metadata["lightning_landscape.snapshot"] = text
    metadata["lightning_landscape.sha256"] = hashlib.sha256(text.encode()).hexdigest()
    rewrite(path, header, body)
