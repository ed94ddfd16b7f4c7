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

from lightning_landscape.storage.named_tensors import clean_name
from lightning_landscape.storage.snapshots import is_snapshot, parse_header
from lightning_landscape.storage.tensor_files import SUFFIX, SnapshotError, read_safetensors


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
            f"{file} is a folder, perhaps a sharded checkpoint: merge it into one file with "
            f"`python -m pytorch_lightning.utilities.consolidate_checkpoint {file}`"
        )
    if not file.exists():
        raise SnapshotError(f"{file} does not exist: pass a .safetensors file or a Lightning .ckpt")
    if file.suffix != SUFFIX:
        return _clean(file, _checkpoint_state(file))
    header, tensors = read_safetensors(file)
    return parse_header(file, header).state_dict() if is_snapshot(header) else _clean(file, tensors)


def _checkpoint_state(file: Path) -> dict[str, Tensor]:
    try:
        # Mapped, the optimizer's states, often twice the weights, are never read.
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        refused = f"holds {found[1]}, which is not plain data" if found else "is no checkpoint that torch.load can read"
        raise SnapshotError(
            f"{file} {refused}; it is not unpickled, since that could run code. If you trust it, convert it once: "
            f"weights = torch.load({str(file)!r}, weights_only=False)['state_dict']; "
            "torch.save({'state_dict': weights}, 'weights.ckpt')"
        ) from error
    except Exception as error:  # whatever torch makes of a file that it did not write
        raise SnapshotError(f"{file} is truncated or no checkpoint ({error!r}): copy it again") from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping):
        keys = ", ".join(map(str, checkpoint)) if isinstance(checkpoint, Mapping) else type(checkpoint).__name__
        raise SnapshotError(
            f"{file} has no 'state_dict' (it holds: {keys}). For a bare state_dict, wrap it: "
            "torch.save({'state_dict': weights}, 'weights.ckpt')"
        )
    # Copied out of the map, for the file may be overwritten while the tensors live.
    return {str(name): value.clone() for name, value in state.items() if isinstance(value, Tensor)}


def _clean(file: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    cleaned = {clean_name(name): tensor for name, tensor in tensors.items()}
    if len(cleaned) < len(tensors):
        raise SnapshotError(f"{file} holds two tensors of one name once '_orig_mod.' is removed: rename one of them")
    return cleaned
