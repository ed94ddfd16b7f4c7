"""Iterative soft thresholding."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_landscape.sparse_coding.problem import LassoProblem
from lightning_landscape.sparse_coding.stopping import State, Step, run, start


@torch.no_grad()
def ista(
    problem: LassoProblem,
    x: Tensor,
    num_iterations: int = 1000,
    tol: float | None = None,
    initial: Tensor | None = None,
) -> Tensor:
    """Minimise F by ``z_{k+1} = h_{lam/L}(z_k - 1/L D^T (D z_k - x))`` (Daubechies et al. 2004).

    Args:
        problem: the Lasso.
        x: signals (batch, n).
        num_iterations: how many iterations, the most if ``tol`` is given.
        tol: stop each problem once its duality gap / F(z), looked at every 20 iterations, is at most this, or once
            rounding keeps it from falling any more (in float32 that may be above 1e-6). A warning says so where
            ``tol`` is not reached.
        initial: z_0 (batch, m), by default zeros.

    Returns:
        Codes (batch, m).

    Raises:
        ValueError: if an argument is out of its range or does not go with the dictionary.

    Example:
        >>> problem = LassoProblem(torch.eye(2), lam=0.5)
        >>> ista(problem, torch.tensor([[2.0, 0.25]]), num_iterations=1)
        tensor([[1.5000, 0.0000]])
    """
    return run(problem, x, (start(problem, x, initial),), _step(problem), num_iterations, tol, "ista")


def ista_iterates(problem: LassoProblem, x: Tensor) -> Iterator[Tensor]:
    """The codes z_0 = 0, z_1, z_2, ... (batch, m) of :func:`ista`, without end.

    Args:
        problem: the Lasso.
        x: signals (batch, n).
    """
    state: State = (start(problem, x, None),)
    step = _step(problem)
    while True:
        yield state[0]
        with torch.no_grad():
            state = step(x, state)


def _step(problem: LassoProblem) -> Step:
    dictionary, rate = problem.dictionary, 1 / problem.lipschitz
    threshold = rate * problem.lam

    def step(x: Tensor, state: State) -> State:
        (z,) = state
        residual = torch.addmm(x, z, dictionary.T, alpha=-1)
        return (torch.nn.functional.softshrink(torch.addmm(z, residual, dictionary, alpha=rate), threshold),)

    return step
