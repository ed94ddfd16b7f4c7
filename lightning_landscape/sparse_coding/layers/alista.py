"""ALISTA: a matrix in closed form, and a step and a threshold a layer."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_landscape.sparse_coding.layers.layer import ones
from lightning_landscape.sparse_coding.layers.support_selection import ThresholdingLayer
from lightning_landscape.sparse_coding.problem import LassoProblem


class ALISTALayer(ThresholdingLayer, kind="alista"):
    """``z+ = h_theta(z - gamma W^T (D z - x))`` with W computed, of Analytic LISTA (Liu et al. 2019).

    The numbers gamma and theta are learned for each layer. W minimises ``||W^T D||_F`` under ``w_i^T d_i = 1``, as
    :func:`analytic_weights` says: ``W^T D = C^-1 P``, where P projects on the row space of D and C is its diagonal.

    Because W is not D, the start is no iteration of ISTA on D, but one on the whitened dictionary
    ``E = (D D^T)^(-1/2) D C^(-1/2)``, whose atoms are unit vectors, for ``u = C^(1/2) z`` and the signals
    ``(D D^T)^(-1/2) x``: in u the step reads ``u - gamma E^T (E u - (D D^T)^(-1/2) x)``, for which ISTA takes
    ``gamma_0 = 1 / ||E||^2``. The threshold goes with it as for a W that is a multiple of D:
    ``theta_0 = lam gamma_0 / s``, s the mean of ``||d_i||^2``. From these two the layer starts. Where D is a tight
    frame of atoms of one length, ``W = D / s`` and ``gamma_0 = s / L``: there the start is an iteration of ISTA on D.

    The parameters ``gamma`` and ``theta`` are in units of gamma_0 and theta_0.

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

    def __init__(
        self, problem: LassoProblem, index: int = 0, noise: float = 0.0, growth: float = 0.0, limit: float = 0.13
    ) -> None:
        super().__init__(problem, index, noise, growth, limit)
        dictionary = problem.dictionary.double()
        weights, scales = analytic_weights(problem.dictionary)
        # E^T E = C^(-1/2) P C^(-1/2), from W^T D = C^(-1) P.
        whitened = (weights.T @ dictionary) * (scales[:, None] / scales).sqrt()
        self.step = 1 / float(torch.linalg.matrix_norm(whitened, 2))
        self.threshold = problem.lam * self.step / float(dictionary.square().sum(dim=0).mean())
        self.register_buffer("W", weights.to(problem.dictionary.dtype), persistent=False)

    def start(self) -> dict[str, Tensor]:
        """The step and the threshold of ISTA on the whitened dictionary: ``gamma`` = ``theta`` = 1."""
        return {"gamma": ones(), "theta": ones()}

    def forward(self, dictionary: Tensor, x: Tensor, z: Tensor, previous: Tensor) -> Tensor:
        """One step, which does not read ``previous``."""
        moved = z + self.step * self.gamma * ((x - z @ dictionary.T) @ self.W)
        return self.shrink(moved, self.threshold * self.theta)


def analytic_weights(dictionary: Tensor) -> tuple[Tensor, Tensor]:
    """``w_i = (D D^T)^-1 d_i / c_i`` with ``c_i = d_i^T (D D^T)^-1 d_i``.

    Among all W with ``w_i^T d_i = 1`` these have the least ``||W^T D||_F^2 = sum_i w_i^T D D^T w_i``: each w_i
    minimises its own quadratic form on a plane. A pseudo-inverse takes the place of the inverse where D has not full
    row rank, up to rounding of its own floating type, as for images with pixels that are always 0.

    Args:
        dictionary: D (n, m).

    Returns:
        W (n, m), and the c_i (m,), in (0, 1]; float64.

    Example:
        >>> weights, scales = analytic_weights(torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 1.0]]))
        >>> weights.float(), scales.float()
        (tensor([[0.5000, 0.0000, 0.0000],
                [0.0000, 1.0000, 1.0000]]), tensor([1.0000, 0.5000, 0.5000]))
    """
    rounding = max(dictionary.shape) * torch.finfo(dictionary.dtype).eps
    dictionary = dictionary.double()
    # (D D^T)^+ D is the transposed pseudo-inverse of D.
    dual = torch.linalg.pinv(dictionary, rtol=rounding).T
    scales = (dual * dictionary).sum(dim=0)
    return dual / scales, scales
