"""Runs a proximal method on many problems at once until each has reached its duality gap."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_landscape.sparse_coding.problem import LassoProblem

# The codes first, then whatever else a method carries from one iteration to the next; a row for each problem.
State = tuple[Tensor, ...]
Step = Callable[[Tensor, State], State]

_CHECK_EVERY = 20  # iterations between two looks at the gap, each of which waits for the device once
_FLOOR = 1000  # roundings of the floating type: a gap below that may be all that its iterations can reach
_PATIENCE = 50  # looks at the gap without a new least one, after which a row so near the floor is given up
_ROWS_IN_CACHE = 500  # problems that a CPU takes at a time, so that its tensors stay in its cache


def run(
    problem: LassoProblem, x: Tensor, state: State, step: Step, num_iterations: int, tol: float | None, name: str
) -> Tensor:
    """Codes (batch, m) after ``num_iterations`` steps, or earlier for rows whose relative gap is at most ``tol``.

    Rows that have converged leave the batch, so that a few slow problems do not cost as much as all of them, and so do
    rows whose gap no longer falls where rounding alone can be the cause. A row's code does not depend on the others.

    Args:
        problem: the Lasso.
        x: signals (batch, n).
        state: the state that the iteration starts from.
        step: from signals and state to the next state.
        num_iterations: at least 0; the most if ``tol`` is given.
        tol: relative duality gap to stop at, ``None`` to run all iterations.
        name: name of the method, which the warning gives.

    Raises:
        ValueError: if ``num_iterations`` or ``tol`` is out of its range.
    """
    if isinstance(num_iterations, bool) or not isinstance(num_iterations, int) or num_iterations < 0:
        raise ValueError(f"num_iterations must be an integer of at least 0, got {num_iterations!r}")
    if tol is not None and not 0 < tol < math.inf:
        raise ValueError(f"tol must be positive and finite, or None to run all iterations, got {tol!r}")
    if tol is None:
        for _ in range(num_iterations):
            state = step(x, state)
        return state[0]
    rows = _ROWS_IN_CACHE if x.device.type == "cpu" else max(1, len(x))
    parts = zip(x.split(rows), *(part.split(rows) for part in state), strict=True)
    codes, gaps = zip(*(_until(problem, x, state, step, num_iterations, tol) for x, *state in parts), strict=True)
    missed = torch.cat(gaps)
    if len(missed):
        warnings.warn(
            f"{name} stopped after {num_iterations} iterations with {len(missed)} of {len(x)} problems above "
            f"tol={tol:g}, the worst at a relative duality gap of {float(missed.max()):.3g}: raise num_iterations, or "
            f"tol where {x.dtype} cannot go further; lasso(problem, x, tol) ends in float64",
            stacklevel=4,
        )
    return torch.cat(codes)


def _until(
    problem: LassoProblem, x: Tensor, state: Sequence[Tensor], step: Step, num_iterations: int, tol: float
) -> tuple[Tensor, Tensor]:
    """The codes, and the gaps of those above ``tol``, which rows at the floor of their floating type may keep."""
    state = tuple(state)
    codes = torch.empty_like(state[0])
    rows = torch.arange(len(x), device=x.device)
    floor = _FLOOR * torch.finfo(x.dtype).eps
    least, idle = x.new_full((len(x),), math.inf), torch.zeros_like(rows)
    missed, done = [], 0
    while True:
        gaps = problem.relative_gap(x, state[0])
        better = gaps < least
        least, idle = torch.where(better, gaps, least), torch.where(better, 0, idle + 1)
        # A gap that is NaN, of a start that was, is not closed.
        closed = gaps <= tol
        stuck = (least <= floor) & (idle >= _PATIENCE)
        ended = closed | stuck | (done == num_iterations)
        # Near the floor gaps go up and down, and a row may end at any look: its best code is kept.
        taken = torch.where(least <= floor, better, ended)
        codes[rows[taken]] = state[0][taken]
        if bool(ended.any()):
            missed.append(torch.where(least <= floor, least, gaps)[ended & ~closed])
            left = (~ended).nonzero().flatten()
            x, rows, least, idle = x[left], rows[left], least[left], idle[left]
            state = tuple(part[left] for part in state)
        if len(rows) == 0:
            return codes, torch.cat(missed) if missed else gaps
        for _ in range(min(_CHECK_EVERY, num_iterations - done)):
            state = step(x, state)
            done += 1


def start(problem: LassoProblem, x: Tensor, initial: Tensor | None) -> Tensor:
    """Where to start from: ``initial`` (batch, m), or zeros.

    Raises:
        ValueError: if x or ``initial`` does not go with the dictionary.
    """
    if initial is None:
        problem.check(x)
        return x.new_zeros(len(x), problem.dictionary.shape[1])
    problem.check(x, initial)
    return initial.detach()
