"""The operators that community networks are made of, on a batch of graphs, and a normalisation per graph.

All are sums over rows that lie together, which ``embedding_bag`` takes in one order: several times faster than
``index_add`` on a CPU, and the same bits each time on a GPU. Derivatives are written out: the matrices are symmetric,
and each is its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from lightning_landscape.community import CommunityGraph


class NodeOperators:
    """The matrices I, D, A, A^2, A^4, ... and U of each graph in a batch, scaled to the size of the identity.

    With c the mean degree of a graph (at least 1) they are ``D / c``, ``(A / sqrt(c))^(2^j)`` and U, the average over
    the graph. So divided, A neither swells nor shrinks a feature that knows nothing of the graph, whatever its degree.
    Where ``clipped``, the power 2^j is the matrix M_j of zeros and ones with ``M_0 = A``, ``M_(j+1) = min(1, M_j^2)``,
    over the root of its mean row sum; it takes the memory of its non-zeros.

    Args:
        graph: a graph or a batch of them.
        num_powers: how many powers of A, those to 1, 2, 4, ...
        clipped: use M_j.
        dtype: floating type of the features that the operators are applied to.

    Attributes:
        degree: d / c of each node, (N, 1).
        mean_degree: c at each node, (N, 1).
        segments: the nodes of each graph.
        offsets: (N + 1,), the first edge of each node, and the number of edges.

    Raises:
        ValueError: if ``graph`` is no CommunityGraph.
    """

    def __init__(self, graph: CommunityGraph, num_powers: int, clipped: bool, dtype: torch.dtype) -> None:
        if not isinstance(graph, CommunityGraph):
            raise ValueError(
                f"the network takes a CommunityGraph or a batch of them, got {type(graph).__name__}: make one with "
                "community_graph(edge_index, num_nodes)"
            )
        nodes = torch.arange(graph.num_nodes + 1, device=graph.edge_index.device)
        batch = getattr(graph, "batch", None)
        if batch is None:
            self.segments = Segments(torch.stack([nodes[0], nodes[-1]]), torch.zeros_like(nodes[:-1]))
        else:
            self.segments = Segments(graph.ptr, batch)
        self._squarings = 0 if clipped else num_powers - 1
        indices = [graph.edge_index]
        while clipped and len(indices) < num_powers:
            indices.append(_clipped_square(indices[-1], graph.num_nodes))
        offsets = [torch.searchsorted(rows.contiguous(), nodes) for rows, _ in indices]
        sums = [ends.diff().to(dtype).unsqueeze(1) for ends in offsets]
        means = [self.segments.average(row_sums).clamp_min(1) for row_sums in sums]
        self.offsets, self.mean_degree, self.degree = offsets[0], means[0], sums[0] / means[0]
        self._matrices = [
            (columns, ends, mean.rsqrt()) for (_, columns), ends, mean in zip(indices, offsets, means, strict=True)
        ]

    def apply(self, x: Tensor) -> list[Tensor]:
        """Each operator on x (N, F): I, D, the powers of A and U."""
        powers = [_scaled_product(x, *matrix) for matrix in self._matrices]
        for number in range(self._squarings):
            powers.append(powers[-1])
            for _ in range(2**number):
                powers[-1] = _scaled_product(powers[-1], *self._matrices[0])
        return [x, self.degree * x, *powers, self.segments.average(x)]


class Segments:
    """Rows that belong to graphs, those of one graph together.

    Args:
        pointer: (G + 1,), graph g has the rows ``pointer[g]`` to ``pointer[g + 1] - 1``.
        owner: (N,), the graph of each row.

    Attributes:
        first: (G,), the first row of each graph; of an empty graph, some other row.
    """

    def __init__(self, pointer: Tensor, owner: Tensor) -> None:
        self.pointer = pointer
        self.owner = owner
        self.first = pointer[:-1].clamp(max=max(len(owner) - 1, 0))
        self.indices = (torch.arange(len(owner), device=owner.device), pointer, owner)

    def firsts(self, x: Tensor) -> Tensor:
        """The first row of each graph of x (N, F), (G, F)."""
        return x.index_select(0, self.first) if len(x) else x.new_zeros(len(self.first), x.shape[1])

    def average(self, x: Tensor) -> Tensor:
        """``U x``: at each row the mean of x (N, F) over all rows of its graph."""
        average: Tensor = _Symmetric.apply(_average, x, *self.indices)
        return average


class InstanceNorm(nn.Module):
    r"""Brings each feature to mean 0 and variance 1 over the rows of each graph, then scales and shifts it.

    ``y = w (x - mean) / sqrt(variance + eps) + b``, with mean and variance over the nodes (or the edges) of one graph:
    the same in training and evaluation, for a graph alone and in a batch. Where a feature is constant, y = b.

    On a regular graph every feature is constant, and computed with rounding it is nearly so. The division would make
    up to ``1 / sqrt(eps)`` times as much of that at each layer, so that after a few of them nodes differ which are
    alike. A deviation within ``rounding`` counts as 0, in the derivatives too.

    Args:
        num_features: F.
        eps: keeps the division finite.

    Example:
        >>> two_graphs = Segments(torch.tensor([0, 2, 4]), torch.tensor([0, 0, 1, 1]))
        >>> InstanceNorm(1)(torch.tensor([[0.0], [2.0], [5.0], [5.0]]), two_graphs).detach().T.round(decimals=3)
        tensor([[-1.,  1.,  0.,  0.]])
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(num_features))
        self.bias = nn.Parameter(torch.empty(num_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, segments: Segments, rounding: Tensor | None = None) -> Tensor:
        """The normalised features (N, F).

        Args:
            x: features (N, F).
            segments: the rows of each graph.
            rounding: (G, F), how far rounding alone may take rows of x from one another. ``None`` takes x to be the
                sum of F products, whose sizes are the features of the first row: :func:`rounding_of_sums`.
        """
        if rounding is None:
            sizes = segments.firsts(x.detach()).norm(dim=1, keepdim=True)
            rounding = rounding_of_sums(sizes, x.shape[1], x.dtype)
        normalized: Tensor = _Standardize.apply(x, self.eps, rounding, segments.first, *segments.indices)
        return torch.addcmul(self.bias, normalized, self.weight)


def rounding_of_sums(sizes: Tensor, terms: int, dtype: torch.dtype) -> Tensor:
    r"""How far rounding takes a sum from its value: ``4 u sqrt(terms) sizes``, with ``u = eps / 2``.

    With ``sizes = sum_k |p_k w_k|`` this holds for any order of the sum with a probability of at least
    ``1 - 2 exp(-8)``, if roundings are independent with mean 0 (Higham & Mary 2019, theorem 2.4). Sums of half
    precision are taken in single precision, and rounded once.

    Args:
        sizes: sums of absolute values, any shape.
        terms: how many products are summed up.
        dtype: of the sums.
    """
    exact = torch.promote_types(dtype, torch.float32)
    return sizes * (2 * math.sqrt(terms) * torch.finfo(exact).eps + (torch.finfo(dtype).eps if dtype != exact else 0))


def _clipped_square(indices: Tensor, size: int) -> Tensor:
    ones = torch.ones(indices.shape[1], dtype=torch.float32, device=indices.device)  # no half precision on a CPU
    matrix = torch.sparse_coo_tensor(indices, ones, (size, size), is_coalesced=True, check_invariants=False)
    square: Tensor = torch.sparse.mm(matrix, matrix)
    return square.coalesce().indices()


def _scaled_product(x: Tensor, columns: Tensor, offsets: Tensor, scale: Tensor) -> Tensor:
    product: Tensor = _Symmetric.apply(_sum, x, columns, offsets)
    return product * scale


def _sum(x: Tensor, columns: Tensor, offsets: Tensor) -> Tensor:
    return embedding_bag(columns, x, offsets, mode="sum", include_last_offset=True)


def _average(x: Tensor, rows: Tensor, pointer: Tensor, owner: Tensor) -> Tensor:
    return _spread(_means(x, rows, pointer), owner).expand_as(x)


def _means(x: Tensor, rows: Tensor, pointer: Tensor) -> Tensor:
    return embedding_bag(rows, x, pointer, mode="mean", include_last_offset=True)


def _spread(values: Tensor, owner: Tensor) -> Tensor:
    # The one row of a single graph is left to broadcasting, which copies nothing.
    return values if len(values) == 1 else values.index_select(0, owner)


class _Symmetric(Function):
    """A symmetric matrix, given by what it does to x and tensors of indices."""

    @staticmethod
    def forward(ctx: Any, matrix: Callable[..., Tensor], x: Tensor, *indices: Tensor) -> Tensor:
        ctx.matrix = matrix
        ctx.save_for_backward(*indices)
        return matrix(x, *indices)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        indices = ctx.saved_tensors
        return None, ctx.matrix(gradient.contiguous(), *indices), *[None for _ in indices]


class _Standardize(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, rounding: Tensor, first: Tensor, *indices: Tensor) -> Tensor:
        rows, pointer, owner = indices
        # Less the first row, so that a constant is 0 to the last bit and a mean of many rows stays exact.
        centered = x - _spread(x.index_select(0, first), owner) if len(x) else x.clone()
        centered -= _spread(_means(centered, rows, pointer), owner)
        variance = _means(centered.square(), rows, pointer)
        scale = (variance + eps).rsqrt().masked_fill_(variance.sqrt() <= rounding, 0)
        result = centered.mul_(_spread(scale, owner))
        ctx.save_for_backward(result, scale, *indices)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        result, scale, rows, pointer, owner = ctx.saved_tensors
        # What shifts all rows alike, or stretches them, is undone by the normalisation.
        means = _means(torch.cat([gradient, gradient * result], 1), rows, pointer)
        shift, stretch = _spread(means, owner).chunk(2, 1)
        passed = (gradient - shift).addcmul_(result, stretch, value=-1)
        return passed.mul_(_spread(scale, owner)), *[None] * 6
