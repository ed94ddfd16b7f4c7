"""The weights of a shallower unrolled network, checked to be the first layers of a deeper one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_landscape.sparse_coding.problem import LassoProblem


def prefix_state(
    source: str | Path | Mapping[str, Tensor], own: Mapping[str, Tensor], problem: LassoProblem, layer: str
) -> dict[str, Tensor]:
    """The named tensors of a network whose layers ``layers.0``, ..., ``layers.j`` are among those of ``own``.

    Args:
        source: a checkpoint of :class:`~lightning_landscape.models.UnrolledSparseCoder`, or its ``state_dict``.
        own: the state of the network that takes them.
        problem: the problem of that network.
        layer: the kind of its layers.

    Raises:
        ValueError: if the source is of another kind, another problem, or deeper. The problem of a ``state_dict`` is
            known by its dictionary alone, its kind by the names and shapes of its tensors.
        FileNotFoundError: if the checkpoint does not exist.
    """
    if isinstance(source, str | Path):
        checkpoint = torch.load(source, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint, dict) or not {"state_dict", "lam"} <= checkpoint.keys():
            raise ValueError(f"{source} is no checkpoint of UnrolledSparseCoder: it holds no state_dict and lam")
        state, lam, name = dict(checkpoint["state_dict"]), checkpoint["lam"], f"of {source}"
        require_same_layer(checkpoint, layer, name)
    else:
        state, lam, name = dict(source), problem.lam, "of the given state"
    if "dictionary" not in state:
        raise ValueError(f"the state {name} holds no dictionary: give that of an UnrolledSparseCoder")
    require_same_problem(problem, state["dictionary"], lam, name)
    wrong = [key for key, value in state.items() if key not in own or own[key].shape != value.shape]
    given = {_place(key) for key in state} - {None}
    wrong += sorted(key for key in own if _place(key) in given and key not in state)
    depth = len(given)
    if wrong or depth == 0:
        raise ValueError(
            f"the network {name} has {depth} layers, which are not the first ones of this network: {wrong[:3]} "
            "differ. Give one with layers of the same kind that is not deeper"
        )
    return state


def require_same_layer(checkpoint: Mapping[str, Any], layer: str, name: str) -> None:
    """Raise a ValueError unless the checkpoint, ``name``, has layers of kind ``layer``; tensors alone do not tell."""
    found = checkpoint["hyper_parameters"]["layer"]
    if found != layer:
        raise ValueError(f"the network {name} has layers of kind {found!r}, and this one {layer!r}: take one kind")


def require_same_problem(problem: LassoProblem, dictionary: Tensor, lam: float, name: str) -> None:
    """Raise a ValueError unless ``dictionary`` and ``lam``, those ``name``, are the problem's, up to rounding."""
    same = dictionary.shape == problem.dictionary.shape and bool(
        torch.isclose(dictionary.cpu().double(), problem.dictionary.double(), rtol=1e-5, atol=1e-7).all()
    )
    if not same or not math.isclose(lam, problem.lam, rel_tol=1e-6):
        raise ValueError(
            f"the problem {name}, with lam={lam:g} and a dictionary of shape {tuple(dictionary.shape)}, is not that of "
            f"the network, with lam={problem.lam:g} and shape {tuple(problem.dictionary.shape)}: give it what it was "
            "built for"
        )


def _place(key: str) -> int | None:
    """The number k of a tensor of layer k."""
    parts = key.split(".")
    return int(parts[1]) if parts[0] == "layers" else None
