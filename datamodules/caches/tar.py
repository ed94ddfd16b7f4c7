"""The files of CIFAR, checked and copied into a cache folder so that no half file is ever seen."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from torchvision.datasets.utils import calculate_md5

from lightning_landscape.storage.atomic import CorruptFileError, replacing

_CHUNK = 1 << 20


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
    with _damage_named(archive), tarfile.open(archive, "r|*") as members:
        for member in members:
            name = PurePosixPath(member.name).name
            if member.isfile() and name in wanted:
                stream = members.extractfile(member)
                assert stream is not None  # it is for members that are no files
                _write_checked(stream, target / name, wanted.pop(name), f"{name} in {archive}")
            if not wanted:
                break
    if wanted:
        raise CorruptFileError(f"{archive} is damaged: it lacks {', '.join(wanted)}. Fetch it anew")


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
