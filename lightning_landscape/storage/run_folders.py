"""What a run finds in its folder moved aside as one, and folders of its own for a run that may not write there."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from pathlib import Path

from lightning_landscape.storage.atomic import link, replacing
from lightning_landscape.storage.snapshots import Snapshot, SnapshotError, SnapshotStore

_MOVING = "earlier.moving"


def set_aside(folder: Path, patterns: Iterable[str]) -> Path | None:
    """Moves what an earlier run wrote into ``earlier-1``, ``earlier-2``, ... inside the folder, all of it or none.

    A move that was killed is completed by the next one.

    Args:
        folder: of the run.
        patterns: names of its files and folders, with ``*``; all else stays.

    Returns:
        Where it is now; ``None`` if there was nothing.
    """
    moving = folder / _MOVING
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    if not found and not moving.exists():
        return None
    moving.mkdir(parents=True, exist_ok=True)
    for path in found:
        os.replace(path, moving / path.name)
    target = next(path for number in count(1) if not (path := folder / f"earlier-{number}").exists())
    os.replace(moving, target)
    return target


def set_aside_before(folder: Path) -> list[Path]:
    """The folders that :func:`set_aside` made here."""
    return [path for path in sorted(folder.glob("earlier-*")) if path.is_dir() and is_set_aside(path)]


def is_set_aside(folder: Path) -> bool:
    """Whether a folder has the name that :func:`set_aside` gives."""
    return re.fullmatch(r"earlier-\d+", folder.name) is not None


def own_folder(folder: Path) -> Path:
    """Makes a folder that no other run has: ``landscape-2``, ``landscape-3``, ... beside ``landscape``.

    Example:
        >>> from tempfile import mkdtemp
        >>> wanted = Path(mkdtemp()) / "landscape"
        >>> own_folder(wanted).name, own_folder(wanted).name
        ('landscape-2', 'landscape-3')
    """
    for number in count(2):
        own = folder.with_name(f"{folder.name}-{number}")
        try:
            own.mkdir(parents=True)
        except FileExistsError:
            continue
        return own
    raise AssertionError("numbers do not end")


def is_own_folder(folder: Path, of: Path) -> bool:
    """Whether a folder has the name that :func:`own_folder` gives.

    Example:
        >>> is_own_folder(Path("/runs/landscape-2"), Path("/runs/landscape"))
        True
    """
    return folder.parent == of.parent and re.fullmatch(re.escape(of.name) + r"-\d+", folder.name) is not None


def link_snapshots(source: SnapshotStore, target: SnapshotStore, wanted: Callable[[Snapshot], bool]) -> None:
    """Has snapshots in another folder too, as further names of the same files; copies on another disk.

    The source is read alone.

    Args:
        source: where they are; what cannot be read there is left out.
        target: where they shall be; those that are there already stay.
        wanted: which.
    """
    there = set(target.names())
    for name in source.names():
        with contextlib.suppress(SnapshotError):
            snapshot = source.open(name)
            if wanted(snapshot) and name not in there:
                target.adopt(snapshot)


def last_step(store: SnapshotStore) -> int:
    """The largest step of a snapshot that can be read; -1 if there is none."""
    last = -1
    for name in store.names():
        with contextlib.suppress(SnapshotError):
            last = max(last, store.open(name).step)
    return last


def lacking(store: SnapshotStore, contents: Mapping[str, str]) -> list[str]:
    """Those names, given with content hashes, whose snapshots are not there, cannot be read, or have another one."""
    gone = []
    for name, content in contents.items():
        try:
            there = store.open(name).content_hash == content
        except SnapshotError:
            there = False
        if not there:
            gone.append(name)
    return gone


def differs(store: SnapshotStore, name: str, content: str) -> bool:
    """Whether a snapshot that can be read has another content hash."""
    try:
        return store.open(name).content_hash != content
    except SnapshotError:
        return False


def link_or_copy(path: Path, target: Path) -> None:
    """A second name of a file, or a copy where the disk has no such names; whole or absent."""
    if not link(path, target):
        copy(path, target)


def copy(path: Path, target: Path) -> None:
    """A copy of a file, whole or absent."""
    with path.open("rb") as old, replacing(target) as new:
        shutil.copyfileobj(old, new)
