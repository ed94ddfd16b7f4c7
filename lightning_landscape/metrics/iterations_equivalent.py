"""How many iterations of a solver reach the mean objective of a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

ROUNDING = 1e-6  # of F, relative: what codes of a network in float32 lie off those of a solver in float64


class IterationsEquivalent(Metric):
    """The smallest k for which the mean of F over the solver's z_k is at most the mean of F over given codes.

    Both means are over the same examples, and compared up to a millionth, so that rounding in float32 is not worth an
    iteration. Infinity says that more than ``num_iterations`` are needed. With a curve of ISTA, "a network of 7 layers
    is worth 44 iterations" is the value 44.

    Args:
        num_iterations: K, how far the solver was run.
        kwargs: further keyword arguments, handed to ``torchmetrics.Metric``.

    Raises:
        ValueError: if ``num_iterations`` is no integer from 1; in ``update``, for other shapes than it names; in
            ``compute``, before any example.

    Example:
        >>> metric = IterationsEquivalent(num_iterations=3)
        >>> curve = torch.tensor([[8.0, 4.0, 2.0, 1.0]])  # F(z_0), ..., F(z_3) of one example, from cost_curve
        >>> metric.update(torch.tensor([2.5]), curve)
        >>> metric.compute()
        tensor(2.)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: Tensor
    curve: Tensor
    count: Tensor

    def __init__(self, num_iterations: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(num_iterations, bool) or not isinstance(num_iterations, int) or num_iterations < 1:
            raise ValueError(f"num_iterations must be an integer of at least 1, got {num_iterations!r}")
        self.num_iterations = num_iterations
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("curve", torch.zeros(num_iterations + 1, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, objectives: Tensor, curves: Tensor) -> None:
        """Add examples: F of their codes (batch,), and F(z_0), ..., F(z_K) of the solver (batch, K + 1)."""
        expected = (len(objectives), self.num_iterations + 1) if objectives.ndim == 1 else None
        if expected is None or curves.shape != expected:
            raise ValueError(
                f"objectives must have shape (batch,) and curves (batch, {self.num_iterations + 1}), got "
                f"{tuple(objectives.shape)} and {tuple(curves.shape)}"
            )
        self.total = self.total + objectives.double().sum()
        self.curve = self.curve + curves.double().sum(dim=0)
        self.count = self.count + len(objectives)

    def compute(self) -> Tensor:
        """The number of iterations, or infinity; NaN if the mean objective is NaN."""
        if self.count == 0:
            raise ValueError("IterationsEquivalent has seen no example: call update first")
        if self.total.isnan():
            return torch.full((), torch.nan, device=self.total.device)
        reached = (self.curve <= (1 + ROUNDING) * self.total).nonzero().flatten()
        return reached[0].float() if len(reached) else torch.full((), torch.inf, device=self.total.device)
