"""What one batch of sparse coding holds."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class SparseCodingBatch(NamedTuple):
    """Signals, and what is known of their codes; the same four fields for every data set and split.

    Attributes:
        x: signals (batch, n).
        code: the codes (batch, m) that the signals were made from, ``None`` for real data and where x was drawn
            by itself. In general not a minimiser of F.
        solution: minimisers z* (batch, m) of F, float64; ``None`` for training batches.
        optimum: F(z*) (batch,), float64, within 1e-9 of the minimum, relatively; ``None`` for training batches.
    """

    x: Tensor
    code: Tensor | None = None
    solution: Tensor | None = None
    optimum: Tensor | None = None
