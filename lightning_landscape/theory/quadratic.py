r"""Level sets of wide quadratic networks are connected.

Statement (Freeman & Bruna 2017, the quadratic case; Bruna's lecture). Let ``f(x) = U (W x)^2``, the square taken of
each of the M hidden units, with N inputs. If M >= 3 N^2, then any two points are joined by a path on which ``E =
(1/L) sum_i ||f(x_i) - y_i||^2`` is at most max(E_a, E_b), and from any point a path on which E never increases leads
to a global minimum. For K layers of squares the condition on the k-th hidden layer is M_k >= 3 N^(2^k); their paths are
in :mod:`lightning_landscape.theory.deep_quadratic`.

Construction. Output i is the quadratic form of ``A_i = sum_j U_ij w_j w_j^T``. E is convex in the lifted parameter
A_W = (A_1, ..., A_m), and linear are the moves of U in it. The matrices w w^T span the symmetric ones, of dimension q
= N (N + 1) / 2, so that this is the theorem of :mod:`lightning_landscape.theory.intrinsic_dimension` for the
activation z^2: q units carry the network at either end, and q further ones carry the straight line between the two
A_W. Its condition M >= 2 q = N (N + 1) is weaker than the one stated here; call that module below 3 N^2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_landscape.models.theorems.quadratic_network import QuadraticNetwork
from lightning_landscape.path import Path
from lightning_landscape.theory import intrinsic_dimension
from lightning_landscape.theory.regression import Batch
from lightning_landscape.theory.weight_lists import weights_at


def sufficient_widths(num_inputs: int, num_layers: int) -> list[int]:
    """The widths ``3 N^(2^k)`` for the hidden layers k = 1, ..., K - 1 of a network of K layers.

    Args:
        num_inputs: N, at least 1.
        num_layers: K, at least 1; the last layer is linear.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> sufficient_widths(num_inputs=3, num_layers=3)
        [27, 243]
    """
    for name, value in (("num_inputs", num_inputs), ("num_layers", num_layers)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return [3 * num_inputs ** (2**layer) for layer in range(1, num_layers)]


def require_widths(num_inputs: int, hidden: Sequence[int]) -> None:
    """Checks the width condition of the theorem.

    Args:
        num_inputs: N.
        hidden: the widths M_1, ..., M_{K-1}.

    Raises:
        ValueError: naming the first layer that is too narrow.

    Example:
        >>> require_widths(2, [12, 47])
        Traceback (most recent call last):
        ValueError: hidden width M_2 = 47 must be at least 3 N^4 = 48 for N = 2 inputs
    """
    for layer, (width, needed) in enumerate(
        zip(hidden, sufficient_widths(num_inputs, len(hidden) + 1), strict=True), start=1
    ):
        if width < needed:
            raise ValueError(
                f"hidden width M_{layer} = {width} must be at least 3 N^{2**layer} = {needed} "
                f"for N = {num_inputs} inputs"
            )


def lifted(module: QuadraticNetwork, theta: Tensor) -> Tensor:
    """A_W, the symmetric matrices ``A_i = sum_j U_ij w_j w_j^T`` of the outputs.

    Args:
        module: the network; its weights are not read.
        theta: parameters, shape (P,), in the order of ``named_parameters()``.

    Returns:
        Tensor (num_outputs, N, N), float64.

    Raises:
        ValueError: if theta has another length or is not finite.

    Example:
        >>> lifted(QuadraticNetwork(num_inputs=2, hidden_units=1), torch.tensor([1.0, 2.0, 3.0])).tolist()
        [[[3.0, 6.0], [6.0, 12.0]]]
    """
    inner, outer = weights_at(module, theta)
    return torch.einsum("ij,jk,jl->ikl", outer, inner, inner)


def connecting_path(module: QuadraticNetwork, theta_a: Tensor, theta_b: Tensor, batch: Batch) -> Path:
    """A path from ``theta_a`` to ``theta_b`` on which E <= max(E_a, E_b).

    Args:
        module: the network, with M >= 3 N^2 hidden units; its weights are not read.
        theta_a: parameters of the one end, shape (P,), in the order of ``named_parameters()``.
        theta_b: parameters of the other end, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), tensors (L, N) and (L, num_outputs). The path is the same for all data.

    Returns:
        A path in float64: A_W is constant on it but for one segment, on which it goes straight.

    Raises:
        ValueError: if there are fewer than 3 N^2 hidden units, or for a batch or parameters of another shape.

    Example:
        >>> network = QuadraticNetwork(num_inputs=1, hidden_units=3)
        >>> x = torch.ones(2, 1)
        >>> connecting_path(network, torch.ones(6), -torch.ones(6), (x, x)).beads[-1].tolist()
        [-1.0, -1.0, -1.0, -1.0, -1.0, -1.0]
    """
    _check(module)
    return intrinsic_dimension.connecting_path(module, theta_a, theta_b, batch)


def descent_path(module: QuadraticNetwork, theta: Tensor, batch: Batch) -> Path:
    """A path from ``theta`` to a global minimum on which E never increases.

    Args:
        module: the network, with M >= 3 N^2 hidden units; its weights are not read.
        theta: parameters, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), tensors (L, N) and (L, num_outputs).

    Returns:
        A path in float64: A_W is constant on it but for the last segment, on which it goes straight.

    Raises:
        ValueError: if there are fewer than 3 N^2 hidden units, or for a batch or parameters of another shape.

    Example:
        >>> network = QuadraticNetwork(num_inputs=1, hidden_units=3)
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> round(lifted(network, descent_path(network, torch.ones(6), (x, 5 * x**2)).beads[-1]).item(), 9)
        5.0
    """
    _check(module)
    return intrinsic_dimension.descent_path(module, theta, batch)


def _check(module: QuadraticNetwork) -> None:
    if not isinstance(module, QuadraticNetwork):
        raise ValueError(f"module must be a QuadraticNetwork, got {type(module).__name__}")
    require_widths(module.num_inputs, [module.hidden_units])
