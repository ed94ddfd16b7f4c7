"""Files that appear complete or not at all, and bytes that are added or not, whenever the process dies."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lightning_landscape.storage.processes import is_gone, this_process

# Whether a process on another machine, in another container or before the last boot is gone cannot be seen: its
# temporary file is removed when nothing was written to it for an hour.
_STALE_SECONDS = 3600.0
_LONGEST_STEM = 40  # characters; a file name may have 255 bytes
_OWNER = re.compile(r"\.([0-9a-f]{8}-\d+-\d*)\.[0-9a-f]{8}(\.[^.]*)?\.tmp$")


class CorruptFileError(RuntimeError):
    """A file is there, but its content is not what it should be."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` when the block ends, and leaves nothing if it raises.

    The bytes go to a temporary name in the same folder and to the disk, and are then renamed. Several
    processes may do so at once. Temporary files in the folder that are an hour old are removed on the way.

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
    _remove_stale(path.parent, f"{path.suffix}.tmp")
    temporary = _temporary(path)
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove_abandoned(folder: Path) -> None:
    """Removes the temporary files of :func:`replacing` whose process is gone, or that are an hour old.

    Args:
        folder: where to look; it need not be there, and folders in it are left alone.
    """
    for path in folder.glob(".*.tmp"):
        written_by = _OWNER.search(path.name)
        if written_by and is_gone(written_by[1]):
            path.unlink(missing_ok=True)
    _remove_stale(folder, ".tmp")


def append(path: Path, data: bytes, size: int) -> None:
    """Adds bytes behind the first ``size`` of a file; they are on the disk when it returns.

    What lies behind ``size`` is cut off first: the end of a write that was killed. A kill in the middle leaves the old
    bytes, and of the new ones the beginning.

    Args:
        path: the file; it and its folder are made if need be.
        data: the bytes.
        size: bytes that the file has, at least.

    Raises:
        OSError: if the disk refuses, for example when it is full; the file then has ``size`` bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
    try:
        if os.fstat(handle).st_size > size:
            os.ftruncate(handle, size)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        except BaseException:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)
    if size == 0:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Has the names in a folder on the disk."""
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
        temporary = _temporary(path)
        try:
            os.link(source, temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError:
        return False
    sync_folder(path.parent)
    return True


def _temporary(path: Path) -> Path:
    """A new name beside ``path`` that tells which process writes there."""
    return path.with_name(f".{path.stem[:_LONGEST_STEM]}.{this_process()}.{secrets.token_hex(4)}{path.suffix}.tmp")


def _remove_stale(folder: Path, ending: str) -> None:
    for path in folder.glob(f".*{ending}"):
        with contextlib.suppress(FileNotFoundError):  # another process may clean up too
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()
