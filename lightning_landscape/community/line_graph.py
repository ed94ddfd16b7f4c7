r"""The operators of a graph's line graph, in O(\|E\|) and without the line graph.

Nodes of the line graph are the directed edges i -> j of an undirected graph, both directions of each. With S_out(j) the
sum of y over edges that leave j and S_in(j) over those that enter it, for y (E2, ...) on edges and x (n, ...) on nodes:

=======================================  =================================  =================================
operator                                 itself                             its transpose
=======================================  =================================  =================================
non-backtracking B (E2, E2)              ``S_out(j) - y_{j->i}``            ``S_in(i) - y_{j->i}``
unsigned incidence Pm (n, E2)            ``S_out(i) + S_in(i)``             ``x_i + x_j``
signed incidence Pd (n, E2)              ``S_out(i) - S_in(i)``             ``x_i - x_j``
=======================================  =================================  =================================

at the edge i -> j or the node i. ``B[i->j, j->l] = 1`` for l != i. In a simple graph one edge at most leads from an
edge to another, so that ``B(B y)`` is the product with ``min(1, B^2)``.

All take ``edge_index`` (2, E2) and its ``rev_edge`` as a :class:`~lightning_landscape.community.graph.CommunityGraph`
has them, sorted by source: sums over a node's edges then run over neighbouring rows, in one order on every device. A
backward pass is the transpose, matrix-free again, and keeps nothing but the graph. Nothing waits for a GPU.

Reference: Z. Chen, X. Li, J. Bruna, "Supervised community detection with line graph neural networks", ICLR 2019, the
section on line graph neural networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


def nonbacktracking_product(y: Tensor, edge_index: Tensor, rev_edge: Tensor, num_nodes: int) -> Tensor:
    """``(B y)_{i->j}``, the sum of ``y_{j->l}`` over the neighbours l != i of j.

    Args:
        y: floats (E2, ...), a row for each directed edge.
        edge_index: (2, E2), sorted by source.
        rev_edge: (E2,), the reverse of each edge.
        num_nodes: n.

    Returns:
        Floats of the shape of y.

    Example:
        >>> from lightning_landscape.community import community_graph
        >>> graph = community_graph(torch.tensor([[0, 1], [1, 2]]), num_nodes=3)  # 0->1, 1->0, 1->2, 2->1
        >>> nonbacktracking_product(torch.tensor([1.0, 2.0, 3.0, 4.0]), graph.edge_index, graph.rev_edge, 3)
        tensor([3., 0., 0., 2.])
    """
    return _of_edges(_nonbacktracking, _nonbacktracking_transpose, y, edge_index, rev_edge, num_nodes)


def nonbacktracking_product_transpose(y: Tensor, edge_index: Tensor, rev_edge: Tensor, num_nodes: int) -> Tensor:
    """``(B^T y)_{i->j}``, the sum of ``y_{l->i}`` over the neighbours l != j of i.

    Args:
        y: floats (E2, ...), a row for each directed edge.
        edge_index: (2, E2), sorted by source.
        rev_edge: (E2,), the reverse of each edge.
        num_nodes: n.

    Returns:
        Floats of the shape of y.
    """
    return _of_edges(_nonbacktracking_transpose, _nonbacktracking, y, edge_index, rev_edge, num_nodes)


def nonbacktracking_degree(edge_index: Tensor, num_nodes: int) -> Tensor:
    """The diagonal of D_B, ``d_j - 1`` at the edge i -> j: the row sums of B, (E2,) int64.

    Args:
        edge_index: (2, E2), sorted by source.
        num_nodes: n.

    Example:
        >>> nonbacktracking_degree(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
        tensor([1, 0, 0, 1])
    """
    return (_offsets(edge_index, num_nodes).diff() - 1).index_select(0, edge_index[1])


def incidence_sum(y: Tensor, edge_index: Tensor, rev_edge: Tensor, num_nodes: int) -> Tensor:
    """``(Pm y)_i``, the sum of y (E2, ...) over the edges that leave i and those that enter it, shape (n, ...).

    Args:
        y: floats (E2, ...), a row for each directed edge.
        edge_index: (2, E2), sorted by source.
        rev_edge: (E2,), the reverse of each edge.
        num_nodes: n.
    """
    return _of_edges(_incidence_sum, _incidence_sum_transpose, y, edge_index, rev_edge, num_nodes)


def incidence_sum_transpose(x: Tensor, edge_index: Tensor, rev_edge: Tensor, num_nodes: int) -> Tensor:
    """``(Pm^T x)_{i->j} = x_i + x_j`` for x (n, ...), shape (E2, ...).

    Args:
        x: floats (n, ...), a row for each node.
        edge_index: (2, E2), sorted by source.
        rev_edge: (E2,), the reverse of each edge.
        num_nodes: n.
    """
    return _of_nodes(_incidence_sum_transpose, _incidence_sum, x, edge_index, rev_edge, num_nodes)


def incidence_difference(y: Tensor, edge_index: Tensor, rev_edge: Tensor, num_nodes: int) -> Tensor:
    """``(Pd y)_i``, the sum of y (E2, ...) over the edges that leave i less that over those that enter it, (n, ...).

    Args:
        y: floats (E2, ...), a row for each directed edge.
        edge_index: (2, E2), sorted by source.
        rev_edge: (E2,), the reverse of each edge.
        num_nodes: n.
    """
    return _of_edges(_incidence_difference, _incidence_difference_transpose, y, edge_index, rev_edge, num_nodes)


def incidence_difference_transpose(x: Tensor, edge_index: Tensor, rev_edge: Tensor, num_nodes: int) -> Tensor:
    """``(Pd^T x)_{i->j} = x_i - x_j`` for x (n, ...), shape (E2, ...).

    Args:
        x: floats (n, ...), a row for each node.
        edge_index: (2, E2), sorted by source.
        rev_edge: (E2,), the reverse of each edge.
        num_nodes: n.
    """
    return _of_nodes(_incidence_difference_transpose, _incidence_difference, x, edge_index, rev_edge, num_nodes)


# What an operator does to a matrix with a row for each edge or node; offsets say where the edges of each node begin.
_Operator = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _nonbacktracking(y: Tensor, edge_index: Tensor, rev_edge: Tensor, offsets: Tensor) -> Tensor:
    # At the reverse of an edge j is the source, so that S_out is read in order and permuted once.
    sums = _sum_out(y, offsets).index_select(0, edge_index[0])
    return sums.sub_(y).index_select(0, rev_edge)


def _nonbacktracking_transpose(y: Tensor, edge_index: Tensor, rev_edge: Tensor, offsets: Tensor) -> Tensor:
    sums = _sum_in(y, rev_edge, offsets).index_select(0, edge_index[0])
    return sums.sub_(y.index_select(0, rev_edge))


def _incidence_sum(y: Tensor, edge_index: Tensor, rev_edge: Tensor, offsets: Tensor) -> Tensor:
    return _sum_out(y, offsets).add_(_sum_in(y, rev_edge, offsets))


def _incidence_sum_transpose(x: Tensor, edge_index: Tensor, rev_edge: Tensor, offsets: Tensor) -> Tensor:
    source, target = edge_index
    return x.index_select(0, source).add_(x.index_select(0, target))


def _incidence_difference(y: Tensor, edge_index: Tensor, rev_edge: Tensor, offsets: Tensor) -> Tensor:
    return _sum_out(y, offsets).sub_(_sum_in(y, rev_edge, offsets))


def _incidence_difference_transpose(x: Tensor, edge_index: Tensor, rev_edge: Tensor, offsets: Tensor) -> Tensor:
    source, target = edge_index
    return x.index_select(0, source).sub_(x.index_select(0, target))


def _sum_in(y: Tensor, rev_edge: Tensor, offsets: Tensor) -> Tensor:
    # Several times faster than index_add_ on a CPU, and without its atomic additions, of no fixed order, on a GPU.
    return embedding_bag(rev_edge, y, offsets, mode="sum", include_last_offset=True)


def _sum_out(y: Tensor, offsets: Tensor) -> Tensor:
    return _sum_in(y, torch.arange(len(y), device=y.device), offsets)


class _Linear(torch.autograd.Function):
    """A linear operator, whose derivative is its transpose."""

    @staticmethod
    def forward(ctx: Any, operator: _Operator, transpose: _Operator, z: Tensor, *graph: Tensor) -> Tensor:
        ctx.operators = (transpose, operator)
        ctx.save_for_backward(*graph)
        return operator(z, *graph)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, None, _linear(*ctx.operators, gradient, *ctx.saved_tensors), None, None, None


class _TransformedLinear(_Linear):
    """The same under torch.func, which asks for this form; its call takes 20 microseconds more."""

    @staticmethod
    def forward(operator: _Operator, transpose: _Operator, z: Tensor, *graph: Tensor) -> Tensor:  # type: ignore[override]
        return operator(z, *graph)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        operator, transpose, _, *graph = inputs
        ctx.operators = (transpose, operator)
        ctx.save_for_backward(*graph)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], operator: _Operator, transpose: _Operator, z: Tensor, *graph: Tensor
    ) -> tuple[Tensor, int]:
        if in_dims[2] is None or any(dim is not None for dim in in_dims[3:]):
            raise ValueError("vmap goes over features; put graphs into one with Batch.from_data_list")
        columns = z.movedim(in_dims[2], -1)
        result = _linear(operator, transpose, columns.flatten(1), *graph)
        return result.reshape(len(result), *columns.shape[1:]), columns.dim() - 1


def _linear(operator: _Operator, transpose: _Operator, z: Tensor, *graph: Tensor) -> Tensor:
    function = _TransformedLinear if torch._C._are_functorch_transforms_active() else _Linear
    result: Tensor = function.apply(operator, transpose, z, *graph)
    return result


def _of_edges(
    operator: _Operator, transpose: _Operator, y: Tensor, edge_index: Tensor, rev_edge: Tensor, num_nodes: int
) -> Tensor:
    if y.shape[:1] != rev_edge.shape:
        raise ValueError(f"y must have a row for each of the {len(rev_edge)} directed edges, got {tuple(y.shape)}")
    return _apply(operator, transpose, y, edge_index, rev_edge, num_nodes)


def _of_nodes(
    operator: _Operator, transpose: _Operator, x: Tensor, edge_index: Tensor, rev_edge: Tensor, num_nodes: int
) -> Tensor:
    if x.shape[:1] != (num_nodes,):
        raise ValueError(f"x must have a row for each of the num_nodes = {num_nodes} nodes, got {tuple(x.shape)}")
    return _apply(operator, transpose, x, edge_index, rev_edge, num_nodes)


def _apply(
    operator: _Operator, transpose: _Operator, z: Tensor, edge_index: Tensor, rev_edge: Tensor, num_nodes: int
) -> Tensor:
    if edge_index.shape != (2, *rev_edge.shape):
        raise ValueError(
            f"edge_index must be (2, E2) and rev_edge (E2,), got {tuple(edge_index.shape)} and {tuple(rev_edge.shape)}"
        )
    if not z.is_floating_point():
        raise ValueError(f"features must be floating point, got {z.dtype}: convert them with .float()")
    graph = (edge_index, rev_edge, _offsets(edge_index, num_nodes))
    if z.dim() == 2:
        return _linear(operator, transpose, z, *graph)
    result = _linear(operator, transpose, z.reshape(len(z), math.prod(z.shape[1:])), *graph)
    return result.reshape(len(result), *z.shape[1:])


def _offsets(edge_index: Tensor, num_nodes: int) -> Tensor:
    source = edge_index[0].contiguous()  # the kernel takes it to be
    # Where there is no such node the kernel would write outside its memory. The check does not wait for a GPU.
    torch._assert_async((source[-1:] < num_nodes).all(), "edge_index holds nodes that num_nodes leaves out")
    return torch._convert_indices_from_coo_to_csr(source, num_nodes)
