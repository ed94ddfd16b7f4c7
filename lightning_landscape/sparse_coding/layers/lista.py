"""LISTA: matrices and thresholds free."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_landscape.sparse_coding.layers.layer import gram, ones
from lightning_landscape.sparse_coding.layers.support_selection import ThresholdingLayer


class LISTALayer(ThresholdingLayer, kind="lista"):
    """``z+ = h_{lam theta}(W_g z + W_e x)``, of Learned ISTA (Gregor & LeCun 2010).

    W_g (m, m), W_e (m, n) and theta (m,) are learned, each layer its own. At the start, ``W_g = I - B/L``,
    ``W_e = D^T/L`` and ``theta = 1/L``, it is an iteration of ISTA. The parameter ``theta`` holds L times theta.

    Args:
        problem: the Lasso, on the CPU: its dictionary, its lam and its L.
        index: k, the number of layers before this one, from 0.
        noise: 0 starts exactly there; otherwise how far, relative to their own size, the first values of the
            parameters are moved at random, from the global random state.
        growth: share of coefficients that each further layer passes unshrunk, in [0, 1]; 0 for no support selection.
        limit: largest share that a layer passes unshrunk, in [0, 1].

    Example:
        >>> from lightning_landscape.sparse_coding import LassoProblem, ista
        >>> problem, x = LassoProblem(torch.eye(2), lam=0.5), torch.tensor([[2.0, 0.25]])
        >>> zero = torch.zeros(1, 2)
        >>> LISTALayer(problem)(problem.dictionary, x, zero, zero).tolist(), ista(problem, x, 1).tolist()
        ([[1.5, 0.0]], [[1.5, 0.0]])
    """

    W_g: Tensor
    W_e: Tensor
    theta: Tensor

    def start(self) -> dict[str, Tensor]:
        """The matrices and thresholds of ISTA: ``W_g = I - B/L``, ``W_e = D^T/L``, ``theta`` = 1."""
        dictionary, m = self.problem.dictionary.double(), self.problem.dictionary.shape[1]
        return {
            "W_g": torch.eye(m, dtype=torch.float64) - gram(self.problem),
            "W_e": dictionary.T / self.problem.lipschitz,
            "theta": ones(m),
        }

    def forward(self, dictionary: Tensor, x: Tensor, z: Tensor, previous: Tensor) -> Tensor:
        """One step, which reads neither D nor ``previous``."""
        threshold = self.problem.lam / self.problem.lipschitz * self.theta
        return self.shrink(z @ self.W_g.T + x @ self.W_e.T, threshold)
