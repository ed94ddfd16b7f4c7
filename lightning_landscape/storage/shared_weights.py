"""The weights of a run by their content, so that what several callbacks keep is one file on the disk."""

from __future__ import annotations

from pathlib import Path

from lightning_landscape.storage.snapshot_headers import Snapshot, parse_header
from lightning_landscape.storage.tensor_files import SnapshotError, read_safetensors


class SharedWeights:
    """Which files hold which weights, over all the folders of snapshots of a run.

    A snapshot of weights that are on the disk already is a further name of their file (a hard link), not a copy. The
    file is there as long as one folder names it: the file system counts the names, and a killed process cannot
    confuse it. What is known here is only where to look, and is looked at again before it is used.
    """

    def __init__(self) -> None:
        self._files: dict[str, dict[Path, bool]] = {}  # by content hash; whether the tensors are known to be intact

    def add(self, snapshot: Snapshot, intact: bool) -> None:
        """Takes note of a file; ``intact`` where this process wrote it."""
        self._files.setdefault(snapshot.content_hash, {})[snapshot.path] = intact

    def remove(self, path: Path) -> None:
        """Forgets a file."""
        for content, paths in list(self._files.items()):
            paths.pop(path, None)
            if not paths:
                del self._files[content]

    def find(self, wanted: Snapshot) -> Snapshot | None:
        """A file with the weights of ``wanted``, its own one first, as its header has it; ``None`` if there is none."""
        paths = self._files.get(wanted.content_hash, {})
        for path in sorted(paths, key=lambda path: path != wanted.path):
            try:
                snapshot = read_header(path)
                same = (snapshot.content_hash, snapshot.aliases, snapshot.dtypes)
                if same != (wanted.content_hash, wanted.aliases, wanted.dtypes):
                    raise SnapshotError(f"{path} was replaced")
                if not paths[path]:
                    snapshot.load()
            except SnapshotError:  # deleted, damaged or replaced: it is written again
                self.remove(path)
                continue
            paths[path] = True
            return snapshot
        return None


def read_header(path: Path) -> Snapshot:
    """The snapshot in a file; its header alone is read.

    Raises:
        SnapshotError: if the file is missing, truncated, altered or not a snapshot of ours.
    """
    return parse_header(path, read_safetensors(path, tensors=False)[0])
