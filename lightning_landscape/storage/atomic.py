"""Files that appear complete or not at all, whenever the process that writes them dies."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# A temporary file that nothing was written to for an hour belongs to a killed process. Asking whether
# its process lives would misjudge one in another container or on another node of a shared folder.
_STALE_SECONDS = 3600.0


class CorruptFileError(RuntimeError):
    """A file is there, but its content is not what it should be."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` when the block ends, and leaves nothing if it raises.

    The bytes go to a temporary name in the same folder and to the disk, and are then renamed. Several
    processes may do so at once. Temporary files that killed processes left in the folder are removed on the way.

    Args:
        path: the final file; its folder is made if need be.

    Raises:
        OSError: if the disk refuses, for example when it is full; an older file of that name is kept.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "answer.txt"
        >>> with replacing(path) as file:
        ...     _ = file.write(b"42")
        >>> path.read_text()
        '42'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = f"{path.suffix}.tmp"
    _remove_stale(path.parent, ending)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{ending}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _remove_stale(folder: Path, ending: str) -> None:
    for path in folder.glob(f".*{ending}"):
        with contextlib.suppress(FileNotFoundError):  # another process may clean up too
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows opens no folders and journals its names itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link(source: Path, path: Path) -> bool:
    """Has ``path`` be a further name of the file ``source``; one that is there already is replaced in one step.

    Returns:
        Whether it is: not where the disk has no hard links, or ``source`` lies on another one.

    Example:
        >>> from tempfile import mkdtemp
        >>> source = Path(mkdtemp()) / "weights"
        >>> source.touch()
        >>> link(source, source.with_name("again")), source.stat().st_nlink
        (True, 2)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path.parent, f"{path.suffix}.tmp")
    try:
        os.link(source, path)
    except FileExistsError:
        if os.path.samefile(source, path):
            return True
        temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}.tmp")
        try:
            os.link(source, temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError:
        return False
    _sync_folder(path.parent)
    return True
