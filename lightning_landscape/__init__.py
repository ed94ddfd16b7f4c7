"""The geometry of a training run: level sets, paths and barriers of the loss, for PyTorch Lightning."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path as _File

from lightning_landscape.connection import Connection, Reason, Verdict
from lightning_landscape.path import Path, Profile
from lightning_landscape.storage.checkpoints import read_reference
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
    "read_reference",
]


def _version() -> str:
    try:
        return version("lightning-landscape")
    except PackageNotFoundError:  # a checkout on the import path, not installed: the file that the metadata come from
        project = _File(__file__).resolve().parents[1] / "pyproject.toml"
        return str(tomllib.loads(project.read_text())["project"]["version"])


__version__ = _version()
