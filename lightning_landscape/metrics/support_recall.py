"""How much of the true support codes find."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_landscape.metrics.shapes import require_codes


class SupportRecall(Metric):
    """Share of the coefficients with ``code != 0`` at which ``|z| > threshold``, over all examples.

    A code without zeros has recall 1: read it beside a measure of error or of sparsity.

    Args:
        threshold: magnitude above which a coefficient of z counts as found.
        kwargs: further keyword arguments, handed to ``torchmetrics.Metric``.

    Raises:
        ValueError: if ``threshold`` is negative or no number; in ``update``, if the two shapes differ or are no
            matrices; in ``compute``, if every code so far is zero.

    Example:
        >>> metric = SupportRecall()
        >>> metric.update(torch.tensor([[0.5, 0.0, 0.1]]), torch.tensor([[1.0, 2.0, 0.0]]))
        >>> metric.compute()
        tensor(0.5000)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    found: Tensor
    present: Tensor

    def __init__(self, threshold: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not threshold >= 0:
            raise ValueError(f"threshold must be at least 0, got {threshold!r}")
        self.threshold = threshold
        self.add_state("found", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("present", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, z: Tensor, code: Tensor) -> None:
        """Add examples: codes found and the codes that signals were made from, both (batch, m)."""
        require_codes(z, code)
        support = code != 0
        self.found = self.found + (support & (z.abs() > self.threshold)).sum()
        self.present = self.present + support.sum()

    def compute(self) -> Tensor:
        """The share in [0, 1]."""
        if self.present == 0:
            raise ValueError("SupportRecall has seen no coefficient that is not zero")
        return self.found / self.present
