r"""Two-layer networks with a polynomial activation and as many units as twice the dimension of what they span.

Statement (Venturi, Bandeira & Bruna 2018, "Spurious valleys in two-layer neural network optimization landscapes";
Bruna's lecture). Let ``f(x) = U rho(W x)`` with a polynomial rho, ``A(w)`` the function ``x -> rho(w . x)`` and q the
dimension of span {A(w)}, its intrinsic dimension. If the number M of hidden units is at least 2 q, then from any
point there is a path to a global minimum on which ``E(U, W) = (1/N) sum_i ||f(x_i) - y_i||^2`` never increases, and
any two points are joined by a path on which E <= max(E_a, E_b). Nothing is assumed of the data.

For ``rho(z) = sum_k c_k z^k`` and n inputs, q is the number of monomials of the degrees that occur, ``q = sum over
c_k != 0 of binom(n + k - 1, k)``: replacing w by t w separates the degrees, and the powers ``(w . x)^k`` span all
forms of degree k.

Construction. In the basis of the monomials ``A(w)`` is a vector phi(w) of R^q and f the matrix ``sum_j u_j
phi(w_j)^T``, on which E depends as a convex quadratic. f stays as it is when u moves along a dependency among the
phi(w_j), and when w_j moves at will where u_j = 0.

1. *Carathéodory.* Some r <= q of the phi(w_j) are a basis of their span. The readout is moved on to these units, in
   one straight line; M - r >= q units are now idle.
2. *Descent.* Idle units get weights with which they span all of R^q. On them a readout is found with which f is the
   least-squares solution; E is convex in U, and the straight line to it never increases. As ``f(x; U, W) = f(x / s;
   U, s W)``, exactly so for powers of two s, the inputs are taken in units of their own size.
3. *Connection.* Both ends are compressed to sets J_a and J_b of at most q units. Each unit of J_b is rebuilt in an
   idle place of a: its own where that is not in J_a, else a place outside of both sets, of which 2 q <= M leaves
   enough. The straight line to the readout of b, on these, is convex. What was rebuilt elsewhere then changes place.
"""

from __future__ import annotations

import math
from functools import cached_property
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from lightning_landscape.models.theorems.polynomial_network import PolynomialNetwork
from lightning_landscape.path import Path
from lightning_landscape.theory.attained import require_minimum
from lightning_landscape.theory.regression import Batch, Regression
from lightning_landscape.theory.subspaces import (
    RANK_TOLERANCE,
    balanced_inverse,
    independent_rows,
    power_of_two,
)
from lightning_landscape.theory.weight_lists import Weights, path_through, weights_at

_CANDIDATES = 8  # random weights to choose from, for each that is needed
_SEED = 0


class PolynomialFeatures:
    """The coordinates phi(w) of ``A(w): x -> rho(w . x)``, and psi(x) with ``rho(w . x) = phi(w) . psi(x)``.

    For each power k with ``c_k != 0`` and each exponent alpha with ``|alpha| = k``, psi holds
    ``sqrt(k! / alpha!) x^alpha`` and phi the same of w, times c_k. They are square roots so that both vectors
    have the norm of the power.

    Args:
        num_inputs: n, coordinates of x.
        coefficients: coefficients of rho, the highest power first.

    Example:
        >>> features = PolynomialFeatures(2, [1.0, 0.0, 0.0])
        >>> features.dimension, features.of_inputs(torch.tensor([[1.0, 3.0]], dtype=torch.float64))[0].tolist()[::2]
        (3, [1.0, 9.0])
    """

    def __init__(self, num_inputs: int, coefficients: list[float] | tuple[float, ...]) -> None:
        self.num_inputs = num_inputs
        self.degrees = {k: c for k, c in enumerate(reversed(coefficients)) if c}
        if not self.degrees:
            raise ValueError(f"coefficients must not all be 0, got {[*coefficients]}")

    @property
    def dimension(self) -> int:
        """q, in closed form."""
        return sum(math.comb(self.num_inputs + k - 1, k) for k in self.degrees)

    def of_inputs(self, x: Tensor) -> Tensor:
        """psi at each row of x (N, n): shape (N, q), float64."""
        return self._roots * self._monomials(x)

    def of_weights(self, w: Tensor) -> Tensor:
        """phi at each row of w (M, n): shape (M, q), float64."""
        return self._scales * self.of_inputs(w)

    @cached_property
    def _exponents(self) -> list[tuple[int, ...]]:
        # Of each monomial the indices of its variables: (0, 0, 2) is x_0^2 x_2.
        return [monomial for k in self.degrees for monomial in combinations_with_replacement(range(self.num_inputs), k)]

    @cached_property
    def _roots(self) -> Tensor:
        counts = [
            math.factorial(len(monomial)) / math.prod(math.factorial(monomial.count(i)) for i in set(monomial))
            for monomial in self._exponents
        ]
        return torch.tensor(counts, dtype=torch.float64).sqrt()

    @cached_property
    def _scales(self) -> Tensor:
        return torch.tensor([self.degrees[len(monomial)] for monomial in self._exponents], dtype=torch.float64)

    def _monomials(self, points: Tensor) -> Tensor:
        points = points.double()
        columns = [points[:, list(monomial)].prod(1) for monomial in self._exponents]
        return torch.stack(columns, dim=1)


def intrinsic_dimension(num_inputs: int, coefficients: list[float] | tuple[float, ...]) -> int:
    """q, the dimension of span {x -> rho(w . x)} for a polynomial rho, in closed form.

    Args:
        num_inputs: n, coordinates of x.
        coefficients: coefficients of rho, the highest power first.

    Raises:
        ValueError: if all coefficients are 0.

    Example:
        >>> intrinsic_dimension(3, [1.0, 0.0, 0.0]), intrinsic_dimension(3, [1.0, 0.0, 1.0, 1.0])
        (6, 14)
    """
    return PolynomialFeatures(num_inputs, coefficients).dimension


def measured_dimension(module: PolynomialNetwork, inputs: Tensor | None = None, seed: int = 0) -> int:
    """The rank of ``rho(w_j . x_i)``, with more random weights than q.

    Args:
        module: the network, whose activation and number of inputs are used, not its weights.
        inputs: x_i, tensor (N, n): the dimension of the span on these data, at most N. ``None`` draws
            more Gaussian ones than q, on which the rank is q.
        seed: random seed of the random points.

    Example:
        >>> network = PolynomialNetwork(num_inputs=3, coefficients=[1.0, 0.0, 0.0])
        >>> measured_dimension(network), measured_dimension(network, torch.eye(3))
        (6, 3)
    """
    dimension = intrinsic_dimension(module.num_inputs, module.coefficients)
    generator = torch.Generator().manual_seed(seed)
    weights, points = torch.randn(2, 2 * dimension + 2, module.num_inputs, generator=generator, dtype=torch.float64)
    values = module.activation((points if inputs is None else inputs.double()) @ weights.T)
    return int(torch.linalg.matrix_rank(values / values.norm(dim=0).clamp_min(1e-300), rtol=RANK_TOLERANCE))


def descent_path(module: PolynomialNetwork, theta: Tensor, batch: Batch) -> Path:
    """A path from ``theta`` to a global minimum on which E never increases.

    Args:
        module: the network, with M >= 2 q hidden units; its weights are not read.
        theta: parameters, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), tensors (N, n) and (N, m).

    Returns:
        A path in float64: E is constant on it but for its last segment, where E is convex.

    Raises:
        ValueError: if there are fewer than 2 q hidden units, or for a batch or parameters of another shape.
        RuntimeError: if float64 does not resolve the minimum.

    Example:
        >>> network = PolynomialNetwork(num_inputs=1, hidden_units=2, coefficients=[1.0, 0.0, 0.0])
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> path = descent_path(network, torch.zeros(4), (x, 3 * x**2))
        >>> round(float((path.beads[-1, :2] ** 2 * path.beads[-1, 2:]).sum()), 9)
        3.0
    """
    features = _checked(module)
    states, busy = _compress(features, weights_at(module, theta))
    inner, outer = states[-1]
    sizes = power_of_two(batch[0].detach().to("cpu", torch.float64).square().mean(0).sqrt())
    problem = _lifted_problem(features, module, (batch[0] / sizes, batch[1]))
    idle = [unit for unit in range(len(inner)) if unit not in busy]
    spanning = _spanning(features)
    chosen = idle[: len(spanning)]
    inner = inner.clone()
    inner[chosen] = spanning / sizes
    states.append([inner, outer])
    readout = torch.zeros_like(outer)
    readout[:, chosen] = problem.solution @ balanced_inverse(features.of_weights(spanning))
    path = path_through([*states, [inner, readout]])
    require_minimum(module, path, batch, problem.minimum())
    return path


def connecting_path(module: PolynomialNetwork, theta_a: Tensor, theta_b: Tensor, batch: Batch) -> Path:
    """A path from ``theta_a`` to ``theta_b`` on which E <= max(E_a, E_b).

    Args:
        module: the network, with M >= 2 q hidden units; its weights are not read.
        theta_a: parameters of the one end, shape (P,), in the order of ``named_parameters()``.
        theta_b: parameters of the other end, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), tensors (N, n) and (N, m). The path is the same for all data.

    Returns:
        A path in float64: E is constant on it but for one segment, where E is convex.

    Raises:
        ValueError: if there are fewer than 2 q hidden units, or for a batch or parameters of another shape.

    Example:
        >>> network = PolynomialNetwork(num_inputs=1, hidden_units=2, coefficients=[1.0, 0.0, 0.0])
        >>> x = torch.ones(3, 1)
        >>> connecting_path(network, torch.ones(4), torch.tensor([-1.0, 2.0, 0.0, 1.0]), (x, x)).beads[-1].tolist()
        [-1.0, 2.0, 0.0, 1.0]
    """
    features = _checked(module)
    _lifted_problem(features, module, batch)
    start, end = weights_at(module, theta_a), weights_at(module, theta_b)
    if torch.equal(theta_a, theta_b):
        return path_through([start, end])
    states_a, busy_a = _compress(features, start)
    states_b, busy_b = _compress(features, end)
    (inner, outer), (goal, goal_outer) = states_a[-1], states_b[-1]

    shared = [unit for unit in busy_b if unit in busy_a]
    spare = [unit for unit in range(len(inner)) if unit not in busy_a and unit not in busy_b]
    place = {unit: unit for unit in busy_b} | dict(zip(shared, spare, strict=False))
    inner, readout = inner.clone(), torch.zeros_like(outer)
    for unit, where in place.items():
        inner[where] = goal[unit]
        readout[:, where] = goal_outer[:, unit]
    states = [*states_a, [inner, outer], [inner, readout]]
    # From here on f is that of b. All that is not in use takes the weights of b, and then what was elsewhere.
    moved = goal.clone()
    for unit in shared:
        moved[place[unit]] = goal[unit]
    states += [[moved, readout], [moved, goal_outer], [goal, goal_outer]]
    return path_through([*states, *reversed(states_b)])


def _checked(module: PolynomialNetwork) -> PolynomialFeatures:
    if not isinstance(module, PolynomialNetwork):
        raise ValueError(f"module must be a PolynomialNetwork, got {type(module).__name__}")
    features = PolynomialFeatures(module.num_inputs, module.coefficients)
    if module.hidden_units < 2 * features.dimension:
        raise ValueError(
            f"hidden_units M = {module.hidden_units} must be at least 2 q = {2 * features.dimension}, twice the "
            f"intrinsic dimension of the activation on {module.num_inputs} inputs"
        )
    return features


def _lifted_problem(features: PolynomialFeatures, module: PolynomialNetwork, batch: Batch) -> Regression:
    Regression(batch).require_shape(module.num_inputs, module.num_outputs)
    return Regression((features.of_inputs(batch[0]), batch[1]))


def _compress(features: PolynomialFeatures, weights: Weights) -> tuple[list[Weights], list[int]]:
    """Step 1: the corners, and the units in use, at most q."""
    inner, outer = weights
    lifted = features.of_weights(inner)
    # In units of their own the monomials of all degrees are of one size, whatever the size of the weights.
    lifted = lifted / power_of_two(lifted.abs().amax(0))
    busy = independent_rows(lifted)
    # Each phi in the basis; on the basis itself exactly the identity.
    mixing = lifted @ balanced_inverse(lifted[busy])
    mixing[busy] = torch.eye(len(busy), dtype=mixing.dtype)
    compressed = torch.zeros_like(outer)
    compressed[:, busy] = outer @ mixing
    return [weights, [inner, compressed]], busy


def _spanning(features: PolynomialFeatures) -> Tensor:
    """Weights (q, n) of units that span R^q, for inputs of the size 1."""
    generator = torch.Generator().manual_seed(_SEED)
    count = _CANDIDATES * features.dimension
    candidates = torch.randn(count, features.num_inputs, generator=generator, dtype=torch.float64)
    lifted = features.of_weights(candidates)
    return candidates[independent_rows(lifted / power_of_two(lifted.abs().amax(0)))]
