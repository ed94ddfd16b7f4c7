"""The files of CIFAR, checked and copied into a cache folder so that no half file is ever seen."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO, cast

from torchvision.datasets.utils import calculate_md5

from lightning_landscape.storage.atomic import CorruptFileError, replacing
from lightning_landscape.storage.plain_files import LARGEST_DATA, file_size, shown

_CHUNK = 1 << 20
_PACKING, _SMALL = 20, 1 << 24  # photographs become 1.1 times smaller; tiny archives of one colour more


def check_files(folder: Path, checksums: Mapping[str, str]) -> None:
    """Compare the md5 of the files in ``folder`` with those of ``checksums``, by name.

    Raises:
        FileNotFoundError: for the first file that is missing.
        CorruptFileError: for the first that is damaged.
    """
    for name, md5 in checksums.items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing")
        _require_md5(calculate_md5(path), md5, str(path))


def lacking(folder: Path, checksums: Mapping[str, str]) -> dict[str, str]:
    """The part of ``checksums`` whose files are missing from ``folder`` or damaged there."""
    found = {name for name in checksums if (folder / name).is_file()}
    return {name: md5 for name, md5 in checksums.items() if name not in found or calculate_md5(folder / name) != md5}


def copy_files(source: Path, target: Path, checksums: Mapping[str, str]) -> None:
    """Copy the files of ``checksums`` from one folder to another; each appears there whole or not at all.

    Raises:
        CorruptFileError: for a file whose md5 is another.
    """
    for name, md5 in checksums.items():
        file_size(source / name, most=LARGEST_DATA)
        with (source / name).open("rb") as stream:
            _write_checked(stream, target / name, md5, str(source / name))


def unpack_files(archive: Path, target: Path, checksums: Mapping[str, str]) -> None:
    """Unpack the files of ``checksums`` from a tar archive, gzipped, xz or plain, in one pass.

    They are known by their last name, wherever in the archive they lie; whatever else it holds is passed over, so
    that nothing is ever written outside of ``target``. Each file appears there whole or not at all.

    Raises:
        CorruptFileError: if the archive is damaged, lacks a file or holds one whose md5 is another.
    """
    wanted = dict(checksums)
    with _damage_named(archive), _unpacked(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as members:
        for member in members:
            name = PurePosixPath(member.name).name
            if member.isfile() and not member.issparse() and name in wanted:
                content = members.extractfile(member)
                assert content is not None  # it is for members that are no files
                _write_checked(content, target / name, wanted.pop(name), f"{name} in {archive}")
            if not wanted:
                break
    if wanted:
        raise CorruptFileError(f"{archive} is damaged: it lacks {', '.join(wanted)}. Fetch it anew")


class _Bounded(io.RawIOBase):
    """What a file unpacks to, up to a number of bytes: tarfile takes memory as the archive tells it to."""

    def __init__(self, stream: IO[bytes], most: int, archive: Path) -> None:
        self._stream, self._left, self._archive = stream, most, archive

    def read(self, size: int = -1) -> bytes:
        """The next bytes, in pieces."""
        parts = []
        while size and (part := self._stream.read(min(size, _CHUNK) if size > 0 else _CHUNK)):
            self._left -= len(part)
            if self._left < 0:
                raise CorruptFileError(f"{shown(self._archive)} unpacks to far more than it should. Fetch it anew")
            parts.append(part)
            size -= len(part) if size > 0 else 0
        return b"".join(parts)


@contextmanager
def _unpacked(archive: Path) -> Iterator[_Bounded]:
    most = _PACKING * file_size(archive, most=LARGEST_DATA) + _SMALL
    with archive.open("rb") as file:
        start = file.read(6)
        file.seek(0)
        unpack = gzip.open if start.startswith(b"\x1f\x8b") else lzma.open if start == b"\xfd7zXZ\x00" else nullcontext
        with unpack(file) as stream:
            yield _Bounded(cast(IO[bytes], stream), most, archive)


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise CorruptFileError(f"{archive} is damaged: {error}. Fetch it anew") from error


def _write_checked(stream: IO[bytes], target: Path, md5: str, origin: str) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with replacing(target) as file:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
        _require_md5(digest.hexdigest(), md5, origin)


def _require_md5(found: str, md5: str, origin: str) -> None:
    if found != md5:
        raise CorruptFileError(f"{origin} is damaged: its md5 is {found} and should be {md5}. Fetch it anew")
