"""Lightning callbacks, one per file."""

from lightning_landscape.callbacks.level_set import LevelSetConnectivity
from lightning_landscape.callbacks.snapshots import SnapshotRecorder

__all__ = ["LevelSetConnectivity", "SnapshotRecorder"]
