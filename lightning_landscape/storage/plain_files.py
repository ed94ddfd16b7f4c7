"""Files that may be read to their end: regular ones, of a size that is known before memory is taken."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from lightning_landscape.storage.atomic import CorruptFileError

LARGEST_DATA = 1 << 30  # bytes of a raw file of data; those that are read here have at most 250 MB


def shown(path: str | os.PathLike[str]) -> str:
    r"""A path as a message can print it, on one line, whatever bytes the name holds.

    Example:
        >>> print(shown(os.fsdecode(b"caf\xe9.ckpt")), shown("two\nlines"))
        caf\xe9.ckpt two\nlines
    """
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def file_size(path: str | os.PathLike[str], most: int | None = None) -> int:
    """The size in bytes of a regular file, which a link may lead to.

    Args:
        path: the file.
        most: bytes that it may have; ``None``: any number.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it cannot be reached.
        CorruptFileError: if it is a folder, a device, a pipe or a socket, or is too large.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, a pipe or a socket, which may have no end"
        raise CorruptFileError(f"{shown(path)} is {kind}: give a file")
    if most is not None and status.st_size > most:
        raise CorruptFileError(
            f"{shown(path)} has {status.st_size} bytes where at most {most} are read: give the file that was meant"
        )
    return status.st_size


def read_to_end(stream: BinaryIO, most: int, path: str | os.PathLike[str]) -> bytes:
    """What is left in a stream that unpacks a file.

    Args:
        stream: where it is read from.
        most: bytes that there may be.
        path: the file, for the message.

    Raises:
        CorruptFileError: if there are more; no more than ``most`` are held.
    """
    content = stream.read(most + 1)
    if len(content) > most:
        raise CorruptFileError(f"{shown(path)} unpacks to more than {most} bytes, as no file of its kind does")
    return content
