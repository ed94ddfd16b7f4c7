"""Undirected graphs as both directions of each edge, and the permutation that reverses edges."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data


class CommunityGraph(Data):  # type: ignore[misc]
    """A simple undirected graph, with the index of the reverse of each directed edge.

    Made by :func:`community_graph`. Batches of PyG (``Batch.from_data_list``, its ``DataLoader``) keep all of it right.
    Transforms that drop or reorder edges do not: build a new graph from their ``edge_index``.

    Attributes:
        edge_index: (2, E2) int64, column e is the directed edge i -> j. Both directions of each edge, sorted by source
            and then by target; no self-loops, no repeats.
        rev_edge: (E2,) int64, ``rev_edge[e]`` is the column of j -> i.
        y: (n,) int64, the community of each node, or ``None``.
        num_nodes: n.
    """

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "rev_edge":
            return self.edge_index.shape[1]
        return super().__inc__(key, value, *args, **kwargs)


def community_graph(edge_index: Tensor, num_nodes: int, y: Tensor | None = None) -> CommunityGraph:
    """The simple undirected graph of a list of edges.

    Edges count in both directions, whichever are given; self-loops are dropped and repeated edges merged. Nodes
    without edges stay.

    Args:
        edge_index: integers (2, E), the ends of each edge.
        num_nodes: n, nodes are 0 to n - 1.
        y: integers (n,), the community of each node, from 0 on.

    Raises:
        ValueError: if shapes, types or node numbers are wrong.

    Example:
        >>> graph = community_graph(torch.tensor([[0, 2, 2, 1], [1, 1, 2, 2]]), num_nodes=4)
        >>> graph.edge_index
        tensor([[0, 1, 1, 2],
                [1, 0, 2, 1]])
        >>> graph.rev_edge
        tensor([1, 0, 3, 2])
    """
    source, target = _checked(edge_index, num_nodes)
    if y is not None:
        if y.shape != (num_nodes,) or not _is_integer(y):
            raise ValueError(f"y must be integers of shape ({num_nodes},), one a node, got {y.dtype} {tuple(y.shape)}")
        if (y < 0).any():
            raise ValueError(f"y must number communities from 0 on, got {int(y.min())}")
        y = y.long()
    between = source != target
    source, target = source[between], target[between]
    keys = torch.cat([source * num_nodes + target, target * num_nodes + source]).unique()
    edge_index = torch.stack([keys // max(num_nodes, 1), keys % max(num_nodes, 1)])
    return CommunityGraph(
        edge_index=edge_index, rev_edge=reverse_edges(edge_index, num_nodes), y=y, num_nodes=num_nodes
    )


def reverse_edges(edge_index: Tensor, num_nodes: int) -> Tensor:
    """The permutation ``rev`` (E2,) with ``edge_index[:, rev[e]] = edge_index[:, e]`` turned around.

    It is its own inverse.

    Args:
        edge_index: integers (2, E2), both directions of each edge, sorted by source and then by target.
        num_nodes: n, nodes are 0 to n - 1.

    Raises:
        ValueError: if an edge lacks its reverse (a directed graph), repeats, is a self-loop or out of order, for which
            :func:`community_graph` makes a graph where all is well; if shapes, types or node numbers are wrong.

    Example:
        >>> reverse_edges(torch.tensor([[0, 0, 1, 2], [1, 2, 0, 0]]), num_nodes=3)
        tensor([2, 3, 0, 1])
    """
    source, target = _checked(edge_index, num_nodes)
    keys = source * num_nodes + target
    advice = "community_graph(edge_index, num_nodes) makes a simple undirected graph of any list of edges"
    if not (keys[1:] > keys[:-1]).all():
        raise ValueError(f"edge_index must be sorted by source and then by target, each edge once: {advice}")
    if (source == target).any():
        raise ValueError(f"edge_index must hold no self-loops: {advice}")
    # The keys ascend, so that the reversed edge at place e of the ascending ones is edge e.
    reversed_keys, reverse = (target * num_nodes + source).sort()
    if not torch.equal(keys, reversed_keys):
        raise ValueError(f"edge_index must hold both directions of each edge: {advice}")
    return reverse


def _checked(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    if isinstance(num_nodes, bool) or not isinstance(num_nodes, int) or not 0 <= num_nodes < 2**31:
        raise ValueError(f"num_nodes must be an integer from 0 to 2**31 - 1, got {num_nodes!r}")
    if edge_index.dim() != 2 or edge_index.shape[0] != 2 or not _is_integer(edge_index):
        raise ValueError(
            f"edge_index must be integers of shape (2, E), got {edge_index.dtype} {tuple(edge_index.shape)}"
        )
    if edge_index.numel() and not (edge_index.min() >= 0 and edge_index.max() < num_nodes):
        raise ValueError(
            f"edge_index must hold nodes from 0 to num_nodes - 1 = {num_nodes - 1}, "
            f"got {int(edge_index.min())} to {int(edge_index.max())}"
        )
    source, target = edge_index.long()
    return source, target


def _is_integer(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
