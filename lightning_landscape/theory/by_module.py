"""The paths that the theorems promise, chosen by the type of the network."""

from __future__ import annotations

from functools import singledispatch

from torch import Tensor, nn

from lightning_landscape.models.theorems.deep_linear_network import DeepLinearNetwork
from lightning_landscape.models.theorems.deep_quadratic_network import DeepQuadraticNetwork
from lightning_landscape.models.theorems.polynomial_network import PolynomialNetwork
from lightning_landscape.models.theorems.quadratic_network import QuadraticNetwork
from lightning_landscape.models.theorems.two_layer_relu import TwoLayerReLU
from lightning_landscape.path import Path
from lightning_landscape.theory import (
    deep_linear,
    deep_quadratic,
    intrinsic_dimension,
    multilinear,
    quadratic,
    two_layer_relu,
)
from lightning_landscape.theory.regression import Batch

_SUPPORTED = "DeepLinearNetwork, QuadraticNetwork, PolynomialNetwork, TwoLayerReLU, DeepQuadraticNetwork"


@singledispatch
def connecting_path(module: nn.Module, theta_a: Tensor, theta_b: Tensor, batch: Batch) -> Path:
    """A path from ``theta_a`` to ``theta_b`` on which E <= max(E_a, E_b), by the theorem for this kind of network.

    For :class:`~lightning_landscape.models.TwoLayerReLU` the bound is max(E_a, E_b, epsilon), where
    :func:`lightning_landscape.theory.two_layer_relu.construct` gives epsilon.

    Args:
        module: a ``DeepLinearNetwork``, ``QuadraticNetwork``, ``DeepQuadraticNetwork``, ``PolynomialNetwork`` or
            ``TwoLayerReLU``. Only its shape and its penalty are read, not its weights.
        theta_a: parameters of the one end, shape (P,), in the order of ``named_parameters()``.
        theta_b: parameters of the other end, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), the data of E: inputs (N, n) and targets (N, m).

    Returns:
        A path in float64.

    Raises:
        TypeError: if no theorem treats this type of network; the message lists the types.
        ValueError: if a hypothesis of the theorem does not hold, such as a width that is too small (no theorem grants
            a connecting path to narrow linear networks), or for data or parameters of another shape.
        RuntimeError: for a linear network with a ridge, if float64 does not resolve its minimum.

    Example:
        >>> import torch
        >>> network = DeepLinearNetwork(num_inputs=1, num_outputs=1, hidden=[2])
        >>> connecting_path(network, torch.ones(4), -torch.ones(4), (torch.ones(3, 1), torch.ones(3, 1))).beads.shape[1]
        4
    """
    raise _unsupported(module)


@singledispatch
def descent_path(module: nn.Module, theta: Tensor, batch: Batch) -> Path:
    """A path from ``theta`` to a global minimum on which E never increases, by the theorem for this kind of network.

    Args:
        module: a ``DeepLinearNetwork`` of any widths, a ``QuadraticNetwork``, a ``DeepQuadraticNetwork`` or a
            ``PolynomialNetwork``. Only its shape and its penalty are read, not its weights.
        theta: parameters of the start, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), the data of E: inputs (N, n) and targets (N, m).

    Returns:
        A path in float64.

    Raises:
        TypeError: if no theorem grants a descent to this type of network; the message lists the types that one does.
        ValueError: if a hypothesis of the theorem does not hold, such as a width that is too small, or for data or
            parameters of another shape.
        RuntimeError: for a linear network with a ridge, if its minimum could not be certified.

    Example:
        >>> import torch
        >>> network = DeepLinearNetwork(num_inputs=1, num_outputs=1, hidden=[2])
        >>> path = descent_path(network, torch.zeros(4), (torch.ones(3, 1), torch.ones(3, 1)))
        >>> float(path.beads[-1, :2] @ path.beads[-1, 2:])
        1.0
    """
    raise _unsupported(module)


def _unsupported(module: object) -> TypeError:
    return TypeError(f"no theorem treats a {type(module).__name__}: give one of {_SUPPORTED}")


def _is_wide(module: DeepLinearNetwork) -> bool:
    return all(width > min(module.num_inputs, module.num_outputs) for width in module.widths[1:-1])


@connecting_path.register
def _(module: DeepLinearNetwork, theta_a: Tensor, theta_b: Tensor, batch: Batch) -> Path:
    if not _is_wide(module):
        raise ValueError(
            f"no theorem grants a connecting path to a linear network of widths {module.widths}, whose level sets need "
            f"not be connected: make every hidden width larger than {min(module.num_inputs, module.num_outputs)}, or "
            "call descent_path, which holds for any widths"
        )
    return deep_linear.connecting_path(module, theta_a, theta_b, batch)


@connecting_path.register
def _(module: PolynomialNetwork, theta_a: Tensor, theta_b: Tensor, batch: Batch) -> Path:
    return intrinsic_dimension.connecting_path(module, theta_a, theta_b, batch)


@connecting_path.register
def _(module: DeepQuadraticNetwork, theta_a: Tensor, theta_b: Tensor, batch: Batch) -> Path:
    return deep_quadratic.connecting_path(module, theta_a, theta_b, batch)


@connecting_path.register
def _(module: QuadraticNetwork, theta_a: Tensor, theta_b: Tensor, batch: Batch) -> Path:
    return quadratic.connecting_path(module, theta_a, theta_b, batch)


@connecting_path.register
def _(module: TwoLayerReLU, theta_a: Tensor, theta_b: Tensor, batch: Batch) -> Path:
    return two_layer_relu.connecting_path(module, theta_a, theta_b, batch)


@descent_path.register
def _(module: DeepLinearNetwork, theta: Tensor, batch: Batch) -> Path:
    # Narrow networks with a ridge go to deep_linear, too: it says which widths the theorem with a ridge needs.
    if module.ridge or _is_wide(module):
        return deep_linear.descent_path(module, theta, batch)
    return multilinear.descent_path(module, theta, batch)


@descent_path.register
def _(module: PolynomialNetwork, theta: Tensor, batch: Batch) -> Path:
    return intrinsic_dimension.descent_path(module, theta, batch)


@descent_path.register
def _(module: DeepQuadraticNetwork, theta: Tensor, batch: Batch) -> Path:
    return deep_quadratic.descent_path(module, theta, batch)


@descent_path.register
def _(module: QuadraticNetwork, theta: Tensor, batch: Batch) -> Path:
    return quadratic.descent_path(module, theta, batch)


@descent_path.register
def _(module: TwoLayerReLU, theta: Tensor, batch: Batch) -> Path:
    raise TypeError(
        "the theorem on TwoLayerReLU names no path to a global minimum, so that it has no descent_path: call "
        "connecting_path, or give a DeepLinearNetwork, QuadraticNetwork, PolynomialNetwork or DeepQuadraticNetwork"
    )
