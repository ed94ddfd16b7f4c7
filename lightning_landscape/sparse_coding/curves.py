"""Objectives along the iterations of a solver."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lightning_landscape.sparse_coding.problem import LassoProblem


@torch.no_grad()
def cost_curve(
    problem: LassoProblem,
    x: Tensor,
    iterates: Callable[[LassoProblem, Tensor], Iterator[Tensor]],
    num_iterations: int,
) -> Tensor:
    """``F(z_0), ..., F(z_K)`` of each row, (batch, K + 1), float64.

    Args:
        problem: the Lasso; it is run in float64.
        x: signals (batch, n).
        iterates: ``ista_iterates`` or ``fista_iterates``.
        num_iterations: K.

    Example:
        >>> from lightning_landscape.sparse_coding import ista_iterates
        >>> cost_curve(LassoProblem(torch.eye(1), lam=0.5), torch.tensor([[2.0]]), ista_iterates, num_iterations=2)
        tensor([[2.0000, 0.8750, 0.8750]], dtype=torch.float64)
    """
    precise, signals = problem.to(torch.float64), x.double()
    codes = iterates(precise, signals)
    return torch.stack([precise.objective(signals, next(codes)) for _ in range(num_iterations + 1)], dim=1)
