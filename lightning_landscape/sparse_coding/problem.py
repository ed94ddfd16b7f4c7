"""The Lasso in its penalised form, for a batch of signals that share a dictionary."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor


class LassoProblem:
    """``F(z) = 1/2 ||x - D z||^2 + lam ||z||_1`` for signals x and a dictionary D.

    Signals are rows of a tensor (batch, n), codes rows of a tensor (batch, m); every figure is one number for each
    row. All tensors have the floating type and the device of the dictionary, which :meth:`to` changes. No method
    but :meth:`to` and :attr:`lipschitz` copies the dictionary.

    Args:
        dictionary: D (n, m), atoms in columns, float32 or float64.
        lam: weight of the l1 norm, positive.

    Raises:
        ValueError: if ``lam`` is not positive and finite, or the dictionary is not a floating matrix, holds a
            number that is not finite or a column of zeros. In every method: if x or z has another shape, type or
            device than the dictionary asks for, or x holds a number that is not finite.

    Example:
        >>> problem = LassoProblem(torch.eye(2), lam=0.5)
        >>> x = torch.tensor([[2.0, 0.25]])
        >>> z = soft_threshold(x, 0.5)  # the solution, because D is orthogonal
        >>> problem.objective(x, z), problem.duality_gap(x, z), problem.lambda_max(x)
        (tensor([0.9062]), tensor([0.]), tensor([2.]))
    """

    def __init__(self, dictionary: Tensor, lam: float) -> None:
        lam = float(lam)
        if not 0 < lam < math.inf:
            raise ValueError(f"lam must be positive and finite, got {lam!r}")
        if not isinstance(dictionary, Tensor):
            raise ValueError(f"dictionary must be a tensor, got {type(dictionary).__name__}: torch.as_tensor makes one")
        if dictionary.ndim != 2 or dictionary.numel() == 0:
            raise ValueError(f"dictionary must be a matrix (n, m), got shape {tuple(dictionary.shape)}")
        if dictionary.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dictionary must be float32 or float64, got {dictionary.dtype}: convert it")
        _require_finite("dictionary", dictionary)
        empty = (dictionary == 0).all(dim=0).nonzero().flatten().tolist()
        if empty:
            raise ValueError(f"dictionary has {len(empty)} columns of zeros, the first is column {empty[0]}: drop them")
        self.dictionary = dictionary.detach()
        self.lam = lam

    def __repr__(self) -> str:
        n, m = self.dictionary.shape
        return f"LassoProblem(n={n}, m={m}, lam={self.lam:g}, dtype={self.dictionary.dtype})"

    @cached_property
    def lipschitz(self) -> float:
        """``L = ||D^T D||_2``, the Lipschitz constant of the gradient of the smooth part."""
        dictionary = self.dictionary.cpu().double()
        # The largest eigenvalue of the smaller Gram matrix, at a tenth of the cost of a singular value decomposition.
        small = dictionary @ dictionary.T if len(dictionary) <= dictionary.shape[1] else dictionary.T @ dictionary
        return float(torch.linalg.eigvalsh(small)[-1])

    def to(self, target: torch.device | torch.dtype | str) -> LassoProblem:
        """The same problem on another device or in another floating type."""
        return self._with(self.dictionary.to(target))

    def among(self, atoms: Tensor) -> LassoProblem:
        """The same problem with some of its atoms, those whose numbers are given, (k,)."""
        return self._with(self.dictionary[:, atoms])

    def objective(self, x: Tensor, z: Tensor) -> Tensor:
        """F(z) of each row, shape (batch,); differentiable in z."""
        self.check(x, z)
        return lasso_objective(self.dictionary, self.lam, x, z)

    def gradient(self, x: Tensor, z: Tensor) -> Tensor:
        """Gradient ``D^T (D z - x)`` of the smooth part, shape (batch, m)."""
        self.check(x, z)
        return -self._residual(x, z) @ self.dictionary

    def prox(self, z: Tensor, step: float) -> Tensor:
        """Proximal map of ``step * lam ||.||_1``, the soft threshold at ``step * lam``."""
        return soft_threshold(z, step * self.lam)

    def lambda_max(self, x: Tensor) -> Tensor:
        """``||D^T x||_inf`` of each row, shape (batch,): the solution is zero iff lam is at least this."""
        self.check(x)
        return (x @ self.dictionary).abs().amax(dim=1)

    def duality_gap(self, x: Tensor, z: Tensor) -> Tensor:
        """An upper bound of ``F(z) - min F`` for each row, shape (batch,), zero at the solution alone.

        The dual problem is ``max_theta 1/2 ||x||^2 - 1/2 ||x - theta||^2`` over ``||D^T theta||_inf <= lam``
        (Kim et al. 2007). Of the feasible multiples ``theta = s r`` of the residual ``r = x - D z`` the best is
        taken. With ``c = D^T r`` the gap then is

        ``1/2 (1 - s)^2 ||r||^2 + sum_i (lam |z_i| - s c_i z_i)``,

        whose terms are all at least 0: unlike primal less dual value it does not cancel in float32.
        """
        self.check(x, z)
        return self.measured(x, z)[1]

    def relative_gap(self, x: Tensor, z: Tensor) -> Tensor:
        """Duality gap / F(z) of each row, shape (batch,); 0 where both vanish, for x = z = 0."""
        self.check(x, z)
        objective, gap, _ = self.measured(x, z)
        return torch.where(gap == 0, gap, gap / objective)

    def check(self, x: Tensor, z: Tensor | None = None) -> None:
        """Refuse signals and codes that do not go with the dictionary.

        Raises:
            ValueError: as the class says.
        """
        n, m = self.dictionary.shape
        for name, tensor, width in (("x", x, n), ("z", z, m)):
            if tensor is None:
                continue
            if tensor.ndim != 2 or tensor.shape[1] != width:
                raise ValueError(
                    f"{name} must have shape (batch, {width}) for a dictionary of shape ({n}, {m}), "
                    f"got {tuple(tensor.shape)}"
                )
            if tensor.dtype != self.dictionary.dtype or tensor.device != self.dictionary.device:
                raise ValueError(
                    f"{name} is {tensor.dtype} on {tensor.device} and the dictionary {self.dictionary.dtype} on "
                    f"{self.dictionary.device}: convert one of them with .to(...)"
                )
        if z is not None and len(x) != len(z):
            raise ValueError(f"x holds {len(x)} signals and z {len(z)} codes: one code for each signal is needed")
        _require_finite("x", x)

    def _with(self, dictionary: Tensor) -> LassoProblem:
        """A problem with a dictionary that holds what has been checked."""
        if dictionary.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dictionary must be float32 or float64, got {dictionary.dtype}: convert it")
        other = object.__new__(LassoProblem)
        other.dictionary, other.lam = dictionary, self.lam
        return other

    def _residual(self, x: Tensor, z: Tensor) -> Tensor:
        return x - z @ self.dictionary.T

    def measured(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F(z) (batch,), the duality gap (batch,) and ``D^T (x - D z)`` (batch, m), for a solver: nothing is checked.

        Args:
            x: signals (batch, n).
            z: codes (batch, m).
        """
        residual = self._residual(x, z)
        energy = residual.square().sum(dim=1)
        correlation = residual @ self.dictionary
        tiny = torch.finfo(energy.dtype).tiny
        largest = self.lam / correlation.abs().amax(dim=1).clamp_min(tiny)
        best = (x * residual).sum(dim=1) / energy.clamp_min(tiny)
        scale = torch.minimum(best.abs(), largest).copysign(best)
        slack = (self.lam * z.abs() - scale[:, None] * correlation * z).clamp_min(0).sum(dim=1)
        gap = 0.5 * (1 - scale).square() * energy + slack
        return 0.5 * energy + self.lam * z.abs().sum(dim=1), gap, correlation


def lasso_objective(dictionary: Tensor, lam: float, x: Tensor, z: Tensor) -> Tensor:
    """F(z) of each row, shape (batch,), for a training step: unlike ``LassoProblem.objective`` it checks nothing.

    Args:
        dictionary: D (n, m).
        lam: weight of the l1 norm.
        x: signals (batch, n).
        z: codes (batch, m).

    Example:
        >>> lasso_objective(torch.eye(2), 0.5, torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor([1.])
    """
    return 0.5 * (x - z @ dictionary.T).square().sum(dim=1) + lam * z.abs().sum(dim=1)


def soft_threshold(z: Tensor, threshold: float | Tensor) -> Tensor:
    """``h_t(z) = sign(z) max(|z| - t, 0)``, the proximal map of ``t ||.||_1``.

    Args:
        z: any shape.
        threshold: t >= 0, a number or a tensor that broadcasts against z. Not checked, so that it may be learned.

    Example:
        >>> soft_threshold(torch.tensor([-3.0, 0.5, 2.0]), 1.0)
        tensor([-2.,  0.,  1.])
    """
    # Two ramps rather than sign times ramp: the gradient in t is then right for learned thresholds.
    return torch.relu(z - threshold) - torch.relu(-z - threshold)


def _require_finite(name: str, tensor: Tensor) -> None:
    if not bool(tensor.isfinite().all()):
        bad = int((~tensor.isfinite()).sum())
        raise ValueError(f"{name} must be finite, but {bad} of its {tensor.numel()} entries are NaN or infinite")
