"""Support selection: the largest coefficients pass a threshold unshrunk."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_landscape.sparse_coding.layers.layer import UnrolledLayer
from lightning_landscape.sparse_coding.problem import LassoProblem, soft_threshold


class ThresholdingLayer(UnrolledLayer):
    """A layer that ends in a soft threshold, with support selection if wanted (Chen et al. 2018).

    Layer number k = 1, 2, ... trusts the share ``p_k = min(growth * k, limit)`` of the m coefficients that are largest
    in magnitude: one of these that exceeds the threshold is kept as it is. With ``growth=0`` every coefficient is
    shrunk; with support selection no layer starts as an iteration of ISTA, which shrinks them all, and a fixed point
    is no minimiser of F: it is for codes that are to be recovered, the loss ``"supervised"``.

    Args:
        problem: the Lasso, on the CPU: its dictionary, its lam and its L.
        index: k - 1, the number of layers before this one, from 0.
        noise: 0 starts exactly there; otherwise how far, relative to their own size, the first values of the
            parameters are moved at random, from the global random state.
        growth: share of coefficients that each further layer trusts, in [0, 1].
        limit: largest share that a layer trusts, in [0, 1].

    Raises:
        ValueError: if ``growth`` or ``limit`` does not lie in [0, 1].
    """

    def __init__(
        self, problem: LassoProblem, index: int = 0, noise: float = 0.0, growth: float = 0.0, limit: float = 0.13
    ) -> None:
        super().__init__(problem, index, noise)
        for name, share in (("growth", growth), ("limit", limit)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {share!r}")
        share = min(growth * (index + 1), limit)
        self.trusted = int(round(share * problem.dictionary.shape[1], 6))  # .29 of 100 are 28.999999999999996

    def shrink(self, moved: Tensor, threshold: Tensor | float) -> Tensor:
        """``h_threshold``, but for what is trusted; row by row.

        Args:
            moved: coefficients before the threshold (batch, m).
            threshold: a number, or one for each atom (m,).
        """
        shrunk = soft_threshold(moved, threshold)
        if self.trusted == 0:
            return shrunk
        largest = moved.abs().topk(self.trusted, dim=1).indices
        support = torch.zeros_like(moved, dtype=torch.bool).scatter(1, largest, True)
        return torch.where(support & (moved.abs() > threshold), moved, shrunk)
