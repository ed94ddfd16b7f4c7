"""TiLISTA: one matrix for all layers, and a step and a threshold a layer."""

from __future__ import annotations

from torch import Tensor

from lightning_landscape.sparse_coding.layers.layer import UnrolledLayer, ones
from lightning_landscape.sparse_coding.layers.support_selection import ThresholdingLayer


class TiLISTALayer(ThresholdingLayer, kind="tilista"):
    """``z+ = h_{lam theta}(z - gamma W^T (D z - x))``, of Tied LISTA (Liu et al. 2019).

    The numbers gamma and theta are learned for each layer, W (n, m) once for all of them. At the start, ``W = D`` and
    ``gamma = theta = 1/L``, it is an iteration of ISTA. The parameters ``gamma`` and ``theta`` hold L times as much.

    Args:
        problem: the Lasso, on the CPU: its dictionary, its lam and its L.
        index: k, the number of layers before this one, from 0.
        noise: 0 starts exactly there; otherwise how far, relative to their own size, the first values of the
            parameters are moved at random, from the global random state.
        growth: share of coefficients that each further layer passes unshrunk, in [0, 1]; 0 for no support selection.
        limit: largest share that a layer passes unshrunk, in [0, 1].
    """

    W: Tensor
    gamma: Tensor
    theta: Tensor

    def start(self) -> dict[str, Tensor]:
        """``W = D``, and the step and threshold of ISTA: ``gamma`` = ``theta`` = 1."""
        return {"W": self.problem.dictionary.double(), "gamma": ones(), "theta": ones()}

    def tie(self, first: UnrolledLayer) -> None:
        """Take the matrix of the first layer."""
        self.W = first.get_parameter("W")

    def forward(self, dictionary: Tensor, x: Tensor, z: Tensor, previous: Tensor) -> Tensor:
        """One step, which does not read ``previous``."""
        rate = 1 / self.problem.lipschitz
        moved = z + rate * self.gamma * ((x - z @ dictionary.T) @ self.W)
        return self.shrink(moved, self.problem.lam * rate * self.theta)
