"""Safetensors files that appear complete or not at all, and are read whole or refused."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lightning_landscape.storage.atomic import CorruptFileError, replacing
from lightning_landscape.storage.plain_files import file_size, shown

SUFFIX = ".safetensors"
REPLACE = "Copy it again from where it is intact."
_LONGEST_HEADER = 100_000_000  # bytes; safetensors reads none that is longer


class SnapshotError(ValueError):
    """A file that cannot be trusted or used as a snapshot; the message names it and what to do next."""


def read_safetensors(path: Path, *, tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header metadata and, unless told not to, the tensors of any safetensors file, as CPU copies.

    Raises:
        SnapshotError: if the file is missing, truncated, or no safetensors file.
    """
    try:
        _check_header(path, file_size(path))
        with _named_in_utf8(path) as name, safe_open(name, framework="pt", device="cpu") as file:
            names = file.keys() if tensors else []
            # The tensors of safe_open are views of the mapped file, which may be replaced or deleted.
            return file.metadata() or {}, {name: file.get_tensor(name).clone() for name in names}
    except FileNotFoundError:
        raise missing(path) from None
    except CorruptFileError as error:
        raise SnapshotError(str(error)) from error
    except (SafetensorError, OSError, MemoryError) as error:
        message = f"{shown(path)} is truncated, damaged or no safetensors file ({error}). {REPLACE}"
        raise SnapshotError(message) from error


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """Write ``path`` so that it is there complete or not at all, also when the process is killed.

    Raises:
        ValueError: if safetensors cannot hold the tensors.
        OSError: if the disk refuses, for example when it is full; nothing is left behind then.
    """
    data = _serialize(tensors, header)
    with replacing(path) as file:
        file.write(data)


def _check_header(path: Path, size: int) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    declared = int.from_bytes(start, "little")
    if len(start) < 8 or declared > min(size - 8, _LONGEST_HEADER):
        raise SnapshotError(
            f"{shown(path)} is truncated, damaged or no safetensors file: it has {size} bytes and its start "
            f"declares a header of {declared}. {REPLACE}"
        )


@contextmanager
def _named_in_utf8(path: Path) -> Iterator[Path]:
    """A name of the file that safetensors can open, which takes no other bytes than UTF-8."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder, "weights")
            link.symlink_to(path.absolute())
            yield link
        return
    yield path


def missing(path: Path) -> SnapshotError:
    """The error for a file that does not exist, naming what its folder holds."""
    others = sorted(other.stem for other in path.parent.glob(f"[!.]*{SUFFIX}"))
    some = ", ".join(map(shown, others[:8])) + (", ..." if len(others) > 8 else "")
    what = f"this folder holds {some}" if others else "check the folder"
    return SnapshotError(f"{shown(path)} does not exist: {what}{removed(path)}")


def removed(path: Path) -> str:
    """What to do about a file that may have been a snapshot; empty where its name or folder says that it was none."""
    if path.suffix != SUFFIX or (path.parent.name != "snapshots" and "-step=" not in path.stem):
        return ""
    return "; callbacks remove snapshots that no later check needs: train with keep='all' to have every one"


def _serialize(tensors: Mapping[str, Tensor], header: dict[str, str]) -> bytes:
    if not tensors:
        raise ValueError("a snapshot needs at least one tensor; this module has no parameters and no buffers")
    if "__metadata__" in tensors:
        raise ValueError("safetensors reserves the name '__metadata__': rename this tensor")
    try:
        return save(dict(tensors), metadata=header)
    except (KeyError, ValueError, SafetensorError) as error:
        dtypes = ", ".join(sorted({str(tensor.dtype) for tensor in tensors.values()}))
        raise ValueError(f"safetensors cannot hold one of these dtypes: {dtypes} ({error}); convert it") from error
