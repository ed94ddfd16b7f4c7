"""FacNet: ISTA in a learned orthogonal basis."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_landscape.sparse_coding.layers.layer import UnrolledLayer
from lightning_landscape.sparse_coding.problem import LassoProblem, soft_threshold

_NEWTON_STEPS = 12  # enough for singular values between 0.01 and 100


class FacNetLayer(UnrolledLayer, kind="facnet"):
    """``z+ = A^T h_{lam S^-1}(A z - S^-1 A D^T (D z - x))``, a step of a factorised network (Moreau & Bruna 2017).

    A (m, m) is orthogonal and S a diagonal, (m,), of positive numbers; each layer has its own. At the start, ``A = I``
    and ``S = L``, it is an iteration of ISTA. The paper prints a plus before ``S^-1``; minimising its surrogate, as
    :func:`~lightning_landscape.sparse_coding.step_bound` does, gives the minus.

    A is the Cayley transform of a skew-symmetric matrix, orthogonal by construction, as
    ``torch.nn.utils.parametrizations.orthogonal`` has it, and reaches every rotation but those with an eigenvalue -1; S
    is L times an exponential. Whether ``R = A^T S A - D^T D`` is positive definite, which the bound asks for, is left
    to training: :func:`~lightning_landscape.sparse_coding.check_factorization` says.

    Args:
        problem: the Lasso, on the CPU: its dictionary, its lam and its L.
        index: k, the number of layers before this one, from 0.
        noise: 0 starts exactly there; otherwise the start is moved at random: S by factors ``exp(noise * Gaussian)``,
            and A is the Cayley transform of noise times Gaussians of variance 1/m, in place of I.
    """

    factor: Tensor
    log_scale: Tensor

    @property
    def A(self) -> Tensor:
        """Orthogonal (m, m)."""
        return cayley(self.factor)

    @property
    def S(self) -> Tensor:
        """Positive (m,)."""
        return self.problem.lipschitz * self.log_scale.exp()

    def start(self) -> dict[str, Tensor]:
        """The matrix behind A, of which the lower half counts, and the logarithm of S/L."""
        m = self.problem.dictionary.shape[1]
        return {"factor": torch.zeros(m, m, dtype=torch.float64), "log_scale": torch.zeros(m, dtype=torch.float64)}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Go back to the start, with noise drawn anew."""
        for name, value in self.start().items():
            if self.noise:
                spread = self.noise / math.sqrt(len(value)) if value.ndim == 2 else self.noise
                value = value + spread * torch.randn(value.shape, dtype=value.dtype)
            self.get_parameter(name).copy_(value)

    def forward(self, dictionary: Tensor, x: Tensor, z: Tensor, previous: Tensor) -> Tensor:
        """One step, which does not read ``previous``."""
        A, S = self.A, self.S
        descent = (x - z @ dictionary.T) @ dictionary
        return soft_threshold(z @ A.T + (descent @ A.T) / S, self.problem.lam / S) @ A


class FreeFacNetLayer(FacNetLayer, kind="facnet_free"):
    """FacNet whose A is free in training, and held near the orthogonal matrices by ``mu ||I - A^T A||_F^2``.

    In ``eval`` mode A is replaced by the orthogonal matrix nearest to it, its polar factor: what is validated, tested
    and certified is a factorised network, whatever training has left of orthogonality.

    Args:
        problem: the Lasso, on the CPU: its dictionary, its lam and its L.
        index: k, the number of layers before this one, from 0.
        mu: weight of the penalty, which the training loss averages over the layers.
        noise: 0 starts exactly there; otherwise the start is moved at random: S by factors ``exp(noise * Gaussian)``,
            and A is I plus noise times Gaussians of variance 1/m.

    Raises:
        ValueError: if ``mu`` is not positive and finite.
    """

    def __init__(self, problem: LassoProblem, index: int = 0, mu: float = 1.0, **start: Any) -> None:
        super().__init__(problem, index, **start)
        if not 0 < mu < math.inf:
            raise ValueError(f"mu must be positive and finite, got {mu!r}")
        self.mu = mu

    @property
    def A(self) -> Tensor:
        """(m, m), orthogonal in ``eval`` mode."""
        return self.factor if self.training else polar_factor(self.factor)

    def start(self) -> dict[str, Tensor]:
        """A itself, and the logarithm of S/L."""
        return super().start() | {"factor": torch.eye(self.problem.dictionary.shape[1], dtype=torch.float64)}

    def penalty(self) -> Tensor:
        """``mu ||I - A^T A||_F^2``."""
        factor = self.factor
        identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        return self.mu * (identity - factor.T @ factor).square().sum()


def cayley(matrix: Tensor) -> Tensor:
    """``(I - K/2)^-1 (I + K/2)``, orthogonal, where ``K = L - L^T`` and L is the lower half of ``matrix``.

    Example:
        >>> cayley(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
        tensor([[ 0., -1.],
                [ 1.,  0.]])
    """
    lower = matrix.tril()
    half = 0.5 * (lower - lower.mT)
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    rotation: Tensor = torch.linalg.solve(identity - half, identity + half)
    return rotation


def polar_factor(matrix: Tensor) -> Tensor:
    """The orthogonal matrix nearest to ``matrix`` (m, m) in the Frobenius norm.

    Newton's iteration ``X <- (X + X^-T) / 2`` (Higham 1986), which moves every singular value to 1, unlike a singular
    value decomposition has a derivative where singular values coincide, as here they do.

    Example:
        >>> polar_factor(torch.tensor([[0.0, -3.0], [0.5, 0.0]]))
        tensor([[ 0., -1.],
                [ 1.,  0.]])
    """
    for _ in range(_NEWTON_STEPS):
        matrix = 0.5 * (matrix + torch.linalg.inv(matrix).mT)
    return matrix
