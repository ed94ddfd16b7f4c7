"""The convex problem under the multilinear ones: least squares, with or without a limit on the rank."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_landscape.theory.subspaces import power_of_two, pseudo_inverse

Batch = tuple[Tensor, Tensor]


class Regression:
    """``L(P) = (1/N) sum_i ||P x_i - y_i||^2`` for matrices P (m, n), in float64.

    With a solution P_ls of the least-squares problem and the covariance ``S = (1/N) sum_i x_i x_i^T``,
    ``L(P) = L(P_ls) + tr (P - P_ls) S (P - P_ls)^T``. S may be singular.

    Args:
        batch: ``(x, y)``, tensors (N, n) and (N, m).

    Attributes:
        solution: P_ls, the one whose norm is least when each column of x is measured in units of its own size.
        fitted: ``P_ls S P_ls^T``, the covariance (m, m) of what P_ls predicts.

    Raises:
        ValueError: if x and y are not finite matrices with the same number of rows, at least one.

    Example:
        >>> x = torch.eye(2, dtype=torch.float64)
        >>> problem = Regression((x, torch.diag(torch.tensor([4.0, 2.0], dtype=torch.float64))))
        >>> problem.minimum(), round(problem.minimum(rank=1), 9)
        (0.0, 2.0)
    """

    def __init__(self, batch: Batch) -> None:
        x, y = (part.detach().to("cpu", torch.float64) for part in batch)
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) == 0:
            raise ValueError(f"batch must be x (N, n) and y (N, m), got {tuple(x.shape)} and {tuple(y.shape)}")
        if not bool(x.isfinite().all()) or not bool(y.isfinite().all()):
            raise ValueError("batch must be finite, got NaN or infinite entries")
        self._x = x
        self._y = y
        # Columns of very different sizes, such as powers of one variable, must not look like a loss of rank.
        sizes = power_of_two(x.square().mean(0).sqrt())
        self.solution = y.T @ pseudo_inverse((x / sizes).T) / sizes
        predicted = x @ self.solution.T
        self.fitted = predicted.T @ predicted / len(x)

    def require_shape(self, num_inputs: int, num_outputs: int) -> None:
        """Raises ValueError unless x has ``num_inputs`` columns and y ``num_outputs``."""
        found = self._x.shape[1], self._y.shape[1]
        if found != (num_inputs, num_outputs):
            raise ValueError(
                f"batch must be x (N, {num_inputs}) and y (N, {num_outputs}), "
                f"got x (N, {found[0]}) and y (N, {found[1]})"
            )

    @property
    def covariance(self) -> Tensor:
        """S, shape (n, n)."""
        return self._x.T @ self._x / len(self._x)

    def loss(self, coefficients: Tensor) -> float:
        """L(P) for P of shape (m, n)."""
        return float((self._x @ coefficients.T - self._y).square().sum(1).mean())

    def gradient(self, coefficients: Tensor) -> Tensor:
        """The gradient of L at P, shape (m, n)."""
        return 2 / len(self._x) * (self._x @ coefficients.T - self._y).T @ self._x

    def minimum(self, rank: int | None = None) -> float:
        """The minimum of L over matrices of at most the given rank (reduced-rank regression, Izenman 1975).

        It is ``L(P_ls)`` and the eigenvalues of ``fitted`` after the first ``rank``, summed.
        """
        smallest = self.loss(self.solution)
        if rank is None:
            return smallest
        discarded = torch.linalg.eigvalsh(self.fitted).flip(0)[rank:]
        return smallest + float(discarded.clamp_min(0).sum())
