"""Normalised error of codes in decibels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_landscape.metrics.shapes import require_codes


class NMSE(Metric):
    """``10 log10( sum ||z - code||^2 / sum ||code||^2 )`` in dB, sums over all examples (Chen et al. 2018).

    0 dB is what the code zero has; minus infinity is perfect.

    Args:
        kwargs: further keyword arguments, handed to ``torchmetrics.Metric``.

    Raises:
        ValueError: in ``update``, if the two shapes differ or are no matrices; in ``compute``, if every code so far
            is zero.

    Example:
        >>> metric = NMSE()
        >>> metric.update(torch.tensor([[0.9, 0.0]]), torch.tensor([[1.0, 0.0]]))
        >>> round(metric.compute().item(), 3)
        -20.0
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    error: Tensor
    energy: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("error", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("energy", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, z: Tensor, code: Tensor) -> None:
        """Add examples: codes found and the codes that signals were made from, both (batch, m)."""
        require_codes(z, code)
        self.error = self.error + (z.double() - code.double()).square().sum()
        self.energy = self.energy + code.double().square().sum()

    def compute(self) -> Tensor:
        """The ratio in dB, float64."""
        if self.energy == 0:
            raise ValueError("NMSE is relative to the codes, and has seen none that is not zero")
        return 10 * torch.log10(self.error / self.energy)
