"""Accelerated iterative soft thresholding, with restarts if wanted."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_landscape.sparse_coding.problem import LassoProblem
from lightning_landscape.sparse_coding.stopping import State, Step, run, start


@torch.no_grad()
def fista(
    problem: LassoProblem,
    x: Tensor,
    num_iterations: int = 1000,
    tol: float | None = None,
    restart: bool = False,
    initial: Tensor | None = None,
) -> Tensor:
    """Minimise F by proximal gradient steps with momentum (Beck & Teboulle 2009).

    ``z_{k+1} = h_{lam/L}(y_k - 1/L D^T (D y_k - x))``, ``y_{k+1} = z_{k+1} + (t_k - 1) / t_{k+1} (z_{k+1} - z_k)``
    with ``t_0 = 1``, ``t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2`` and ``y_0 = z_0``.

    Args:
        problem: the Lasso.
        x: signals (batch, n).
        num_iterations: how many iterations, the most if ``tol`` is given.
        tol: stop each problem once its duality gap / F(z), looked at every 20 iterations, is at most this, or once
            rounding keeps it from falling any more (in float32 that may be above 1e-6). A warning says so where
            ``tol`` is not reached.
        restart: forget a problem's momentum (t = 1) whenever it points uphill,
            ``(y_k - z_{k+1})^T (z_{k+1} - z_k) > 0`` (the gradient scheme of O'Donoghue & Candes 2015).
        initial: z_0 (batch, m), by default zeros.

    Returns:
        Codes (batch, m).

    Raises:
        ValueError: if an argument is out of its range or does not go with the dictionary.

    Example:
        >>> problem = LassoProblem(torch.eye(2), lam=0.5)
        >>> fista(problem, torch.tensor([[2.0, 0.25]]), tol=1e-6)
        tensor([[1.5000, 0.0000]])
    """
    state = momentum_start(start(problem, x, initial))
    return run(problem, x, state, fista_step(problem, restart), num_iterations, tol, "fista")


def fista_iterates(problem: LassoProblem, x: Tensor, restart: bool = False) -> Iterator[Tensor]:
    """The codes z_0 = 0, z_1, z_2, ... (batch, m) of :func:`fista`, without end.

    Args:
        problem: the Lasso.
        x: signals (batch, n).
        restart: drop the momentum wherever it points uphill.
    """
    state = momentum_start(start(problem, x, None))
    step = fista_step(problem, restart)
    while True:
        yield state[0]
        with torch.no_grad():
            state = step(x, state)


def momentum_weights(count: int) -> list[float]:
    """The first ``count`` weights ``(t_{k-1} - 1) / t_k`` of FISTA, that which makes y_k for k = 0, 1, ...

    Example:
        >>> [round(weight, 3) for weight in momentum_weights(4)]
        [0.0, 0.0, 0.282, 0.434]
    """
    weights, t = [0.0] * min(count, 1), 1.0
    while len(weights) < count:
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2
        weights.append((t - 1) / following)
        t = following
    return weights


def momentum_start(z: Tensor) -> State:
    """The state of :func:`fista_step` before its first iteration, from codes z (batch, m)."""
    return z, z, z.new_ones(len(z), 1)


def fista_step(problem: LassoProblem, restart: bool, lipschitz: float | None = None) -> Step:
    """One iteration of :func:`fista` for signals (batch, n), from a state to the next.

    Args:
        problem: the Lasso.
        restart: drop the momentum wherever it points uphill.
        lipschitz: what to take for L, ``None`` for L itself.
    """
    dictionary, rate = problem.dictionary, 1 / (problem.lipschitz if lipschitz is None else lipschitz)
    threshold = rate * problem.lam

    def step(x: Tensor, state: State) -> State:
        z, y, t = state
        residual = torch.addmm(x, y, dictionary.T, alpha=-1)
        new = torch.nn.functional.softshrink(torch.addmm(y, residual, dictionary, alpha=rate), threshold)
        change = new - z
        if restart:
            uphill = ((y - new) * change).sum(dim=1, keepdim=True) > 0
            t = torch.where(uphill, torch.ones_like(t), t)
        following = (1 + (1 + 4 * t.square()).sqrt()) / 2
        return new, torch.addcmul(new, (t - 1) / following, change), following

    return step
