"""SLISTA: nothing but steps is learned."""

from __future__ import annotations

from torch import Tensor

from lightning_landscape.sparse_coding.layers.layer import ones
from lightning_landscape.sparse_coding.layers.support_selection import ThresholdingLayer


class SLISTALayer(ThresholdingLayer, kind="slista"):
    """``z+ = h_{lam gamma}(z - gamma D^T (D z - x))``, of Step-LISTA (Ablin et al. 2019).

    The step gamma > 0 is the only parameter, one number a layer, so that every layer keeps the minimisers of F as
    its fixed points. At the start, ``gamma = 1/L``, it is an iteration of ISTA. The parameter ``gamma`` holds L
    times gamma.

    Args:
        problem: the Lasso, on the CPU: its dictionary, its lam and its L.
        index: k, the number of layers before this one, from 0.
        noise: 0 starts exactly there; otherwise how far, relative to their own size, the first values of the
            parameters are moved at random, from the global random state.
        growth: share of coefficients that each further layer passes unshrunk, in [0, 1]; 0 for no support selection.
        limit: largest share that a layer passes unshrunk, in [0, 1].
    """

    gamma: Tensor

    def start(self) -> dict[str, Tensor]:
        """The step 1/L of ISTA: ``gamma`` = 1."""
        return {"gamma": ones()}

    def forward(self, dictionary: Tensor, x: Tensor, z: Tensor, previous: Tensor) -> Tensor:
        """One step, which does not read ``previous``."""
        step = self.gamma / self.problem.lipschitz
        return self.shrink(z + step * ((x - z @ dictionary.T) @ dictionary), step * self.problem.lam)
