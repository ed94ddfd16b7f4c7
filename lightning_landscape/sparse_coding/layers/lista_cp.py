"""LISTA-CP: one matrix a layer, coupled; with support selection if wanted."""

from __future__ import annotations

from torch import Tensor

from lightning_landscape.sparse_coding.layers.layer import ones
from lightning_landscape.sparse_coding.layers.support_selection import ThresholdingLayer
from lightning_landscape.sparse_coding.problem import LassoProblem


class LISTACPLayer(ThresholdingLayer, kind="lista_cp"):
    """``z+ = h_{lam theta}(z + W^T (x - D z))``, of LISTA with coupled weights (Chen et al. 2018).

    W (n, m) and the number theta are learned, each layer its own. At the start, ``W = D/L`` and ``theta = 1/L``, it is
    an iteration of ISTA. The parameter ``theta`` holds L times theta.

    Args:
        problem: the Lasso, on the CPU: its dictionary, its lam and its L.
        index: k, the number of layers before this one, from 0.
        noise: 0 starts exactly there; otherwise how far, relative to their own size, the first values of the
            parameters are moved at random, from the global random state.
        growth: share of coefficients that each further layer passes unshrunk, in [0, 1]; 0 for no support selection.
        limit: largest share that a layer passes unshrunk, in [0, 1].
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


class LISTACPSSLayer(LISTACPLayer, kind="lista_cpss"):
    """LISTA-CP with support selection unless told otherwise, as it was published (Chen et al. 2018).

    Args:
        problem: the Lasso, on the CPU: its dictionary, its lam and its L.
        index: k - 1, the number of layers before this one, from 0.
        noise: 0 starts exactly there; otherwise how far, relative to their own size, the first values of the
            parameters are moved at random, from the global random state.
        growth: share of coefficients that each further layer passes unshrunk, in [0, 1].
        limit: largest share that a layer passes unshrunk, in [0, 1].
    """

    def __init__(
        self, problem: LassoProblem, index: int = 0, noise: float = 0.0, growth: float = 0.012, limit: float = 0.13
    ) -> None:
        super().__init__(problem, index, noise, growth, limit)
