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
_ROWS_IN_CACHE = 500  # problems that a CPU takes at a time, so that its tensors stay in its cache


def run(
    problem: LassoProblem, x: Tensor, state: State, step: Step, num_iterations: int, tol: float | None, name: str
) -> Tensor:
    """Codes (batch, m) after ``num_iterations`` steps, or earlier for rows whose relative gap is at most ``tol``.

    Rows that have converged leave the batch, so that a few slow problems do not cost as much as all of them. A row's
    code does not depend on the other rows.

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
            "tol where the floating type cannot go further",
            stacklevel=4,
        )
    return torch.cat(codes)


def _until(
    problem: LassoProblem, x: Tensor, state: Sequence[Tensor], step: Step, num_iterations: int, tol: float
) -> tuple[Tensor, Tensor]:
    """The codes, and the gaps of those above ``tol``."""
    state = tuple(state)
    codes = torch.empty_like(state[0])
    rows = torch.arange(len(x), device=x.device)
    done = 0
    while True:
        gaps = problem.relative_gap(x, state[0])
        # A gap that is NaN, of a start that was, is not closed.
        closed = gaps <= tol
        if bool(closed.any()) or done == num_iterations:
            codes[rows] = state[0]
            left = (~closed).nonzero().flatten()
            x, rows, gaps = x[left], rows[left], gaps[left]
            state = tuple(part[left] for part in state)
        if len(rows) == 0 or done == num_iterations:
            return codes, gaps
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
