"""L-FISTA: LISTA with a memory of one more code."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_landscape.sparse_coding.fista import momentum_weights
from lightning_landscape.sparse_coding.layers.layer import gram, ones
from lightning_landscape.sparse_coding.layers.support_selection import ThresholdingLayer


class LFISTALayer(ThresholdingLayer, kind="l_fista"):
    """``z_{k+1} = h_{lam theta}(W_g z_k + W_m z_{k-1} + W_e x)`` (Moreau & Bruna 2017).

    W_g, W_m (m, m), W_e (m, n) and theta (m,) are learned, each layer its own. FISTA steps from
    ``y_k = z_k + beta_k (z_k - z_{k-1})``, hence at the start ``W_g = (1 + beta_k)(I - B/L)``,
    ``W_m = -beta_k (I - B/L)``, ``W_e = D^T/L`` and ``theta = 1/L``, with beta_k of
    :func:`~lightning_landscape.sparse_coding.momentum_weights`, it is iteration k of FISTA. The parameter ``theta``
    holds L times theta.

    Args:
        problem: the Lasso, on the CPU: its dictionary, its lam and its L.
        index: k, the number of layers before this one, from 0.
        noise: 0 starts exactly there; otherwise how far, relative to their own size, the first values of the
            parameters are moved at random, from the global random state.
        growth: share of coefficients that each further layer passes unshrunk, in [0, 1]; 0 for no support selection.
        limit: largest share that a layer passes unshrunk, in [0, 1].
    """

    W_g: Tensor
    W_m: Tensor
    W_e: Tensor
    theta: Tensor

    def start(self) -> dict[str, Tensor]:
        """The matrices and thresholds of iteration k of FISTA."""
        dictionary, m = self.problem.dictionary.double(), self.problem.dictionary.shape[1]
        gradient_map = torch.eye(m, dtype=torch.float64) - gram(self.problem)
        beta = momentum_weights(self.index + 1)[-1]
        return {
            "W_g": (1 + beta) * gradient_map,
            "W_m": -beta * gradient_map,
            "W_e": dictionary.T / self.problem.lipschitz,
            "theta": ones(m),
        }

    def forward(self, dictionary: Tensor, x: Tensor, z: Tensor, previous: Tensor) -> Tensor:
        """One step, which does not read D."""
        threshold = self.problem.lam / self.problem.lipschitz * self.theta
        return self.shrink(z @ self.W_g.T + previous @ self.W_m.T + x @ self.W_e.T, threshold)
