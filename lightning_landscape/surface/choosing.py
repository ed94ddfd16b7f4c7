"""Whether stacks of points go through ``torch.func.vmap``: by a rule, never by a clock, so that equal runs round alike.

Measured on two cores (14 networks, torch 2.14.1, batches of 16 to 256): vmap wins on dense networks of up to about
300,000 parameters, from stacks of four points on, by 1.1 to 2.4; it loses on convolutions, on attention, and on larger
weights, which no longer fit the cache. Recurrent layers run in the loop alone. On other devices, where starting kernels
is what costs, it is taken up to a million parameters; that bound is not measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_landscape.surface.evaluation import (
    computing,
    gradients_by_loop,
    gradients_by_vmap,
    losses_by_loop,
    losses_by_vmap,
)
from lightning_landscape.surface.objective import Objective

LEAST = 4  # points, from which on a stack is worth its price
_CPU, _OTHER = 300_000, 1_000_000  # parameters
_PIECE = 2**14  # numbers compared at once
_SLOW_ON_CPU = (_ConvNd, nn.MultiheadAttention)


def vmap_suits(module: nn.Module, dimension: int, device: torch.device) -> bool:
    """Whether the rule above says vmap for a module with ``dimension`` trainable parameters.

    Example:
        >>> vmap_suits(nn.Linear(3, 2), 8, torch.device("cpu")), vmap_suits(nn.Conv2d(1, 1, 3), 10, torch.device("cpu"))
        (True, False)
    """
    parts = list(module.modules())
    if any(isinstance(part, nn.RNNBase) for part in parts):
        return False
    if device.type != "cpu":
        return dimension <= _OTHER
    graphs = any(type(part).__module__.startswith("torch_geometric.") for part in parts)
    return dimension <= _CPU and not graphs and not any(isinstance(part, _SLOW_ON_CPU) for part in parts)


def vmap_fault(
    objective: Objective, descended: Objective, origin: Tensor, batches: Iterable[Any], batch: Any
) -> str | None:
    """Why stacks cannot go through vmap, if they cannot: both ways are compared at one point.

    Args:
        objective: E.
        descended: the loss that gradients are taken of.
        origin: the point, tensor (P,).
        batches: all batches of E.
        batch: one batch to take gradients on.
    """
    stack = origin[None]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of slow batching rules
            with computing(objective.needs_grad):
                losses = losses_by_vmap(objective, stack, batches, objective.wide)
            with computing(True):
                _, gradients = gradients_by_vmap(descended, stack, batch)
    except Exception as error:  # torch raises many kinds where a module cannot run under vmap
        return f"{type(error).__name__}: {error}"
    with computing(objective.needs_grad):
        if not _agree(losses_by_loop(objective, stack, batches, objective.wide), losses):
            return "it gives other losses than one point after another, as where parameters are kept in a list"
    with computing(True):
        if not _agree(gradients_by_loop(descended, stack, batch)[1], gradients):
            return "it gives other gradients than one point after another, as where the loss draws random numbers"
    return None


def _agree(by_loop: Tensor, by_vmap: Tensor) -> bool:
    # In pieces, so that the comparison of two gradients takes no further copies of the weights.
    pieces = list(zip(by_loop.flatten().split(_PIECE), by_vmap.flatten().split(_PIECE), strict=True))
    scale = max(float(piece.nan_to_num(posinf=0.0, neginf=0.0).abs().max()) for piece, _ in pieces)
    return all(
        torch.allclose(other, piece.to(other), rtol=1e-3, atol=1e-4 * scale, equal_nan=True) for piece, other in pieces
    )
