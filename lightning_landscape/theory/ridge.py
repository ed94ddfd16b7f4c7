r"""The ridge of a two-layer linear network leaves its level sets connected.

Statement (Freeman & Bruna 2017, the linear case with two layers). Let ``E(W_1, W_2) = L(W_2 W_1) + kappa (||W_1||^2 +
||W_2||^2)`` with ``L(P) = (1/N) sum_i ||P x_i - y_i||^2``, kappa > 0 and a hidden width h > min(n, m). Then any two
points are joined by a path on which E <= max(E_a, E_b), and from any point a path on which E never increases leads to
a global minimum. Three layers and a ridge are another matter: there the penalty on the product is no longer convex.

Why. The least penalty of a product P is ``2 kappa ||P||_*`` (nuclear norm), so that the minimum of E is that of the
convex function ``F(P) = L(P) + 2 kappa ||P||_*``. With G the gradient of L at P, a point is a global minimum exactly
if it is stationary and the spectral norm of G is at most 2 kappa, and at any point

    E - min E <= kappa (||W_1||^2 + ||W_2||^2) + <G, P> + max(0, ||G|| - 2 kappa) min(E, L(0)) / (2 kappa),

which certifies the end of the descent.

Construction. E is a polynomial of degree 4 along a straight line. From each corner the path follows a descent
direction up to the first zero of the derivative, so that E falls all along the segment: Newton's direction with the
absolute values of the curvatures, or the escape from a saddle. For the latter let W_2 c = 0 (or W_1^T c = 0; one of
them has a kernel as h > min(n, m)). Dropping the component of W_1 along c leaves the product as it is and lowers the
penalty; then adding t u c^T to W_2 and t c v^T to W_1 adds t^2 u v^T to the product, and with the top singular
vectors of -G changes E by ``-(||G|| - 2 kappa) t^2 + O(t^4)``.

The minimiser of F is unique and its best factorisations are one orbit (W_2 R, R^T W_1) of the orthogonal group. As
their rank is at most min(n, m) < h, a reflection fixes the point, and rotations alone lead from one minimum to any
other. E is constant on the orbit, and the polygon through its points stays close: a chord of angle delta changes the
product by O(delta^2), and E by its square, for these are minima. The polygon is refined until it stays below the
level.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightning_landscape.models.theorems.deep_linear_network import DeepLinearNetwork
from lightning_landscape.path import Path
from lightning_landscape.theory.regression import Batch, Regression
from lightning_landscape.theory.subspaces import OneParameterRotations, null_space
from lightning_landscape.theory.weight_lists import Weights, flatten, path_through, weights_at

_GAP = 1e-12  # of the minimum, as a share of the loss at 0
_ROUNDING = 1e-14  # of E
_MAX_STEPS = 2000
_FLAT = 1e-10  # curvatures below this share of the largest are raised to it
_PREFERENCE = 1e-3  # Newton's step is taken unless it promises less than this share of the escape
_MARGIN = 1e-10  # what the polygon on the orbit may exceed the level by, relative
_MAX_CHORDS = 2**14


class RidgeProblem:
    """``E(W_1, W_2) = L(W_2 W_1) + kappa (||W_1||^2 + ||W_2||^2)``, and the descent to its minimum.

    Args:
        batch: (x, y), tensors (N, n) and (N, m).
        ridge: kappa > 0.
    """

    def __init__(self, batch: Batch, ridge: float) -> None:
        self.regression = Regression(batch)
        self.ridge = ridge
        self._x, self._y = (part.detach().to("cpu", torch.float64) for part in batch)
        self._at_zero = float(self._y.square().sum(1).mean())

    def loss(self, weights: Weights) -> float:
        """E at (W_1, W_2)."""
        return float(self._loss(*weights))

    def gap(self, weights: Weights) -> float:
        """The upper bound of E - min E in the module's docstring."""
        inner, outer = weights
        product = outer @ inner
        gradient = self.regression.gradient(product)
        loss = self.loss(weights)
        excess = max(0.0, float(torch.linalg.matrix_norm(gradient, ord=2)) - 2 * self.ridge)
        penalty = self.ridge * float(inner.square().sum() + outer.square().sum())
        stationary = penalty + float((gradient * product).sum())
        return stationary + excess * min(loss, self._at_zero) / (2 * self.ridge)

    def minimise(self, weights: Weights) -> list[Weights]:
        """Corners of a path from ``weights`` to a global minimum on which E falls.

        Raises:
            RuntimeError: if the minimum could not be certified to a share of 1e-10 of L(0).
        """
        states = [weights]
        scale = self._at_zero or self.loss(weights)
        for _ in range(_MAX_STEPS):
            if self.gap(states[-1]) <= _GAP * scale:
                break
            direction, gain = self._newton(states[-1])
            corner, escape, reward = self._escape(states[-1])
            if gain < _PREFERENCE * reward:
                states.append(corner)
                direction = escape
            step = self._first_minimum(states[-1], direction)
            following = [weight + step * part for weight, part in zip(states[-1], direction, strict=True)]
            fall = self.loss(states[-1]) - self.loss(following)
            # E is flat where its gradient still shrinks: go on below its rounding while the gap closes.
            if step == 0.0 or (fall <= _ROUNDING * scale and self.gap(following) >= self.gap(states[-1])):
                break
            states.append(following)
        if (gap := self.gap(states[-1])) > 100 * _GAP * scale:
            raise RuntimeError(
                f"the minimum is certified to {gap:.3g} only, after {len(states)} corners: scale the data or raise the "
                f"ridge, {self.ridge:g}"
            )
        return states

    def _loss(self, inner: Tensor, outer: Tensor) -> Tensor:
        error = (self._x @ inner.T @ outer.T - self._y).square().sum(1).mean()
        return error + self.ridge * (inner.square().sum() + outer.square().sum())

    def _newton(self, weights: Weights) -> tuple[Weights, float]:
        """Newton's direction with absolute curvatures, and about how much it will gain."""
        inner, outer = weights
        sizes = [inner.numel(), outer.numel()]

        def loss(theta: Tensor) -> Tensor:
            first, second = theta.split(sizes)
            return self._loss(first.view_as(inner), second.view_as(outer))

        theta = flatten(weights)
        gradient = torch.func.grad(loss)(theta)
        curvatures, axes = torch.linalg.eigh(torch.func.jacrev(torch.func.grad(loss))(theta))
        curvatures = curvatures.abs()
        along = axes.T @ gradient
        direction = -axes @ (along / curvatures.clamp_min(_FLAT * float(curvatures.max())))
        first, second = direction.split(sizes)
        return [first.view_as(inner), second.view_as(outer)], -float(gradient @ direction) / 2

    def _escape(self, weights: Weights) -> tuple[Weights, Weights, float]:
        """A corner with an idle direction c, the escape along it, and how much it will gain."""
        inner, outer = weights
        idle = null_space(outer)[:, -1:]
        if idle.shape[1]:
            corner = [inner - idle @ (idle.T @ inner), outer]
        else:
            idle = null_space(inner.T)[:, -1:]
            corner = [inner, outer - outer @ idle @ idle.T]
        left, values, right = torch.linalg.svd(-self.regression.gradient(outer @ inner), full_matrices=False)
        excess = max(0.0, float(values[0]) - 2 * self.ridge)
        curvature = float((self._x @ right[0]).square().mean())
        reward = excess**2 / (4 * curvature) if excess else 0.0
        return corner, [idle @ right[:1], left[:, :1] @ idle.T], reward

    def _first_minimum(self, weights: Weights, direction: Weights) -> float:
        """The first minimum of E at t > 0 along the direction; 0 if there is none."""
        (inner, outer), (d_inner, d_outer) = weights, direction
        constant = self._x @ inner.T @ outer.T - self._y
        linear = self._x @ (d_inner.T @ outer.T + inner.T @ d_outer.T)
        quadratic = self._x @ d_inner.T @ d_outer.T

        def mean(first: Tensor, second: Tensor) -> float:
            return float((first * second).sum(1).mean())

        slope = float(sum((w * d).sum() for w, d in zip(weights, direction, strict=True)))
        bend = float(sum(d.square().sum() for d in direction))
        derivative = [
            4 * mean(quadratic, quadratic),
            6 * mean(linear, quadratic),
            2 * (mean(linear, linear) + 2 * mean(constant, quadratic) + self.ridge * bend),
            2 * (mean(constant, linear) + self.ridge * slope),
        ]
        roots = np.roots(derivative)
        real = roots.real[np.abs(roots.imag) <= 1e-9 * np.abs(roots)]
        # Of an escape the slope at 0 is rounding, which may put a maximum next to it.
        minima = real[(real > 0) & (np.polyval(np.polyder(derivative), real) > 0)]
        return float(minima.min()) if len(minima) else 0.0


def connecting_path(module: DeepLinearNetwork, theta_a: Tensor, theta_b: Tensor, batch: Batch) -> Path:
    """A path from ``theta_a`` to ``theta_b`` on which E <= max(E_a, E_b), up to 1e-10 of it.

    It leads through minima next to either end. Newton's method takes a dense Hessian, so that this is for networks of
    up to a few thousand weights.

    Args:
        module: the network, with one hidden layer and a ridge; its weights are not read.
        theta_a: parameters of the one end, shape (P,), in the order of ``named_parameters()``.
        theta_b: parameters of the other end, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), tensors (N, n) and (N, m).

    Raises:
        ValueError: if there are not two layers, or for a batch or parameters of another shape.
        RuntimeError: if a minimum could not be certified, or float64 does not resolve the level.
    """
    problem = _problem(module, batch)
    start, end = weights_at(module, theta_a), weights_at(module, theta_b)
    if torch.equal(theta_a, theta_b):
        return path_through([start, end])
    states_a, states_b = problem.minimise(start), problem.minimise(end)
    level = max(problem.loss(start), problem.loss(end))
    orbit = _turn(problem, states_a[-1], states_b[-1], level * (1 + _MARGIN))
    return path_through([*states_a, *orbit, *reversed(states_b)])


def descent_path(module: DeepLinearNetwork, theta: Tensor, batch: Batch) -> Path:
    """A path from ``theta`` to a global minimum on which E never increases.

    Args:
        module: the network, with one hidden layer and a ridge; its weights are not read.
        theta: parameters, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), tensors (N, n) and (N, m).

    Raises:
        ValueError: if there are not two layers, or for a batch or parameters of another shape.
        RuntimeError: if the minimum could not be certified.
    """
    return path_through(_problem(module, batch).minimise(weights_at(module, theta)))


def _problem(module: DeepLinearNetwork, batch: Batch) -> RidgeProblem:
    if len(module.widths) != 3:
        raise ValueError(
            f"ridge = {module.ridge} needs exactly two layers, and widths are {module.widths}: set it to 0"
        )
    Regression(batch).require_shape(module.num_inputs, module.num_outputs)
    return RidgeProblem(batch, module.ridge)


def _turn(problem: RidgeProblem, start: Weights, end: Weights, level: float) -> list[Weights]:
    """Corners (W_2 R(t), R(t)^T W_1) from one minimum to the point of its orbit next to the other."""
    stacked = [torch.cat([inner.T, outer]) for inner, outer in (start, end)]
    left, _, right = torch.linalg.svd(stacked[0].T @ stacked[1])
    left[:, -1] *= torch.linalg.det(left @ right).sign()  # the point has no component there
    rotations = OneParameterRotations(left @ right)
    inner, outer = start
    chords = 8
    while chords <= _MAX_CHORDS:
        turns = [rotations(step / chords) for step in range(chords + 1)]
        corners = [[turn.T @ inner, outer @ turn] for turn in turns]
        # All chords are one chord, turned: its middle is the highest point of it.
        middle = [(first + second) / 2 for first, second in zip(*corners[:2], strict=True)]
        if problem.loss(middle) <= level:
            return corners
        chords *= 2
    raise RuntimeError(
        f"a polygon of {_MAX_CHORDS} chords between the two minima still rises above max(E_a, E_b) = {level:g}: "
        "the ends are closer to the minimum than float64 resolves"
    )
