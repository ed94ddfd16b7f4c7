"""The geometry of a training run: level sets, paths and barriers of the loss, for PyTorch Lightning."""

from lightning_landscape.connection import Connection, Reason, Verdict
from lightning_landscape.path import Path, Profile
from lightning_landscape.storage.snapshots import Snapshot, SnapshotError, SnapshotStore
from lightning_landscape.surface import LossSurface

__all__ = [
    "Connection",
    "LossSurface",
    "Path",
    "Profile",
    "Reason",
    "Snapshot",
    "SnapshotError",
    "SnapshotStore",
    "Verdict",
]
