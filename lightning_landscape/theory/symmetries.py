r"""Changes of the weights that leave the function as it is.

A chain of layers ``z_k = rho(W_k z_{k-1} + b_k)``, the last one without rho, computes the same function at

    W_k -> G_k W_k G_{k-1}^{-1},   b_k -> G_k b_k,   G_0 = I, G_K = I

for all G_k that rho commutes with. For a linear network these are all invertible matrices, GL(n_k). For the ReLU they
are the products of a permutation and a diagonal matrix with positive entries: hidden units may change places, and the
weights that enter a unit may be multiplied by c > 0 if those that leave it are divided by c. These are the only ones.
E is constant on the orbits, as long as it depends on the function alone: an l1 or l2 penalty breaks the rescaling and
keeps the permutations.

A canonical representative is one point of each orbit, so that two points are equivalent iff theirs agree. It exists
where the action is free. For ReLU units that is nearly always: each unit is scaled to incoming weights of norm 1, and
the units of a layer are put in the lexicographic order of these. For linear layers it needs that inputs reach all of
layer k, that is ``rank(W_k ... W_1) = n_k``: then G_k is chosen such that the rows of ``W_k ... W_1`` are the basis
that Gram and Schmidt make of the projections of the coordinate vectors onto their span. Elsewhere the group can move
weights without a trace in W_k ... W_1.

That a ReLU network of widths that do not increase has in general no symmetries but these is due to Phuong & Lampert
(2020, "Functional vs. parametric equivalence of ReLU networks"). The quotient by GL(n) is in Freeman & Bruna (2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_landscape.theory.weight_lists import flatten, weights_at

_DIGITS = 9  # of unit incoming weights that are compared when units are put in order
_RANK = 1e-9  # singular values below this share of the largest count as zero
_DEPENDENT = 1e-6  # a unit vector's part off the span of others, below which it is taken to lie in it


class _Layer(NamedTuple):
    weight: Tensor
    bias: Tensor | None


def change_basis(module: nn.Module, theta: Tensor, bases: Sequence[Tensor]) -> Tensor:
    """The action of GL(n_1) x ... x GL(n_{K-1}) on the weights of a linear network.

    Args:
        module: a chain of layers, each a weight matrix (n_k, n_{k-1}), with or without a bias (n_k,) after it, in the
            order of ``named_parameters()``. Its weights are not read.
        theta: parameters, shape (P,), in the order of ``named_parameters()``.
        bases: G_1, ..., G_{K-1}, invertible, of shapes (n_k, n_k).

    Returns:
        The parameters (P,) of the same function, float64.

    Raises:
        ValueError: if the parameters are no chain of layers, or a G_k has another shape or is singular.

    Example:
        >>> two = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 2, bias=False))
        >>> change_basis(two, torch.tensor([1.0, 2.0, 3.0, 4.0]), [torch.tensor([[-2.0]])]).tolist()
        [-2.0, -4.0, -1.5, -2.0]
    """
    layers = _layers(module, theta)
    matrices = [basis.detach().to("cpu", torch.float64) for basis in bases]
    _require_widths("bases", [tuple(basis.shape) for basis in matrices], [(width, width) for width in _hidden(layers)])
    for index, basis in enumerate(matrices):
        if not bool(basis.isfinite().all()) or int(torch.linalg.matrix_rank(basis)) < len(basis):
            raise ValueError(f"bases[{index}] must be invertible, got a matrix that is singular or not finite")
    return _acted(layers, matrices)


def permute_and_rescale(module: nn.Module, theta: Tensor, orders: Sequence[Tensor], scales: Sequence[Tensor]) -> Tensor:
    """The action of permutations and positive rescalings on the hidden units of a ReLU network.

    Args:
        module: a chain of layers, each a weight matrix (n_k, n_{k-1}), with or without a bias (n_k,) after it, in the
            order of ``named_parameters()``. Its weights are not read.
        theta: parameters, shape (P,), in the order of ``named_parameters()``.
        orders: for each hidden layer the old index of each new unit, integers (n_k,).
        scales: for each hidden layer what the weights that enter each new unit are multiplied by, positive (n_k,).

    Returns:
        The parameters (P,) of the same function, float64.

    Raises:
        ValueError: if the parameters are no chain of layers, an order is no permutation or a scale not positive.

    Example:
        >>> relu = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
        >>> theta = torch.tensor([1.0, 2.0, 3.0, 4.0])
        >>> permute_and_rescale(relu, theta, [torch.tensor([1, 0])], [torch.tensor([2.0, 1.0])]).tolist()
        [4.0, 1.0, 2.0, 3.0]
    """
    layers = _layers(module, theta)
    widths = [(width,) for width in _hidden(layers)]
    _require_widths("orders", [tuple(order.shape) for order in orders], widths)
    _require_widths("scales", [tuple(scale.shape) for scale in scales], widths)
    bases = []
    for index, (order, scale) in enumerate(zip(orders, scales, strict=True)):
        if order.sort().values.tolist() != list(range(len(order))):
            raise ValueError(f"orders[{index}] must hold each of 0, ..., {len(order) - 1} once, got {order.tolist()}")
        if not bool(((scale > 0) & scale.isfinite()).all()):
            raise ValueError(f"scales[{index}] must be positive and finite, got {scale.tolist()}")
        bases.append(scale.detach().to("cpu", torch.float64)[:, None] * torch.eye(len(order)).double()[order.cpu()])
    return _acted(layers, bases)


def canonical_units(module: nn.Module, theta: Tensor) -> Tensor:
    """The representative of a ReLU network under permutation and positive rescaling of its hidden units.

    Weights and bias that enter a hidden unit have norm 1 together; where they are all 0, those that leave it have.
    The units of a layer come in the lexicographic order of the weights and bias that enter them, rounded to nine
    digits; units that agree in these come in the order of the weights that leave them, sorted unless these lead to
    the output.

    Args:
        module: a chain of layers, each a weight matrix (n_k, n_{k-1}), with or without a bias (n_k,) after it, in the
            order of ``named_parameters()``. Its weights are not read.
        theta: parameters, shape (P,), in the order of ``named_parameters()``.

    Returns:
        The representative (P,), float64: equal for all parameters of an orbit but for rounding, unless two units of a
        layer before the last hidden one agree in all that is compared.

    Raises:
        ValueError: if the parameters are no chain of layers.
    """
    layers = _layers(module, theta)
    for index in range(len(layers) - 1):
        entering = torch.cat([part.reshape(len(part), -1) for part in layers[index] if part is not None], dim=1)
        sizes = entering.norm(dim=1)
        leaving = layers[index + 1].weight.norm(dim=0)
        scales = torch.where(sizes > 0, 1 / sizes.where(sizes > 0, 1.0), leaving.where(leaving > 0, 1.0))
        layers = _transformed(layers, index, torch.diag(scales))
    for index in range(len(layers) - 1):
        after = layers[index + 1].weight.T
        if index + 1 < len(layers) - 1:
            after = after.sort(dim=1).values  # the order of the next layer's units is not settled yet
        parts = [part.reshape(len(part), -1) for part in layers[index] if part is not None]
        keys = torch.cat([*parts, after], dim=1).round(decimals=_DIGITS).tolist()
        order = sorted(range(len(keys)), key=keys.__getitem__)
        layers = _transformed(layers, index, torch.eye(len(order), dtype=torch.float64)[order])
    return _flat(layers)


def canonical_basis(module: nn.Module, theta: Tensor) -> Tensor:
    """The representative of a linear network under GL of its hidden layers.

    The rows of ``W_k ... W_1`` are orthonormal for every hidden layer k.

    Args:
        module: a chain of layers, each a weight matrix (n_k, n_{k-1}) without a bias, in the order of
            ``named_parameters()``. Its weights are not read.
        theta: parameters, shape (P,), in the order of ``named_parameters()``.

    Returns:
        The representative (P,), float64, equal for all parameters of an orbit but for rounding.

    Raises:
        ValueError: if the parameters are no chain of layers without biases, or W_k ... W_1 has a rank below n_k.

    Example:
        >>> two = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
        >>> canonical_basis(two, torch.tensor([1.0, 2.0, 3.0, 4.0, 1.0, 1.0])).round(decimals=6).abs().tolist()
        [1.0, 0.0, 0.0, 1.0, 4.0, 6.0]
    """
    layers = _layers(module, theta)
    if any(layer.bias is not None for layer in layers):
        raise ValueError("the representative is defined for layers without biases: use bias=False")
    product, bases = torch.eye(layers[0].weight.shape[1], dtype=torch.float64), []
    for index, layer in enumerate(layers[:-1]):
        product = layer.weight @ product
        width = len(product)
        left, values, right = torch.linalg.svd(product, full_matrices=False)
        rank = int((values > _RANK * values[:1]).sum())
        if rank < width:
            raise ValueError(
                f"W_{index + 1} ... W_1 has the rank {rank} and hidden layer {index + 1} has {width} units: the "
                "action of GL is not free there, and no representative is defined"
            )
        # right holds an orthonormal basis of the row space; the representative's differs by a rotation of it.
        bases.append(_reduced(right).T @ torch.diag(1 / values) @ left.T)
    return _acted(layers, bases)


def _reduced(basis: Tensor) -> Tensor:
    """The rotation Q (r, r) such that ``Q^T basis`` depends on the span of ``basis`` (r, n), orthonormal rows, alone.

    Gram and Schmidt on the columns, which are the projections of the coordinate vectors, skipping what is dependent.
    """
    found: list[Tensor] = []
    for column in basis.T:
        rest = column
        for _ in range(2):  # twice is enough against rounding
            for vector in found:
                rest = rest - (rest @ vector) * vector
        if float(rest.norm()) > _DEPENDENT:
            found.append(rest / rest.norm())
    return torch.stack(found, dim=1)


def _layers(module: nn.Module, theta: Tensor) -> list[_Layer]:
    layers: list[_Layer] = []
    for part in weights_at(module, theta):
        if part.ndim == 2 and (not layers or part.shape[1] == len(layers[-1].weight)):
            layers.append(_Layer(part, None))
        elif layers and part.ndim == 1 and layers[-1].bias is None and part.shape == layers[-1].weight.shape[:1]:
            layers[-1] = _Layer(layers[-1].weight, part)
        else:
            raise ValueError(
                f"{type(module).__name__} is no chain of layers: a parameter of shape {tuple(part.shape)} is neither a "
                "weight matrix for what the one before it answers, nor its bias"
            )
    return layers


def _hidden(layers: list[_Layer]) -> list[int]:
    return [len(layer.weight) for layer in layers[:-1]]


def _require_widths(name: str, found: list[tuple[int, ...]], wanted: Sequence[tuple[int, ...]]) -> None:
    if found != wanted:
        raise ValueError(f"{name} must have the shapes {[*wanted]}, one for each hidden layer, got {found}")


def _transformed(layers: list[_Layer], index: int, basis: Tensor) -> list[_Layer]:
    """G_k applied to the units of layer ``index``."""
    here, after = layers[index], layers[index + 1]
    changed = [*layers]
    changed[index] = _Layer(basis @ here.weight, None if here.bias is None else basis @ here.bias)
    changed[index + 1] = _Layer(torch.linalg.solve(basis, after.weight, left=False), after.bias)
    return changed


def _acted(layers: list[_Layer], bases: list[Tensor]) -> Tensor:
    for index, basis in enumerate(bases):
        layers = _transformed(layers, index, basis)
    return _flat(layers)


def _flat(layers: list[_Layer]) -> Tensor:
    return flatten([part for layer in layers for part in layer if part is not None])
