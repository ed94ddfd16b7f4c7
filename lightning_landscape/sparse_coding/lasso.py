"""Lasso problems solved to a certified gap, and optima to measure others against."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from lightning_landscape.sparse_coding.fista import fista_step, momentum_start
from lightning_landscape.sparse_coding.newton import Support
from lightning_landscape.sparse_coding.problem import LassoProblem

_BURST = 100  # iterations of FISTA between two looks at its support
_SINGLE_BURSTS = 10  # in float32, which finds supports at half the price; those that follow are in float64
_ROWS = 500  # that are solved together,
_BLOCK = 4_000_000  # or as many as have so many numbers in their Gram blocks
_FIRST_WORKING_SET = 100
_POWER_STEPS = 20
_INNER = 0.3  # a working set is solved to this share of the gap that it was chosen at


@torch.no_grad()
def lasso(problem: LassoProblem, x: Tensor, tol: float = 1e-6, num_iterations: int = 200_000) -> Tensor:
    """Minimise F for every row to a relative duality gap of at most ``tol``.

    Bursts of FISTA with restarts, in float32 at first, propose the support of each code. From there Newton's method
    on the support, whose linear systems are Gram blocks of the dictionary, takes a few steps in float64: atoms whose
    sign would turn leave, and atoms that violate the conditions of optimality enter. On the right support a step is
    exact, so that most gaps come out far below ``tol``. Rows whose support was wrong go back to FISTA where it
    stood, which reaches every optimum by itself. Where few rows use few of many atoms, all this runs on a working
    set of atoms, those with the largest ``|d_i^T r| / ||d_i||``, which doubles until the gap over all atoms is small.

    It ends in float64 also for a problem in float32, whose own rounding stalls at gaps above 1e-6. The codes are
    rounded to the type of the problem at last, which adds up to 1e-6 to a gap in float32 at lam = lambda_max / 10, and
    more at smaller lam.

    Args:
        problem: the Lasso. Its device needs float64.
        x: signals (batch, n).
        tol: relative duality gap, gap / F(z), that every row shall reach.
        num_iterations: the most iterations of FISTA for one set of atoms.

    Returns:
        Codes (batch, m). A row is the same whatever rows are beside it, up to rounding in float64. A warning says
        how many rows have not reached ``tol``, and their worst gap.

    Raises:
        ValueError: if an argument is out of its range or does not go with the dictionary.

    Source:
        The Newton step on a support is that of feature-sign search (Lee et al. 2007), here with every change of sign
        at once; working sets that grow with the gap are those of Blitz and Celer (Massias et al. 2018).

    Example:
        >>> problem = LassoProblem(torch.eye(2), lam=0.5)
        >>> lasso(problem, torch.tensor([[2.0, 0.25]]))
        tensor([[1.5000, 0.0000]])
    """
    codes, gaps = _solve(problem, x, tol, num_iterations)
    missed = gaps[~(gaps <= tol)]
    if len(missed):
        warnings.warn(
            f"lasso stopped after {num_iterations} iterations with {len(missed)} of {len(x)} problems above "
            f"tol={tol:g}, the worst at a relative duality gap of {float(missed.max()):.3g}: raise num_iterations, or "
            "tol where float64 cannot go further",
            stacklevel=2,
        )
    return codes.to(problem.dictionary.dtype)


@torch.no_grad()
def reference_optimum(
    problem: LassoProblem, x: Tensor, tol: float = 1e-9, num_iterations: int = 200_000
) -> tuple[Tensor, Tensor]:
    """Minimisers and minima in float64, from the solver of :func:`lasso`, certified by their duality gap.

    Args:
        problem: the Lasso, in either floating type; it is solved in float64 on its own device.
        x: signals (batch, n), in either floating type.
        tol: relative duality gap that every problem must reach.
        num_iterations: the most to spend.

    Returns:
        Codes z* (batch, m) and F(z*) (batch,), both float64; the minimum lies in [(1 - tol) F(z*), F(z*)].

    Raises:
        ValueError: if an argument is out of its range or does not go with the dictionary.
        RuntimeError: if a problem has not reached ``tol``.
    """
    precise, signals = problem.to(torch.float64), x.detach().double()
    codes, gaps = _solve(precise, signals, tol, num_iterations)
    if not bool((gaps <= tol).all()):
        raise RuntimeError(
            f"after {num_iterations} iterations the relative duality gap is {float(gaps.max()):.3g}, above "
            f"tol={tol:g}: raise num_iterations"
        )
    # A gap of tol is a distance of its root: the last steps on the support go as far as float64 does.
    support = Support(precise, torch.float64, len(signals))
    parts = zip(signals.split(_ROWS), codes.split(_ROWS), strict=True)
    codes = torch.cat([support.refine(*part, tol=0.0)[0] for part in parts])
    return codes, precise.objective(signals, codes)


def _solve(problem: LassoProblem, x: Tensor, tol: float, num_iterations: int) -> tuple[Tensor, Tensor]:
    """Codes (batch, m) in float64 and their relative gaps (batch,)."""
    if isinstance(num_iterations, bool) or not isinstance(num_iterations, int) or num_iterations < 0:
        raise ValueError(f"num_iterations must be an integer of at least 0, got {num_iterations!r}")
    if not 0 < tol < math.inf:
        raise ValueError(f"tol must be positive and finite, got {tol!r}")
    problem.check(x)
    if len(x) == 0:
        return x.new_zeros(0, problem.dictionary.shape[1], dtype=torch.float64), x.new_zeros(0, dtype=torch.float64)
    problem, x = problem.to(torch.float64), x.detach().double()
    # Of order 1, so that nothing overflows in float32; powers of 2, which round nothing.
    atom, signal = _power_of_two(problem.dictionary.square().sum(dim=0).max().sqrt()), _power_of_two(x.abs().max())
    scaled = LassoProblem(problem.dictionary / atom, problem.lam / (atom * signal))
    rows = max(1, min(_ROWS, _BLOCK // min(problem.dictionary.shape) ** 2))
    codes = torch.cat([_on_working_sets(scaled, part, tol, num_iterations) for part in (x / signal).split(rows)])
    codes = codes * (signal / atom)
    return codes, problem.relative_gap(x, codes)


def _on_working_sets(problem: LassoProblem, x: Tensor, tol: float, num_iterations: int) -> Tensor:
    """Codes of a few rows."""
    dictionary, m = problem.dictionary, problem.dictionary.shape[1]
    lengths = dictionary.square().sum(dim=0).sqrt()
    codes = x.new_zeros(len(x), m)
    size = _FIRST_WORKING_SET
    while True:
        objective, gap, correlation = problem.measured(x, codes)
        worst = float(torch.where(gap == 0, gap, gap / objective).max())
        if worst <= tol:
            return codes
        score = correlation.abs() / lengths
        score[codes != 0] = math.inf
        chosen = torch.zeros(m, dtype=torch.bool, device=x.device)
        chosen[score.topk(min(size, m), dim=1).indices] = True
        columns = chosen.nonzero().flatten()
        if 2 * len(columns) > m:
            return _on_all_atoms(problem, x, codes, tol, num_iterations)
        part = problem.among(columns)
        found = _on_all_atoms(part, x, codes[:, columns], max(_INNER * worst, tol / 2), num_iterations)
        codes = torch.zeros_like(codes).index_copy(1, columns, found)
        size = 2 * max(size, int((codes != 0).sum(dim=1).max()))


def _on_all_atoms(problem: LassoProblem, x: Tensor, initial: Tensor, tol: float, num_iterations: int) -> Tensor:
    """Codes (batch, m), from ``initial``; rows that have reached ``tol`` leave the batch."""
    codes = initial.clone()
    rows = torch.arange(len(x), device=x.device)
    fast = problem.to(torch.float32)
    support = Support(problem, torch.float32, len(x))
    signals, state, step, done = x.float(), momentum_start(initial.float()), None, 0
    while True:
        found, closed = support.refine(x[rows], state[0].double(), tol)
        # What overflows in float32 is not kept.
        codes[rows] = torch.where(found.isfinite().all(dim=1, keepdim=True), found, codes[rows])
        if bool(closed.all()) or done >= num_iterations:
            return codes
        left = (~closed).nonzero().flatten()
        rows, signals, state = rows[left], signals[left], tuple(part[left] for part in state)
        if done == _SINGLE_BURSTS * _BURST:
            signals, state = signals.double(), momentum_start(codes[rows])
            support, step = Support(problem, torch.float64, len(rows)), fista_step(problem, restart=True)
        elif step is None:
            step = fista_step(fast, restart=True, lipschitz=_estimated_lipschitz(fast.dictionary))
        for _ in range(min(_BURST, num_iterations - done)):
            state = step(signals, state)
            done += 1


def _estimated_lipschitz(dictionary: Tensor) -> float:
    """L, a few per cent off: by power iterations, and raised by as much as they usually fall short."""
    vector = (dictionary.T @ dictionary.sum(dim=1, keepdim=True)) + dictionary[0][:, None]
    for _ in range(_POWER_STEPS):
        vector = dictionary.T @ (dictionary @ (vector / vector.norm()))
    return 1.05 * float(vector.norm())


def _power_of_two(size: Tensor) -> float:
    """The power of two next to ``size``, 1 for 0."""
    return 2.0 ** round(math.log2(float(size))) if size > 0 else 1.0
