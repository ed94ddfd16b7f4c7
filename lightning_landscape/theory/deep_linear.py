r"""Level sets of wide deep linear networks are connected.

Statement (Freeman & Bruna 2017, "Topology and geometry of half-rectified network optimization", Sec. 2.2). Let
``E(W_1, ..., W_K) = (1/N) sum_i ||W_K ... W_1 x_i - y_i||^2`` with W_k of shape (n_k, n_{k-1}), n = n_0 and m = n_K.
If every hidden width satisfies n_k > min(n, m), then any two points are joined by a path on which E <= max(E_a, E_b),
and from any point a path on which E never increases leads to a global minimum. No assumption is made on the data. For
two layers the same holds with the penalty ``ridge (||W_1||^2 + ||W_2||^2)``: see
:mod:`lightning_landscape.theory.ridge`.

Construction. Take m <= n; the other case is the transposed network. In a product U V write u_j for the columns of U
(m, h) and v_j for the rows of V: it is the sum of the u_j v_j^T over the hidden units. Two kinds of straight moves
leave it exactly as it is:

- u_j may change at will where v_j = 0, and v_j where u_j = 0;
- V may become V - c v^T for any c with U c = 0.

As h > m, U has a kernel. If U c = 0 and c_j != 0, subtracting c v_j^T / c_j empties unit j, whose column may then
become a basis vector e_i. A kernel vector cannot be supported on columns that are basis vectors already, so that this
works m times; then U holds all basis vectors, the other units are emptied, and one empty unit is room enough to put
the rest in order. This moves (U, V) to ([I 0], [U V; 0]) without a determinant in sight: GL(m) has two components,
and the spare unit is the way from one to the other. Applied from the output to the input, the whole network becomes
[I 0], ..., [I 0], [P; 0] with P = W_K ... W_1. There E is convex in the single matrix P, and the straight line does
the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_landscape.models.theorems.deep_linear_network import DeepLinearNetwork
from lightning_landscape.path import Path
from lightning_landscape.theory import ridge
from lightning_landscape.theory.attained import require_minimum
from lightning_landscape.theory.regression import Batch, Regression
from lightning_landscape.theory.subspaces import null_space
from lightning_landscape.theory.weight_lists import Weights, path_through, weights_at


def connecting_path(module: DeepLinearNetwork, theta_a: Tensor, theta_b: Tensor, batch: Batch) -> Path:
    """A path from ``theta_a`` to ``theta_b`` on which E <= max(E_a, E_b).

    Without a ridge E is constant on each segment but one, and convex on that one.

    Args:
        module: the network; its weights are not read.
        theta_a: parameters of the one end, shape (P,), in the order of ``named_parameters()``.
        theta_b: parameters of the other end, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), tensors (N, n) and (N, m).

    Returns:
        A path in float64.

    Raises:
        ValueError: if a hidden width is not above min(n, m), if there is a ridge and not two layers, or for a
            batch or parameters of another shape.

    Example:
        >>> network = DeepLinearNetwork(num_inputs=1, num_outputs=1, hidden=[2])
        >>> path = connecting_path(network, torch.ones(4), -torch.ones(4), (torch.ones(3, 1), torch.ones(3, 1)))
        >>> path.beads.shape[1], path.beads[-1].tolist()
        (4, [-1.0, -1.0, -1.0, -1.0])
    """
    _check(module)
    if module.ridge:
        return ridge.connecting_path(module, theta_a, theta_b, batch)
    Regression(batch).require_shape(module.num_inputs, module.num_outputs)
    start, end = weights_at(module, theta_a), weights_at(module, theta_b)
    if torch.equal(theta_a, theta_b):
        return path_through([start, end])
    return path_through([*canonical_states(start), *reversed([*canonical_states(end)])])


def descent_path(module: DeepLinearNetwork, theta: Tensor, batch: Batch) -> Path:
    """A path from ``theta`` to a global minimum on which E never increases.

    Args:
        module: the network; its weights are not read.
        theta: parameters, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), tensors (N, n) and (N, m).

    Returns:
        A path in float64.

    Raises:
        ValueError: if a hidden width is not above min(n, m), if there is a ridge and not two layers, or for a
            batch or parameters of another shape.
        RuntimeError: with a ridge, if its minimum could not be certified.

    Example:
        >>> network = DeepLinearNetwork(num_inputs=1, num_outputs=1, hidden=[2])
        >>> path = descent_path(network, torch.zeros(4), (torch.ones(3, 1), torch.ones(3, 1)))
        >>> float(path.beads[-1, :2] @ path.beads[-1, 2:])
        1.0
    """
    _check(module)
    if module.ridge:
        return ridge.descent_path(module, theta, batch)
    problem = Regression(batch)
    problem.require_shape(module.num_inputs, module.num_outputs)
    weights = weights_at(module, theta)
    states = [*canonical_states(weights)]
    path = path_through([*states, _canonical(states[-1], problem.solution)])
    require_minimum(module, path, batch, problem.minimum())
    return path


def canonical_states(weights: Weights) -> Iterator[Weights]:
    """Corners of a path from ``weights`` (W_1, ..., W_K) to the canonical form, on which W_K ... W_1 is constant.

    The first is ``weights``, the last ``[P; 0], [I 0], ..., [I 0]`` or, where m > n, ``[I; 0], ..., [P 0]``.
    """
    if _is_tall(weights):
        for factors in _unload([weight.T for weight in weights]):
            yield [factor.T for factor in factors]
    else:
        for factors in _unload(weights[::-1]):
            yield factors[::-1]


def _canonical(weights: Weights, target: Tensor) -> Weights:
    # The canonical form of another product; only the one matrix that holds the product changes.
    place = -1 if _is_tall(weights) else 0
    changed = torch.zeros_like(weights[place])
    changed[: target.shape[0], : target.shape[1]] = target
    return [*weights[:-1], changed] if place else [changed, *weights[1:]]


def _is_tall(weights: Weights) -> bool:
    return weights[-1].shape[0] > weights[0].shape[1]


def _unload(factors: Weights) -> Iterator[Weights]:
    # factors[0] @ factors[1] @ ... with as many rows as columns or fewer; all of it ends in the last factor.
    yield factors
    rows = len(factors[0])
    for place in range(len(factors) - 1):
        rest = factors[place][rows:]
        for outer, inner in _empty_units(factors[place][:rows], factors[place + 1]):
            factors = [*factors[:place], torch.cat([outer, rest]), inner, *factors[place + 2 :]]
            yield factors


def _empty_units(outer: Tensor, inner: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Corners on the way from (U, V) to ([I 0], [U V; 0])."""
    rows, width = outer.shape
    identity = torch.eye(rows, dtype=outer.dtype)
    holder: dict[int, int] = {}  # from i to the unit whose column is e_i
    missing = list(range(rows))
    while missing:
        kernel = null_space(outer)
        share = kernel.square().sum(1)
        share[[*holder.values()]] = -1.0
        unit = int(share.argmax())
        inner = inner - torch.outer(kernel @ kernel[unit] / share[unit], inner[unit])
        inner[unit] = 0.0
        yield outer, inner
        vector = unit if unit in missing else missing[0]
        missing.remove(vector)
        outer = outer.clone()
        outer[:, unit] = identity[vector]
        holder[vector] = unit
        yield outer, inner

    spare = [unit for unit in range(width) if unit not in holder.values()]
    order = [holder[vector] for vector in range(rows)]
    inner = inner.clone()
    inner[order] += outer[:, spare] @ inner[spare]
    inner[spare] = 0.0
    yield outer, inner
    outer = outer.clone()
    outer[:, spare] = 0.0
    yield outer, inner

    for vector in range(rows):
        occupant = next((other for other, unit in holder.items() if unit == vector), None)
        if occupant == vector:
            continue
        moves = [(vector, vector)]
        if occupant is not None:
            moves.insert(0, (occupant, next(unit for unit in range(width) if unit not in holder.values())))
        for moved, unit in moves:
            outer, inner = outer.clone(), inner.clone()
            outer[:, unit] = identity[moved]
            yield outer, inner
            inner = inner.clone()
            inner[unit], inner[holder[moved]] = inner[holder[moved]].clone(), 0.0
            yield outer, inner
            outer = outer.clone()
            outer[:, holder[moved]] = 0.0
            holder[moved] = unit
            yield outer, inner


def _check(module: DeepLinearNetwork) -> None:
    if not isinstance(module, DeepLinearNetwork):
        raise ValueError(f"module must be a DeepLinearNetwork, got {type(module).__name__}")
    smallest = min(module.num_inputs, module.num_outputs)
    for index, width in enumerate(module.widths[1:-1], start=1):
        if width <= smallest:
            raise ValueError(
                f"hidden width n_{index} = {width} must exceed min(n, m) = {smallest}; without that condition "
                "theory.multilinear.descent_path still leads to a global minimum"
            )
