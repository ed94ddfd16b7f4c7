"""Gzipped idx files, the format of MNIST, unpacked into a cache folder so that no half file is ever seen."""

from __future__ import annotations

import gzip
import math
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path

from torchvision.datasets.utils import calculate_md5

from lightning_landscape.storage.atomic import CorruptFileError, replacing
from lightning_landscape.storage.plain_files import LARGEST_DATA, file_size

_UNSIGNED_BYTE = b"\x00\x00\x08"


def check_idx(path: Path) -> None:
    """Compare the size of an unpacked idx file of unsigned bytes with the size its header declares.

    The header is the magic number 0x000008nn for nn dimensions and nn big-endian uint32 sizes.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if the header is not that of an idx file, or the file is shorter or longer.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    with path.open("rb") as file:
        magic = file.read(4)
        sizes = file.read(4 * magic[3]) if len(magic) == 4 else b""
    if magic[:3] != _UNSIGNED_BYTE or len(sizes) != 4 * magic[3]:
        raise CorruptFileError(f"{path} is damaged: it does not start with the header of an idx file")
    expected = len(magic) + len(sizes) + math.prod(struct.unpack(f">{magic[3]}I", sizes))
    found = path.stat().st_size
    if found != expected:
        fault = "truncated" if found < expected else "damaged"
        raise CorruptFileError(f"{path} is {fault}: it has {found} bytes and its header declares {expected}")


def is_complete(path: Path) -> bool:
    """Whether :func:`check_idx` finds nothing wrong with ``path``."""
    try:
        check_idx(path)
    except (FileNotFoundError, CorruptFileError):
        return False
    return True


def find_archives(source: Path, names: Iterable[str]) -> Path | None:
    """The folder that holds all the files ``names``: ``source`` or ``source/MNIST/raw``, else ``None``."""
    names = list(names)
    for folder in (source, source / "MNIST" / "raw"):
        if all((folder / name).is_file() for name in names):
            return folder
    return None


def unpack(archive: Path, md5: str, target: Path) -> None:
    """Unpack a gzip file once its checksum is right; ``target`` appears whole or not at all.

    Processes that unpack at once do not disturb each other, and ``archive`` is only read.

    Raises:
        CorruptFileError: if the md5 of ``archive`` is another.
    """
    file_size(archive, most=LARGEST_DATA)
    found = calculate_md5(archive)
    if found != md5:
        raise CorruptFileError(f"{archive} is damaged: its md5 is {found} and should be {md5}. Fetch it anew")
    with gzip.open(archive, "rb") as packed, replacing(target) as file:
        shutil.copyfileobj(packed, file)
