"""Flat parameter vectors as lists of weight matrices, and paths through such lists."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn

from lightning_landscape.path import Path

Weights = list[Tensor]


def weights_at(module: nn.Module, theta: Tensor) -> Weights:
    """The weight matrices that ``theta`` (P,) holds, in float64, in the order of ``named_parameters()``.

    Raises:
        ValueError: if theta has another length, is not finite, or parameters of the module are frozen or tied: the
            theorems move all weights, each by itself.
    """
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise ValueError(f"the theorem moves all weights and {frozen} are frozen: call module.requires_grad_()")
    if len(list(module.named_parameters(remove_duplicate=False))) > len(list(module.parameters())):
        raise ValueError("the theorem moves each matrix by itself and some are tied: give every layer its own weight")
    shapes = [parameter.shape for parameter in module.parameters()]
    sizes = [shape.numel() for shape in shapes]
    if theta.shape != (sum(sizes),):
        raise ValueError(f"expected parameters of shape ({sum(sizes)},), got {tuple(theta.shape)}")
    flat = theta.detach().to("cpu", torch.float64)
    if not bool(flat.isfinite().all()):
        raise ValueError("theta must be finite, got NaN or infinite entries")
    return [part.reshape(shape).clone() for part, shape in zip(flat.split(sizes), shapes, strict=True)]


def flatten(weights: Weights) -> Tensor:
    """The flat vector (P,) of the matrices."""
    return torch.cat([weight.reshape(-1) for weight in weights])


def path_through(states: Iterable[Weights]) -> Path:
    """The path with a bead at each state, but for repetitions.

    A path that never moves has two equal beads.
    """
    beads = [flatten(state) for state in states]
    kept = [beads[0], *(bead for before, bead in pairwise(beads) if not torch.equal(before, bead))]
    return Path(torch.stack(kept if len(kept) > 1 else [*kept, *kept]))


def product(factors: Weights, size: int) -> Tensor:
    """``factors[0] @ factors[1] @ ...``; without factors the identity of the given size."""
    result = torch.eye(size, dtype=torch.float64)
    for index, factor in enumerate(factors):
        result = factor if index == 0 else result @ factor
    return result
