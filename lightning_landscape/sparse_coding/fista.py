"""Accelerated iterative soft thresholding, with restarts if wanted, and optima to measure others against."""

from __future__ import annotations

import warnings
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
        tol: stop each problem once its duality gap / F(z), looked at every 20 iterations, is at most this. A warning
            says so where that does not happen.
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
    state = _begin(start(problem, x, initial))
    return run(problem, x, state, _step(problem, restart), num_iterations, tol, "fista")


def fista_iterates(problem: LassoProblem, x: Tensor, restart: bool = False) -> Iterator[Tensor]:
    """The codes z_0 = 0, z_1, z_2, ... (batch, m) of :func:`fista`, without end.

    Args:
        problem: the Lasso.
        x: signals (batch, n).
        restart: drop the momentum wherever it points uphill.
    """
    state = _begin(start(problem, x, None))
    step = _step(problem, restart)
    while True:
        yield state[0]
        with torch.no_grad():
            state = step(x, state)


def reference_optimum(
    problem: LassoProblem, x: Tensor, tol: float = 1e-9, num_iterations: int = 200_000
) -> tuple[Tensor, Tensor]:
    """Minimisers and minima in float64, from FISTA with restarts, certified by their duality gap.

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an error takes its place
        codes = fista(precise, signals, num_iterations, tol, restart=True)
    worst = float(precise.relative_gap(signals, codes).max()) if len(x) else 0.0
    if worst > tol:
        raise RuntimeError(
            f"after {num_iterations} iterations the relative duality gap is {worst:.3g}, above tol={tol:g}: "
            "raise num_iterations"
        )
    return codes, precise.objective(signals, codes)


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


def _begin(z: Tensor) -> State:
    return z, z, z.new_ones(len(z), 1)


def _step(problem: LassoProblem, restart: bool) -> Step:
    dictionary, rate = problem.dictionary, 1 / problem.lipschitz
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
