r"""Level sets of two-layer ReLU networks are connected up to an excess that shrinks with the width.

Statement (Freeman & Bruna 2017, the main result of Sec. 2.3). Let the m rows of U lie in the unit ball, kappa > 0 and
``E(U, V) = (1/N) sum_i ||V relu(U x_i) - y_i||^2 + kappa |V|_1``, and let

- e(l) be the least E of a network with l units, the oracle, and
- delta_U(k, alpha) the least E of a network with at most k units, each within the angle alpha of a row of U.

If E(theta_a), E(theta_b) <= lambda, a path joins them with E <= max(lambda, epsilon), where epsilon is the infimum
over l and alpha of

    max{e(l), delta_a(m, 0), delta_a(m - l, alpha), delta_b(m, 0), delta_b(m - l, alpha)} + C alpha + O(alpha^2)

and C depends on kappa and the data alone. So epsilon is a height, to be compared with lambda, and not a rise above it.
As m grows some of the m rows come so close to each other that one of them can be spared: the corollary counts the balls
of a cover of the sphere, by which the rise falls like m^(-1/n) at least, but for an exponent as small as one likes,
with n the number of inputs.

Construction. With alpha = 0 no segment needs the constant C. E is convex in V for fixed U, and does not depend on the
rows of units that V ignores. So move V straight to a network on m - l units of theta_a; put the l units of an oracle
into the rows that are free; move V straight to the oracle's; and come back the same way on the side of theta_b. Each
segment moves V alone or free rows alone, so that E is nowhere above its largest value at a corner, of which the inner
ones are upper bounds of delta_a(m - l, 0), e(l) and delta_b(m - l, 0). Their maximum is the measured epsilon.

Which units stay is chosen by the Lasso: on the rows of an end the m - l units of largest share are kept, and the oracle
is made of l units among the 2 m of both ends. Both are then fitted again. l balances the two.

The theorem names no path to a global minimum, so that there is no ``descent_path``; and it excludes no width, for a
narrow network only makes epsilon large: up to (1/N) sum_i ||y_i||^2, at l = m.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso
from torch import Tensor

from lightning_landscape.models.theorems.two_layer_relu import TwoLayerReLU, into_ball
from lightning_landscape.path import Path
from lightning_landscape.theory.weight_lists import Weights, path_through, weights_at

Batch = tuple[Tensor, Tensor]

_SWEEPS = 10_000  # of coordinate descent
_GAP = 1e-6  # relative duality gap at which it ends


@dataclass(frozen=True)
class Construction:
    """The path of the theorem and the heights of its corners.

    Attributes:
        path: from theta_a to theta_b; E <= max(E_a, E_b, ``epsilon``) on all of it.
        epsilon: the largest E at a corner between the ends, 0 where the straight line does.
        oracle_units: l, the number of units that the network in the middle uses.
    """

    path: Path
    epsilon: float
    oracle_units: int


def connecting_path(module: TwoLayerReLU, theta_a: Tensor, theta_b: Tensor, batch: Batch) -> Path:
    """A path from ``theta_a`` to ``theta_b`` on which E <= max(E_a, E_b, epsilon); :func:`construct` gives the epsilon.

    Args:
        module: the network; its weights are not read.
        theta_a: parameters of the one end, shape (P,), in the order of ``named_parameters()``.
        theta_b: parameters of the other end, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), tensors (N, n) and (N, m).

    Returns:
        A path in float64.

    Raises:
        ValueError: without an l1 penalty, or for a batch or parameters of another shape or not finite.

    Example:
        >>> network = TwoLayerReLU(num_inputs=1, hidden_units=3)
        >>> x = torch.tensor([[-1.0], [1.0]])
        >>> connecting_path(network, torch.ones(6), -torch.ones(6), (x, x.abs())).beads.shape[1]
        6
    """
    return construct(module, theta_a, theta_b, batch).path


def construct(module: TwoLayerReLU, theta_a: Tensor, theta_b: Tensor, batch: Batch) -> Construction:
    """The path of :func:`connecting_path` with its epsilon.

    Args:
        module: the network; its weights are not read.
        theta_a: parameters of the one end, shape (P,), in the order of ``named_parameters()``.
        theta_b: parameters of the other end, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), tensors (N, n) and (N, m).

    Raises:
        ValueError: without an l1 penalty, or for a batch or parameters of another shape or not finite.
    """
    problem = _Problem(module, batch)
    start, end = weights_at(module, theta_a), weights_at(module, theta_b)
    if torch.equal(start[0], end[0]):
        return Construction(path_through([start, end]), 0.0, 0)
    ends = _Ranked(problem, start[0]), _Ranked(problem, end[0])
    both = _Ranked(problem, torch.cat([start[0], end[0]]))

    def corners(units: int) -> tuple[_Fit, _Fit, _Fit]:
        rest = module.hidden_units - units
        return ends[0].best(rest), both.best(units), ends[1].best(rest)

    # The ends get worse with l and the oracle better: the least maximum is where they cross, or just before.
    low, high = 1, module.hidden_units
    while low < high:
        middle = (low + high) // 2
        first, oracle, last = corners(middle)
        low, high = (low, middle) if oracle.loss <= max(first.loss, last.loss) else (middle + 1, high)
    candidates = {units: corners(units) for units in (max(low - 1, 1), low)}
    heights = {units: max(fit.loss for fit in found) for units, found in candidates.items()}
    units = min(heights, key=lambda units: heights[units])
    return Construction(path_through(_states(start, end, *candidates[units])), heights[units], units)


@dataclass(frozen=True)
class _Fit:
    """A second layer on some of the rows of a first one.

    Attributes:
        rows: the rows that it may use, shape (k, n).
        units: their indices among the rows that they were chosen from.
        readout: V on these rows, shape (num_outputs, k).
        loss: E.
    """

    rows: Tensor
    units: list[int]
    readout: Tensor
    loss: float


class _Problem:
    """E in float64 and the convex problem in V."""

    def __init__(self, module: TwoLayerReLU, batch: Batch) -> None:
        x, y = (part.detach().to("cpu", torch.float64) for part in batch)
        if x.ndim != 2 or x.shape[1] != module.num_inputs or y.shape != (len(x), module.num_outputs) or len(x) == 0:
            raise ValueError(
                f"batch must be x (N, {module.num_inputs}) and y (N, {module.num_outputs}), "
                f"got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        if not bool(x.isfinite().all()) or not bool(y.isfinite().all()):
            raise ValueError("batch must be finite, got NaN or infinite entries")
        if not module.l1 > 0:
            raise ValueError(f"the theorem needs an l1 penalty on the second layer, got l1={module.l1}")
        self.x, self.y, self.l1 = x, y, module.l1

    def features(self, rows: Tensor) -> Tensor:
        return torch.relu(self.x @ into_ball(rows).T)

    def fit(self, rows: Tensor, units: list[int]) -> _Fit:
        """The Lasso on the given rows of ``rows``."""
        chosen = rows[units]
        features = self.features(chosen)
        readout = torch.zeros(self.y.shape[1], len(units), dtype=torch.float64)
        if units:
            lasso = Lasso(alpha=self.l1 / 2, fit_intercept=False, tol=_GAP, max_iter=_SWEEPS)
            with warnings.catch_warnings():
                # Whatever V it ends at is a corner of the path, whose height is measured.
                warnings.simplefilter("ignore", ConvergenceWarning)
                lasso.fit(features.numpy(), self.y.numpy())
            readout = torch.from_numpy(np.atleast_2d(lasso.coef_))
        error = (features @ readout.T - self.y).square().sum(1).mean()
        return _Fit(chosen, units, readout, float(error + self.l1 * readout.abs().sum()))


class _Ranked:
    """Rows in the order of the share that they have in the Lasso on all of them."""

    def __init__(self, problem: _Problem, rows: Tensor) -> None:
        self._problem = problem
        self._rows = rows
        self._known: dict[int, _Fit] = {}
        everything = problem.fit(rows, list(range(len(rows))))
        shares = everything.readout.norm(dim=0) * problem.features(rows).norm(dim=0)
        self._order: list[int] = shares.argsort(descending=True, stable=True).tolist()

    def best(self, count: int) -> _Fit:
        """The Lasso on the first ``count`` rows in that order."""
        if count not in self._known:
            self._known[count] = self._problem.fit(self._rows, sorted(self._order[:count]))
        return self._known[count]


def _states(start: Weights, end: Weights, first: _Fit, oracle: _Fit, last: _Fit) -> Iterator[Weights]:
    """The corners of the path; between two of them V alone moves, or rows that V ignores."""
    units = range(len(start[0]))
    free, wanted = (sorted(set(units) - set(fit.units)) for fit in (first, last))
    yield start
    readout = _spread(first.readout, first.units, start[1])
    yield [start[0], readout]
    rows = start[0].clone()
    rows[free] = oracle.rows
    yield [rows, readout]
    readout = _spread(oracle.readout, free, readout)
    yield [rows, readout]
    # The oracle has to leave the rows that theta_b keeps: its units there are copied, and V moved to the copies.
    leaving, arriving = [u for u in free if u not in wanted], [u for u in wanted if u not in free]
    rows = rows.clone()
    rows[arriving] = rows[leaving]
    yield [rows, readout]
    moved = readout.clone()
    moved[:, arriving], moved[:, leaving] = readout[:, leaving], 0.0
    yield [rows, moved]
    rows = rows.clone()
    rows[last.units] = last.rows
    yield [rows, moved]
    readout = _spread(last.readout, last.units, moved)
    yield [rows, readout]
    yield [end[0], readout]
    yield end


def _spread(readout: Tensor, units: list[int], like: Tensor) -> Tensor:
    """V on all units, of the shape of ``like``."""
    spread = torch.zeros_like(like)
    spread[:, units] = readout
    return spread
