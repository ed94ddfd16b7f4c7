r"""Level sets of wide networks of several layers of squares are connected.

Statement (Freeman & Bruna 2017, the quadratic case with K layers; Bruna's lecture). Let ``f(x) = W_K h_{K-1}`` with
``h_k = (W_k h_{k-1})^2`` and ``h_0 = x`` in R^N. If the hidden layers are wide enough, then any two points are joined
by a path on which ``E = (1/L) sum_i ||f(x_i) - y_i||^2`` is at most max(E_a, E_b), and from any point a path on which E
never increases leads to a global minimum. The lecture asks for ``M_k >= 3 N^(2^k)``. Here ``M_k >= 2 q_k`` is enough,
with ``q_k = binom(N + 2^k - 1, 2^k)`` the dimension of the forms of degree 2^k in N variables.

Construction. The units of layer k are forms of degree 2^k, so that at most q_k of them are independent.

1. *Compression*, from the first layer up. Where the units of a layer depend on each other, the weights that read them
   move, in one straight line, on to a basis of at most q_k units: what is read stays the same for every x. The other
   units, at least q_k of them, are read by nobody and may have any weights.
2. *Descent.* q_k idle units of every layer get weights with which they span all forms of the degree: squares of forms
   of degree 2^(k-1) span those of degree 2^k. The readout goes straight to the least-squares solution on those of the
   last layer; E is convex in it.
3. *Connection.* Both ends are compressed. The busy units of b, those of all layers, are rebuilt among the idle units of
   a: in their own place where it is idle, else in one that is idle at both ends, of which 2 q_k <= M_k leaves enough.
   The straight line from the readout of a to that of b is convex. What was rebuilt elsewhere then changes place, layer
   by layer: a copy appears in the right place, what reads it moves over, and the first copy is idle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_landscape.models.theorems.deep_quadratic_network import DeepQuadraticNetwork
from lightning_landscape.path import Path
from lightning_landscape.theory.attained import require_minimum
from lightning_landscape.theory.regression import Batch, Regression
from lightning_landscape.theory.subspaces import balanced_inverse, independent_rows, power_of_two
from lightning_landscape.theory.weight_lists import Weights, path_through, weights_at

_CANDIDATES = 8  # random units to choose from, for each that is needed
_SEED = 0


def dimensions(num_inputs: int, num_layers: int) -> list[int]:
    """``q_k = binom(N + 2^k - 1, 2^k)``, the forms of degree 2^k, for the hidden layers k = 1, ..., K - 1.

    Args:
        num_inputs: N, at least 1.
        num_layers: K, at least 1; the last layer is linear.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> dimensions(num_inputs=3, num_layers=3)
        [6, 15]
    """
    for name, value in (("num_inputs", num_inputs), ("num_layers", num_layers)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return [math.comb(num_inputs + 2**layer - 1, 2**layer) for layer in range(1, num_layers)]


def descent_path(module: DeepQuadraticNetwork, theta: Tensor, batch: Batch) -> Path:
    """A path from ``theta`` to a global minimum on which E never increases.

    Args:
        module: the network, with ``M_k >= 2 q_k`` units in each hidden layer; its weights are not read.
        theta: parameters, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), tensors (L, N) and (L, num_outputs).

    Returns:
        A path in float64: E is constant on it but for its last segment, where E is convex.

    Raises:
        ValueError: if a hidden layer is too narrow, or for a batch or parameters of another shape.
        RuntimeError: if float64 does not resolve the minimum.

    Example:
        >>> network = DeepQuadraticNetwork(num_inputs=1, hidden=[2, 2])
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> path = descent_path(network, torch.zeros(8), (x, 3 * x**4))
        >>> weights = weights_at(network, path.beads[-1])
        >>> round(float(weights[2] @ (weights[1] @ weights[0] ** 2) ** 2), 9)
        3.0
    """
    needed = _checked(module, batch)
    sizes = _sizes(batch)
    states, busy = _compress(weights_at(module, theta), _points(module, sizes))
    weights = [weight.clone() for weight in states[-1]]
    idle = [
        [unit for unit in range(len(weight)) if unit not in used][:count]
        for weight, used, count in zip(weights[:-1], busy, needed, strict=True)
    ]
    spanning = _spanning(module.num_inputs, needed)
    weights[0][idle[0]] = spanning[0] / sizes
    for layer in range(1, len(idle)):
        rows = torch.zeros(needed[layer], weights[layer].shape[1], dtype=torch.float64)
        rows[:, idle[layer - 1]] = spanning[layer]
        weights[layer][idle[layer]] = rows
    features = _hidden(weights, batch[0].detach().to("cpu", torch.float64))[-1]
    problem = Regression((features[:, idle[-1]], batch[1]))
    readout = torch.zeros_like(weights[-1])
    readout[:, idle[-1]] = problem.solution
    path = path_through([*states, weights, [*weights[:-1], readout]])
    require_minimum(module, path, batch, problem.minimum())
    return path


def connecting_path(module: DeepQuadraticNetwork, theta_a: Tensor, theta_b: Tensor, batch: Batch) -> Path:
    """A path from ``theta_a`` to ``theta_b`` on which E <= max(E_a, E_b).

    Args:
        module: the network, with ``M_k >= 2 q_k`` units in each hidden layer; its weights are not read.
        theta_a: parameters of the one end, shape (P,), in the order of ``named_parameters()``.
        theta_b: parameters of the other end, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), tensors (L, N) and (L, num_outputs).

    Returns:
        A path in float64: f is constant on it, for every x, but for one segment, where E is convex.

    Raises:
        ValueError: if a hidden layer is too narrow, or for a batch or parameters of another shape.

    Example:
        >>> network = DeepQuadraticNetwork(num_inputs=1, hidden=[2, 2])
        >>> x = torch.ones(3, 1)
        >>> connecting_path(network, torch.ones(8), -torch.ones(8), (x, x)).beads[-1].tolist()
        [-1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0]
    """
    _checked(module, batch)
    start, end = weights_at(module, theta_a), weights_at(module, theta_b)
    if torch.equal(theta_a, theta_b):
        return path_through([start, end])
    points = _points(module, _sizes(batch))
    states_a, busy_a = _compress(start, points)
    states_b, busy_b = _compress(end, points)
    return path_through([*states_a, *_rebuild(states_a[-1], states_b[-1], busy_a, busy_b), *reversed(states_b)])


def _checked(module: DeepQuadraticNetwork, batch: Batch) -> list[int]:
    """q_k of the hidden layers."""
    if not isinstance(module, DeepQuadraticNetwork):
        raise ValueError(f"module must be a DeepQuadraticNetwork, got {type(module).__name__}")
    needed = dimensions(module.num_inputs, len(module.widths) - 1)
    for layer, (width, dimension) in enumerate(zip(module.widths[1:-1], needed, strict=True), start=1):
        if width < 2 * dimension:
            raise ValueError(
                f"hidden width M_{layer} = {width} must be at least 2 q_{layer} = {2 * dimension}, twice the number of "
                f"monomials of degree {2**layer} in N = {module.num_inputs} inputs"
            )
    Regression(batch).require_shape(module.num_inputs, module.num_outputs)
    return needed


def _sizes(batch: Batch) -> Tensor:
    return power_of_two(batch[0].detach().to("cpu", torch.float64).square().mean(0).sqrt())


def _points(module: DeepQuadraticNetwork, sizes: Tensor) -> Tensor:
    """Points (S, N) of the data's size, enough for forms to be equal that are equal at them."""
    count = 2 * max(dimensions(module.num_inputs, len(module.widths) - 1))
    generator = torch.Generator().manual_seed(_SEED)
    return sizes * torch.randn(count, module.num_inputs, generator=generator, dtype=torch.float64)


def _hidden(weights: Weights, x: Tensor) -> list[Tensor]:
    """h_1, ..., h_{K-1} at each row of x, of shapes (N, n_k)."""
    layers = []
    for weight in weights[:-1]:
        x = (x @ weight.T).square()
        layers.append(x)
    return layers


def _compress(weights: Weights, points: Tensor) -> tuple[list[Weights], list[list[int]]]:
    """Step 1: the corners, and of each hidden layer the units in use, at most q_k."""
    states, busy = [weights], []
    for layer, values in enumerate(_hidden(weights, points)):
        units = values.T / power_of_two(values.abs().amax(1))
        used = independent_rows(units)
        mixing = units @ balanced_inverse(units[used])
        mixing[used] = torch.eye(len(used), dtype=mixing.dtype)
        read = torch.zeros_like(weights[layer + 1])
        read[:, used] = weights[layer + 1] @ mixing
        weights = [*weights[: layer + 1], read, *weights[layer + 2 :]]
        states.append(weights)
        busy.append(used)
    return states, busy


def _spanning(num_inputs: int, needed: list[int]) -> list[Tensor]:
    """Weights (q_k, q_{k-1}) of layers that span all forms of their degrees, for inputs of the size 1."""
    generator = torch.Generator().manual_seed(_SEED)
    values = torch.randn(2 * max(needed), num_inputs, generator=generator, dtype=torch.float64)
    chosen = []
    for count in needed:
        rows = torch.randn(_CANDIDATES * count, values.shape[1], generator=generator, dtype=torch.float64)
        # Each unit of the size 1 at typical points, so that no layer dwarfs the next.
        rows = rows / (values @ rows.T).square().mean(0).sqrt()[:, None]
        squares = (values @ rows.T).square()
        best = independent_rows(squares.T)[:count]
        chosen.append(rows[best])
        values = squares[:, best]
    return chosen


def _rebuild(start: Weights, goal: Weights, busy_a: list[list[int]], busy_b: list[list[int]]) -> Iterator[Weights]:
    """Steps 3: corners from one compressed network to the other."""
    places = [_places(len(goal[layer]), *used) for layer, used in enumerate(zip(busy_a, busy_b, strict=True))]
    weights = [weight.clone() for weight in start]
    columns: dict[int, int] | None = None  # where the units of the layer below are; None: inputs
    for layer, place in enumerate(places):
        for unit, where in place.items():
            weights[layer][where] = _moved(goal[layer][unit], columns)
        columns = place
    yield weights
    readout = torch.stack([_moved(row, columns) for row in goal[-1]])
    weights = [*weights[:-1], readout]
    yield weights
    # From here on f is that of b. What is in place in the layers below, and in this one what is not in use, follows b.
    for layer, place in enumerate(places):
        copies = {unit: where for unit, where in place.items() if unit != where}
        inner, reading = goal[layer].clone(), weights[layer + 1].clone()
        for unit, where in copies.items():
            inner[where] = goal[layer][unit]
            reading[:, unit], reading[:, where] = reading[:, where].clone(), 0.0
        rest = weights[layer + 2 :]
        yield [*goal[:layer], inner, *weights[layer + 1 :]]
        weights = [*goal[:layer], inner, reading, *rest]
        yield weights
        weights = [*goal[: layer + 1], reading, *rest]
        yield weights
    yield goal


def _places(width: int, busy_a: list[int], busy_b: list[int]) -> dict[int, int]:
    """Where each busy unit of b is rebuilt: at home if a does not use it, else where neither uses a unit."""
    spare = iter(unit for unit in range(width) if unit not in busy_a and unit not in busy_b)
    return {unit: next(spare) if unit in busy_a else unit for unit in busy_b}


def _moved(row: Tensor, columns: dict[int, int] | None) -> Tensor:
    """The weights of a unit whose inputs have changed place; all others are 0, as in a compressed network."""
    if columns is None:
        return row
    moved = torch.zeros_like(row)
    moved[[*columns.values()]] = row[[*columns]]
    return moved
