"""Lightning callbacks, one per file."""

from lightning_landscape.callbacks.average import AverageWhenConnected
from lightning_landscape.callbacks.certificate import AccelerationCertificate
from lightning_landscape.callbacks.fork import ForkStability
from lightning_landscape.callbacks.level_set import LevelSetConnectivity
from lightning_landscape.callbacks.merge_tree import MergeTree
from lightning_landscape.callbacks.snapshots import SnapshotRecorder

__all__ = [
    "AccelerationCertificate",
    "AverageWhenConnected",
    "ForkStability",
    "LevelSetConnectivity",
    "MergeTree",
    "SnapshotRecorder",
]
