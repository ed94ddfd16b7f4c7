"""Newton's method for the Lasso on the support of a code, many rows at once."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_landscape.sparse_coding.problem import LassoProblem

_STEPS = 5
_RIDGE = {
    torch.float32: 1e-6,
    torch.float64: 1e-12,
}  # relative; lets equal atoms share a support, and what it spoils the next step mends


class Support:
    """Refines codes whose support is nearly right: on a support with signs s, F is quadratic.

    With ``r = x - D z``, the step from z on the atoms A of the support is ``(D_A^T D_A)^-1 (D_A^T r - lam s)``.

    Args:
        problem: the Lasso, float64.
        rows: about how many rows there will be: with many, the Gram matrix of all atoms is made once, from which
            their blocks are read; with few, blocks are made one by one.
    """

    def __init__(self, problem: LassoProblem, dtype: torch.dtype, rows: int) -> None:
        n, m = problem.dictionary.shape
        self.problem = problem
        # More atoms than n are dependent, and a minimum that needs them has equal atoms.
        self.most = n if dtype == torch.float32 else m
        self.atoms = problem.dictionary.T.to(dtype)
        self.gram = self.atoms @ self.atoms.T if rows * n**2 > m**2 else None

    def refine(self, x: Tensor, z: Tensor, tol: float) -> tuple[Tensor, Tensor]:
        """The best codes (batch, m) that a few steps from z find, and which of them have reached ``tol``, (batch,).

        Args:
            x: signals (batch, n).
            z: codes (batch, m) to begin from.
            tol: relative duality gap at which a row is left alone.
        """
        best = z.clone()
        least = z.new_full((len(z),), torch.inf)
        rows = torch.arange(len(z), device=z.device)
        for steps_left in range(_STEPS, -1, -1):
            objective, gap, correlation = self.problem.measured(x, z)
            # NaN, where a step has failed, is not better.
            relative = torch.where(gap == 0, gap, gap / objective)
            better = relative < least[rows]
            best[rows[better]], least[rows[better]] = z[better], relative[better]
            active = (z != 0) | (correlation.abs() > self.problem.lam)
            counts = active.sum(dim=1)
            going = (~(relative <= tol) & z.isfinite().all(dim=1) & (counts <= self.most)).nonzero().flatten()
            if steps_left == 0 or len(going) == 0:
                break
            rows, x = rows[going], x[going]
            z = self._step(z[going], correlation[going], active[going], counts[going])
        return best, least <= tol

    def _step(self, z: Tensor, correlation: Tensor, active: Tensor, counts: Tensor) -> Tensor:
        """Codes after one step; an atom whose sign would turn is left at 0."""
        most = int(counts.max())
        atoms = active.to(torch.int8).topk(most, dim=1).indices
        present = torch.arange(most, device=z.device) < counts[:, None]
        old, pull = z.gather(1, atoms), correlation.gather(1, atoms)
        sign = torch.where(old != 0, old, pull).sign()
        block = self._blocks(atoms) * (present[:, :, None] & present[:, None, :])
        diagonal = block.diagonal(dim1=1, dim2=2)
        diagonal.mul_(1 + _RIDGE[block.dtype]).add_(~present)
        wanted = torch.where(present, pull - self.problem.lam * sign, 0.0)
        factor, _ = torch.linalg.cholesky_ex(block)
        new = old + torch.cholesky_solve(wanted[:, :, None].to(factor.dtype), factor)[:, :, 0]
        # Not NaN <= 0, so that a block that could not be factorised shows.
        new = torch.where(present & ~(new * sign <= 0), new, 0.0)
        return torch.zeros_like(z).scatter(1, atoms, new)

    def _blocks(self, atoms: Tensor) -> Tensor:
        if self.gram is not None:
            return self.gram[atoms[:, :, None], atoms[:, None, :]]
        chosen = self.atoms[atoms]
        return chosen @ chosen.mT
