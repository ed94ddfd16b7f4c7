"""How far codes are from the minimum of F."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_landscape.metrics.shapes import require_vectors


class Suboptimality(Metric):
    """Mean of ``F(z) - F*`` over all examples.

    Updated with objectives (batch,) and optima (batch,), where F* comes from ``reference_optimum``. Compute F in
    float64 where the difference is below 1e-6 F: that of two float32 numbers is noise, and may be negative.

    Args:
        kwargs: further keyword arguments, handed to ``torchmetrics.Metric``.

    Raises:
        ValueError: in ``update``, if the two are not vectors of one length; in ``compute``, before any example.

    Example:
        >>> metric = Suboptimality()
        >>> metric.update(torch.tensor([1.5, 2.0]), torch.tensor([1.0, 1.0]))
        >>> metric.compute()
        tensor(0.7500, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, objectives: Tensor, optima: Tensor) -> None:
        """Add examples: F(z) (batch,) and F* (batch,)."""
        require_vectors(objectives=objectives, optima=optima)
        self.total = self.total + (objectives.double() - optima.double()).sum()
        self.count = self.count + len(objectives)

    def compute(self) -> Tensor:
        """The mean over all examples, float64."""
        if self.count == 0:
            raise ValueError("Suboptimality has seen no example: call update first")
        return self.total / self.count
