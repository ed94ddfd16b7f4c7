"""The geometry of a training run: level sets, paths and barriers of the loss, for PyTorch Lightning."""

import tomllib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path as _File
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_landscape.connection import Connection as Connection
    from lightning_landscape.connection import Reason as Reason
    from lightning_landscape.connection import Verdict as Verdict
    from lightning_landscape.path import Path as Path
    from lightning_landscape.path import Profile as Profile
    from lightning_landscape.storage.checkpoints import read_reference as read_reference
    from lightning_landscape.storage.snapshots import Snapshot as Snapshot
    from lightning_landscape.storage.snapshots import SnapshotError as SnapshotError
    from lightning_landscape.storage.snapshots import SnapshotStore as SnapshotStore
    from lightning_landscape.surface import LossSurface as LossSurface

# The same names, imported when they are asked for: torch takes seconds, and `landscape --version` needs none.
_HOMES = {
    "connection": ("Connection", "Reason", "Verdict"),
    "path": ("Path", "Profile"),
    "storage.checkpoints": ("read_reference",),
    "storage.snapshots": ("Snapshot", "SnapshotError", "SnapshotStore"),
    "surface": ("LossSurface",),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)


def _version() -> str:
    try:
        return version("lightning-landscape")
    except PackageNotFoundError:  # a checkout on the import path, not installed: the file that the metadata come from
        project = _File(__file__).resolve().parents[1] / "pyproject.toml"
        return str(tomllib.loads(project.read_text())["project"]["version"])


__version__ = _version()


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # or a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        """A public name, from the module where it lives."""
        for module, names in _HOMES.items():
            if name in names:
                found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
