"""What theory grants a learned step of sparse coding: a bound per layer, and when a good factorisation can exist."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_landscape.sparse_coding.problem import LassoProblem, soft_threshold

# Rounding of float32 weights.
_UNITARITY_TOLERANCE = 1e-5
_EIGENVALUE_TOLERANCE = 1e-6  # relative to L


@dataclass(frozen=True)
class Factorization:
    """How far ``(A, S)`` is from the hypotheses of the bound, with ``R = A^T diag(S) A - D^T D``.

    Attributes:
        unitarity_error: largest entry of ``|A^T A - I|``, 0 for a unitary A.
        smallest_scale: smallest entry of S.
        smallest_eigenvalue: the smallest eigenvalue of R. ISTA itself, ``A = I`` and ``S = L``, has 0.
        lipschitz: L, what eigenvalues are compared with.
    """

    unitarity_error: float
    smallest_scale: float
    smallest_eigenvalue: float
    lipschitz: float

    @property
    def valid(self) -> bool:
        """Whether the bound holds: A unitary, S positive, R positive semidefinite, up to rounding of float32.

        The paper asks for R > 0. The proof needs no more than ``v^T R v >= 0``, and ISTA, where R is singular, is
        the case that everything is compared with.
        """
        return (
            self.unitarity_error <= _UNITARITY_TOLERANCE
            and self.smallest_scale > 0
            and self.smallest_eigenvalue >= -_EIGENVALUE_TOLERANCE * self.lipschitz
        )

    def require(self) -> None:
        """Raise a ValueError that names the first hypothesis that fails."""
        if not self.unitarity_error <= _UNITARITY_TOLERANCE:
            raise ValueError(
                f"A must be unitary, but A^T A is off the identity by {self.unitarity_error:.3g}: project it first"
            )
        if not self.smallest_scale > 0:
            raise ValueError(f"S must be positive, but its smallest entry is {self.smallest_scale:.3g}")
        if not self.valid:
            raise ValueError(
                "R = A^T S A - D^T D must be positive definite, but its smallest eigenvalue is "
                f"{self.smallest_eigenvalue:.3g}: raise S (S >= {self.lipschitz:.6g} always suffices)"
            )


@dataclass(frozen=True)
class StepBound:
    """Both sides of the bound for one step from z_k, each (batch,), float64.

    Attributes:
        suboptimality: ``F(z_{k+1}) - F(z*)``, the left side.
        bound: the right side.
        ista_bound: the right side for a step of ISTA from the same z_k, ``1/2 (z_k - z*)^T (L I - D^T D) (z_k - z*)``.
    """

    suboptimality: Tensor
    bound: Tensor
    ista_bound: Tensor

    @property
    def improves(self) -> Tensor:
        """Where the bound is below that of ISTA by more than rounding, (batch,); the objective may be larger."""
        return self.bound < (1 - _UNITARITY_TOLERANCE) * self.ista_bound


@dataclass(frozen=True)
class RandomDesign:
    """Both sides of the random-design condition for z_0, ..., z_K, each (K + 1, batch), float64.

    Attributes:
        left: ``lam ||z_k||_1``.
        right: ``sqrt(m (m - 1) / n) ||z_k - z*||^2``.
    """

    left: Tensor
    right: Tensor

    @property
    def holds(self) -> Tensor:
        """Whether ``left <= right``, (K + 1, batch)."""
        return self.left <= self.right

    @property
    def first_failure(self) -> Tensor:
        """The first k where the condition fails, (batch,); K + 1, the number of iterates, where it never does."""
        return self.holds.long().cumprod(dim=0).sum(dim=0)


@torch.no_grad()
def least_scale(problem: LassoProblem, A: Tensor, S: Tensor) -> float:
    """The smallest c from 1 for which ``R = A^T diag(c S) A - D^T D`` has no negative eigenvalue.

    For an orthogonal A it is ``max(1, ||D A^T S^(-1/2)||^2)``, the spectral norm: R is positive semidefinite exactly
    if ``S^(-1/2) A D^T D A^T S^(-1/2) <= c I``. With it, the hypotheses of :func:`step_bound` hold for any positive S.

    Args:
        problem: the Lasso, whose dictionary D is (n, m).
        A: orthogonal matrix (m, m).
        S: positive scales (m,).

    Source:
        Moreau & Bruna (2017), where R > 0 is a hypothesis of the bound; the scale is derived here.

    Example:
        >>> problem = LassoProblem(2 * torch.eye(2), lam=0.1)
        >>> least_scale(problem, torch.eye(2), torch.ones(2)), least_scale(problem, torch.eye(2), torch.full((2,), 8.0))
        (4.0, 1.0)
    """
    rotated = problem.dictionary.double() @ A.double().T / S.double().sqrt()
    return max(1.0, float(torch.linalg.matrix_norm(rotated, 2)) ** 2)


@torch.no_grad()
def check_factorization(problem: LassoProblem, A: Tensor, S: Tensor) -> Factorization:
    """Measure the hypotheses of :func:`step_bound`.

    Args:
        problem: the Lasso.
        A: (m, m).
        S: the diagonal, (m,).

    Raises:
        ValueError: if A or S has another shape or holds a number that is not finite.
    """
    m = problem.dictionary.shape[1]
    for name, tensor, shape in (("A", A, (m, m)), ("S", S, (m,))):
        if tensor.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} must be finite, but holds NaN or infinite entries")
    A, S, dictionary = A.double(), S.double(), problem.dictionary.double()
    R = A.T @ (S[:, None] * A) - dictionary.T @ dictionary
    return Factorization(
        unitarity_error=float((A.T @ A - torch.eye(m, dtype=A.dtype, device=A.device)).abs().max()),
        smallest_scale=float(S.min()),
        smallest_eigenvalue=float(torch.linalg.eigvalsh(R)[0]),
        lipschitz=problem.lipschitz,
    )


@torch.no_grad()
def facnet_step(problem: LassoProblem, x: Tensor, z: Tensor, A: Tensor, S: Tensor) -> Tensor:
    """``A^T h_{lam / S}(A z - S^-1 A D^T (D z - x))`` for each row, (batch, m) (Moreau & Bruna 2017).

    The paper prints a plus before ``S^-1``; minimising the surrogate in :func:`step_bound` gives the minus.

    Args:
        problem: the Lasso.
        x: signals (batch, n).
        z: codes (batch, m) that the step starts from.
        A: orthogonal (m, m).
        S: positive diagonal (m,).
    """
    rotated = (z - problem.gradient(x, z) @ ((A.T / S) @ A)) @ A.T
    return soft_threshold(rotated, problem.lam / S) @ A


@torch.no_grad()
def step_bound(problem: LassoProblem, x: Tensor, z: Tensor, solution: Tensor, A: Tensor, S: Tensor) -> StepBound:
    """The bound on one step of a factorised network (Moreau & Bruna 2017).

    ``F(z_{k+1}) - F(z*) <= 1/2 (z_k - z*)^T R (z_k - z*) + delta_A(z*) - delta_A(z_{k+1})`` with
    ``delta_A(z) = lam (||A z||_1 - ||z||_1)``, ``R = A^T diag(S) A - D^T D`` and z_{k+1} from :func:`facnet_step`.

    It holds because z_{k+1} minimises ``F(z) + 1/2 (z - z_k)^T R (z - z_k) + delta_A(z)``, in which R only adds: the
    value at z_{k+1} is at most that at z*. It is computed in float64, with the unitary matrix nearest to A.

    It does not claim that the step is faster than one of ISTA: it bounds one step, its right side may exceed that of
    ISTA or what was there before, and a small one says nothing of the steps that follow.

    Args:
        problem: the Lasso.
        x: signals (batch, n).
        z: z_k, (batch, m).
        solution: z*, minimisers of F (batch, m), as from ``reference_optimum``.
        A: unitary (m, m).
        S: the diagonal, positive, (m,).

    Raises:
        ValueError: if A is not unitary, S not positive or R not positive definite (singular is allowed, as in ISTA),
            or a shape is wrong.

    Example:
        >>> problem = LassoProblem(torch.eye(2, dtype=torch.float64), lam=0.5)
        >>> x = torch.tensor([[2.0, 0.25]], dtype=torch.float64)
        >>> solution = soft_threshold(x, 0.5)
        >>> step = step_bound(problem, x, 0 * solution, solution, A=torch.eye(2), S=torch.full((2,), 1.5))
        >>> step.suboptimality, step.bound
        (tensor([0.1250], dtype=torch.float64), tensor([0.5625], dtype=torch.float64))
    """
    check_factorization(problem, A, S).require()
    problem = problem.to(torch.float64)
    x, z, solution, S = x.double(), z.double(), solution.double(), S.double()
    left, _, right = torch.linalg.svd(A.double())
    A = left @ right
    following = facnet_step(problem, x, z, A, S)
    error = z - solution
    curvature = (error @ problem.dictionary.T).square().sum(dim=1)
    rotated = (S * (error @ A.T).square()).sum(dim=1)
    return StepBound(
        suboptimality=problem.objective(x, following) - problem.objective(x, solution),
        bound=0.5 * (rotated - curvature) + _delta(problem, solution, A) - _delta(problem, following, A),
        ista_bound=0.5 * (problem.lipschitz * error.square().sum(dim=1) - curvature),
    )


@torch.no_grad()
def random_design(problem: LassoProblem, iterates: Sequence[Tensor], solution: Tensor) -> RandomDesign:
    """The condition ``lam ||z_k||_1 <= sqrt(m (m - 1) / n) ||z_k - z*||^2`` for every iterate (Moreau & Bruna 2017).

    In expectation over random dictionaries with unit atoms it is sufficient for a factorisation to exist that improves
    the bound of the next step over ISTA's. It fails once z_k is near z*: the gain is one of first iterations.

    It does not claim that a factorisation exists for the given dictionary, nor that training finds it, nor that an
    iterate where it fails cannot be improved; and it bounds, it does not guarantee speed.

    Args:
        problem: the Lasso, n by m.
        iterates: z_0, ..., z_K, each (batch, m).
        solution: z* (batch, m).

    Raises:
        ValueError: if there is no iterate or one has another shape than ``solution``.

    Example:
        >>> problem = LassoProblem(torch.eye(2), lam=0.5)
        >>> iterates, solution = [torch.zeros(1, 2), torch.tensor([[2.0, 0.0]])], torch.tensor([[2.0, 0.1]])
        >>> condition = random_design(problem, iterates, solution)
        >>> condition.holds.flatten(), condition.first_failure
        (tensor([ True, False]), tensor([1]))
    """
    n, m = problem.dictionary.shape
    if not iterates or solution.ndim != 2 or any(z.shape != solution.shape for z in iterates):
        shapes = [tuple(z.shape) for z in iterates]
        raise ValueError(f"iterates must each have the shape of solution, {tuple(solution.shape)}, got {shapes}")
    if solution.shape[1] != m:
        raise ValueError(f"solution must have shape (batch, {m}), got {tuple(solution.shape)}")
    codes = torch.stack([z.double() for z in iterates])
    return RandomDesign(
        left=problem.lam * codes.abs().sum(dim=2),
        right=math.sqrt(m * (m - 1) / n) * (codes - solution.double()).square().sum(dim=2),
    )


def _delta(problem: LassoProblem, z: Tensor, A: Tensor) -> Tensor:
    return problem.lam * ((z @ A.T).abs().sum(dim=1) - z.abs().sum(dim=1))
