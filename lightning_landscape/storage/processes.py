"""Which process made a file, and whether it is gone."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
from pathlib import Path

_PROC = Path("/proc")


def this_process() -> str:
    """A name of the running process that no other has: its place, its number, and when it started.

    The place is one boot of one machine, and there one name space of process numbers, as a container has. Where the
    system has no ``/proc`` the last part is empty, and nobody can tell whether such a process is gone.

    Example:
        >>> this_process() == this_process(), is_gone(this_process())
        (True, False)
    """
    return f"{_place()}-{os.getpid()}-{_started(os.getpid()) or ''}"


def is_gone(process: str) -> bool:
    """Whether a process of :func:`this_process` has ended; ``False`` where that cannot be seen from here.

    A process of another machine or container is never called gone, because its numbers mean nothing here.

    Example:
        >>> is_gone("another place-1-1")
        False
    """
    place, _, rest = process.rpartition("-")
    place, _, number = place.rpartition("-")
    if place != _place() or not number.isdigit() or not rest:
        return False
    return _started(int(number)) != rest


def _started(number: int) -> str | None:
    """When a process started, in ticks since the machine did; ``None`` for one that has ended."""
    try:
        text = (_PROC / str(number) / "stat").read_text(errors="replace")
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return None if state in "ZX" else fields[18]  # a zombie has ended and is still listed


@functools.cache
def _place() -> str:
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts += [(_PROC / "sys/kernel/random/boot_id").read_text(), os.readlink(_PROC / "self/ns/pid")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
