"""A Lightning checkpoint with other weights than those it was saved with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_landscape.storage.atomic import replacing
from lightning_landscape.storage.named_tensors import clean_name
from lightning_landscape.storage.tensor_files import SUFFIX

# What belongs to the weights that were there: of optimisers and callbacks, and the two sets that a
# WeightAveraging callback of Lightning keeps beside the state_dict.
_OF_THE_RUN = ("optimizer_states", "lr_schedulers", "callbacks", "averaging_state", "current_model_state")
_WRAPPED = "module."  # leads every name in a file that was saved from inside DistributedDataParallel


def read_checkpoint(path: str | os.PathLike[str], *, own: bool = False) -> dict[str, Any]:
    """All that a Lightning checkpoint holds, ``{}`` for a ``.safetensors`` file, which says nothing but weights.

    Args:
        path: the file.
        own: this process wrote it, so that hyperparameters which are no plain data may be unpickled.
    """
    if Path(path).suffix == SUFFIX:
        return {}
    return dict(torch.load(path, map_location="cpu", weights_only=not own))


def write_checkpoint(
    path: str | os.PathLike[str],
    state: Mapping[str, Any],
    like: Mapping[str, Any],
    version: str,
    notes: Mapping[str, Any],
) -> None:
    """Writes a checkpoint that ``load_from_checkpoint`` and ``Trainer.test(ckpt_path=)`` take.

    It is that of ``like`` with the weights of ``state`` under the names and in the kinds of numbers that ``like`` has:
    hyperparameters, epoch, step and what hooks have added stay, states of optimisers, schedulers and callbacks go.

    Args:
        path: where to.
        state: all of a module's ``state_dict()``.
        like: a checkpoint of the same module, as :func:`read_checkpoint` gives it.
        version: of ``pytorch_lightning``, for one that does not say it.
        notes: plain data on where the weights come from, under the key ``landscape_average``.

    Raises:
        KeyError: for a tensor of ``like`` that the state lacks.
    """
    saved = like.get("state_dict", state)
    wrapped = all(clean_name(name).startswith(_WRAPPED) for name in saved) and not any(
        name.startswith(_WRAPPED) for name in state
    )
    weights = {}
    for name, value in saved.items():
        if isinstance(value, Tensor):
            own = clean_name(name).removeprefix(_WRAPPED) if wrapped else clean_name(name)
            # A tensor with memory of its own, which torch.save would else write whole.
            value = state[own].detach().to("cpu", value.dtype, copy=True)
        weights[name] = value
    checkpoint = {key: value for key, value in like.items() if key not in _OF_THE_RUN}
    for key, default in (("epoch", 0), ("global_step", 0), ("pytorch-lightning_version", version)):
        checkpoint.setdefault(key, default)
    with replacing(Path(path)) as file:
        torch.save({**checkpoint, "state_dict": weights, "landscape_average": dict(notes)}, file)
