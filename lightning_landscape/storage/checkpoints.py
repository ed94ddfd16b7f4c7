"""Weights of another run, from a snapshot, any safetensors file or a Lightning checkpoint."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lightning_landscape.storage.atomic import CorruptFileError
from lightning_landscape.storage.named_tensors import clean_name
from lightning_landscape.storage.plain_files import file_size, shown
from lightning_landscape.storage.snapshots import is_snapshot, parse_header
from lightning_landscape.storage.tensor_files import SUFFIX, SnapshotError, read_safetensors, removed

_REPEATED, _SMALL = 8, 1 << 26  # tied weights come several times, and small buffers may be expanded


def read_reference(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Parameters and buffers of another run, on the CPU, as ``module.load_state_dict`` wants them.

    Args:
        path: a snapshot of ours (verified against its content hash), any other ``.safetensors`` file, or a
            Lightning ``.ckpt``, whose ``state_dict`` is read. Nothing that could run code is unpickled.

    Returns:
        Tensors by name, without the ``_orig_mod.`` parts of ``torch.compile``. Entries of a checkpoint that
        are not tensors (``_extra_state``) are left out.

    Raises:
        SnapshotError: if the file is missing, damaged, refused by ``weights_only`` or has no ``state_dict``;
            the message says how to convert it.
    """
    file = Path(path)
    if file.is_dir():
        raise SnapshotError(
            f"{shown(file)} is a folder, perhaps a sharded checkpoint: merge it into one file with "
            f"`python -m pytorch_lightning.utilities.consolidate_checkpoint {shown(file)}`"
        )
    try:
        file_size(file)
    except FileNotFoundError:
        what = "pass a .safetensors file or a Lightning .ckpt"
        raise SnapshotError(f"{shown(file)} does not exist: {what}{removed(file)}") from None
    except (OSError, ValueError) as error:  # no permission, a name that is too long, a null in it
        raise SnapshotError(f"{shown(file)} cannot be read ({error}): give another path") from error
    except CorruptFileError as error:
        raise SnapshotError(f"{error}, a .safetensors file or a Lightning .ckpt") from error
    if file.suffix != SUFFIX:
        return _clean(file, _checkpoint_state(file))
    header, tensors = read_safetensors(file)
    return parse_header(file, header).state_dict() if is_snapshot(header) else _clean(file, tensors)


def _checkpoint_state(file: Path) -> dict[str, Tensor]:
    packed = _check_archive(file)
    try:
        # Mapped, the optimizer's states, often twice the weights, are never read.
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=packed)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        refused = f"holds {found[1]}, which is not plain data" if found else "is no checkpoint that torch.load can read"
        raise SnapshotError(
            f"{shown(file)} {refused}; it is not unpickled, since that could run code. If you trust it, convert it "
            f"once: weights = torch.load({str(file)!r}, weights_only=False)['state_dict']; "
            "torch.save({'state_dict': weights}, 'weights.ckpt')"
        ) from error
    except Exception as error:  # whatever torch makes of a file that it did not write
        raise SnapshotError(f"{shown(file)} is truncated or no checkpoint ({error!r}): copy it again") from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping):
        keys = (
            ", ".join(key for key in checkpoint if isinstance(key, str))
            if isinstance(checkpoint, Mapping)
            else type(checkpoint).__name__
        )
        raise SnapshotError(
            f"{shown(file)} has no 'state_dict' (it holds: {keys[:200]}). For a bare state_dict, wrap it: "
            "torch.save({'state_dict': weights}, 'weights.ckpt')"
        )
    tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
    _check_sizes(file, tensors)
    # Copied out of the map, for the file may be overwritten while the tensors live.
    return {name: value.clone() for name, value in tensors.items()}


def _check_archive(file: Path) -> bool:
    """Whether it is a zip archive, of which torch.load takes memory as its members declare it.

    Raises:
        SnapshotError: if a member is packed, or they declare more bytes than there are.
    """
    with file.open("rb") as stream:
        zipped = stream.read(4) == b"PK\x03\x04"
    if not zipped:
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise SnapshotError(f"{shown(file)} is truncated or no checkpoint ({error!r}): copy it again") from error
    declared, size = sum(member.file_size for member in members), file_size(file)
    if declared > size or any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise SnapshotError(
            f"{shown(file)} is no checkpoint of torch.save, which packs nothing: it has {size} bytes and would unpack "
            f"to {declared}. If it was packed again, load it where you trust it and save it with torch.save"
        )
    return True


def _check_sizes(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuses tensors that repeat few numbers so often that copies would fill the memory.

    Raises:
        SnapshotError: if all tensors together have far more bytes than the file.
    """
    declared = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    size = file_size(file)
    if declared > _REPEATED * size + _SMALL:
        raise SnapshotError(
            f"{shown(file)} has {size} bytes, and its tensors would take {declared}: they repeat the same numbers. If "
            "this is meant, save them as they are needed, tensor.clone()"
        )


def _clean(file: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    cleaned = {clean_name(name): tensor for name, tensor in tensors.items()}
    if len(cleaned) < len(tensors):
        raise SnapshotError(
            f"{shown(file)} holds two tensors of one name once '_orig_mod.' is removed: rename one of them"
        )
    return cleaned
