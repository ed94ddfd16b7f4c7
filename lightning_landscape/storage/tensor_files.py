"""Safetensors files that appear complete or not at all, and are read whole or refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lightning_landscape.storage.atomic import replacing

SUFFIX = ".safetensors"
REPLACE = "Delete it, or copy it again from where it is intact."


class SnapshotError(ValueError):
    """A file that cannot be trusted or used as a snapshot; the message names it and what to do next."""


def read_safetensors(path: Path, *, tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header metadata and, unless told not to, the tensors of any safetensors file, as CPU copies.

    Raises:
        SnapshotError: if the file is missing, truncated, or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys() if tensors else []
            # The tensors of safe_open are views of the mapped file, which may be replaced or deleted.
            return file.metadata() or {}, {name: file.get_tensor(name).clone() for name in names}
    except FileNotFoundError:
        raise missing(path) from None
    except (SafetensorError, OSError) as error:
        raise SnapshotError(f"{path} is truncated, damaged or no safetensors file ({error}). {REPLACE}") from error


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """Write ``path`` so that it is there complete or not at all, also when the process is killed.

    Raises:
        ValueError: if safetensors cannot hold the tensors.
        OSError: if the disk refuses, for example when it is full; nothing is left behind then.
    """
    data = _serialize(tensors, header)
    with replacing(path) as file:
        file.write(data)


def missing(path: Path) -> SnapshotError:
    """The error for a file that does not exist, naming what its folder holds."""
    others = sorted(other.stem for other in path.parent.glob(f"[!.]*{SUFFIX}"))
    shown = ", ".join(others[:8]) + (", ..." if len(others) > 8 else "")
    return SnapshotError(f"{path} does not exist: " + (f"this folder holds {shown}" if others else "check the folder"))


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
