"""LISTA-CP: one matrix a layer, coupled; with support selection if wanted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_landscape.sparse_coding.layers.layer import UnrolledLayer, ones
from lightning_landscape.sparse_coding.problem import LassoProblem, soft_threshold


class LISTACPLayer(UnrolledLayer, kind="lista_cp"):
    """``z+ = h_{lam theta}(z + W^T (x - D z))``, of LISTA with coupled weights (Chen et al. 2018).

    W (n, m) and the number theta are learned, each layer its own. At the start, ``W = D/L`` and ``theta = 1/L``, it is
    an iteration of ISTA. The parameter ``theta`` holds L times theta.

    Args:
        problem: the Lasso, on the CPU: its dictionary, its lam and its L.
        index: k, the number of layers before this one, from 0.
        noise: 0 starts exactly there; otherwise how far, relative to their own size, the first values of the
            parameters are moved at random, from the global random state.
    """

    W: Tensor
    theta: Tensor

    def start(self) -> dict[str, Tensor]:
        """``W = D/L`` and the threshold of ISTA: ``theta`` = 1."""
        return {"W": self.problem.dictionary.double() / self.problem.lipschitz, "theta": ones()}

    def forward(self, dictionary: Tensor, x: Tensor, z: Tensor, previous: Tensor) -> Tensor:
        """One step, which does not read ``previous``."""
        moved = z + (x - z @ dictionary.T) @ self.W
        return self.shrink(moved, self.problem.lam / self.problem.lipschitz * self.theta)

    def shrink(self, moved: Tensor, threshold: Tensor) -> Tensor:
        """``h_threshold``, row by row."""
        return soft_threshold(moved, threshold)


class LISTACPSSLayer(LISTACPLayer, kind="lista_cpss"):
    """LISTA-CP with support selection: the largest coefficients pass unshrunk (Chen et al. 2018).

    Layer number k = 1, 2, ... trusts the share ``p_k = min(growth * k, limit)`` of the m coefficients that are largest
    in magnitude: one of these that exceeds the threshold is kept as it is. With ``growth=0`` it is LISTA-CP, which
    starts as ISTA; with support selection no start does, because ISTA shrinks every coefficient.

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

    def __init__(self, problem: LassoProblem, index: int = 0, growth: float = 0.012, limit: float = 0.13, **start: Any):
        super().__init__(problem, index, **start)
        for name, share in (("growth", growth), ("limit", limit)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {share!r}")
        share = min(growth * (index + 1), limit)
        self.trusted = int(round(share * problem.dictionary.shape[1], 6))  # .29 of 100 are 28.999999999999996

    def shrink(self, moved: Tensor, threshold: Tensor) -> Tensor:
        """``h_threshold``, but for what is trusted."""
        shrunk = soft_threshold(moved, threshold)
        if self.trusted == 0:
            return shrunk
        largest = moved.abs().topk(self.trusted, dim=1).indices
        support = torch.zeros_like(moved, dtype=torch.bool).scatter(1, largest, True)
        return torch.where(support & (moved.abs() > threshold), moved, shrunk)
