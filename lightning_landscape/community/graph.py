"""Undirected graphs as both directions of each edge, and the permutation that reverses edges."""

from __future__ import annotations

from typing import Any

import torch
from scipy.sparse import issparse
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


def as_community_graph(graph: Any) -> CommunityGraph:
    """The same graph, of whatever kind, with its edges in order.

    Args:
        graph: simple and undirected: a PyG ``Data`` with ``edge_index`` (2, E2), both directions of each edge in any
            order; or a SciPy sparse matrix or array (n, n), symmetric, of zeros and ones; or a networkx ``Graph``,
            whose nodes are numbered in the order in which it lists them. Weights of edges are not looked at in a
            ``Data`` or a ``Graph``.

    Returns:
        The graph; a ``Data`` keeps its ``y``.

    Raises:
        TypeError: if it is of another kind.
        ValueError: if it is directed, has self-loops or repeated edges, or a matrix holds other numbers.

    Example:
        >>> import networkx
        >>> as_community_graph(networkx.path_graph(["a", "b", "c"])).edge_index
        tensor([[0, 1, 1, 2],
                [1, 0, 2, 1]])
    """
    if isinstance(graph, CommunityGraph):
        return graph
    if isinstance(graph, Data):
        nodes = graph.num_nodes or 0
        if graph.edge_index is None:
            raise ValueError(f"the graph of {nodes} nodes has no edges: edge_index is None")
        source, target = _checked(graph.edge_index, nodes)
        edge_index = torch.stack([source, target])[:, (source * nodes + target).argsort()]
        return CommunityGraph(
            edge_index=edge_index, rev_edge=reverse_edges(edge_index, nodes), y=graph.y, num_nodes=nodes
        )
    if issparse(graph):
        return _of_matrix(graph)
    # Not imported: a graph of networkx says itself what it is.
    if hasattr(graph, "is_directed") and hasattr(graph, "adjacency") and hasattr(graph, "is_multigraph"):
        if graph.is_directed() or graph.is_multigraph():
            raise ValueError(
                f"a {type(graph).__name__} may hold both directions of an edge, or an edge twice: "
                "networkx.Graph(graph) makes it simple and undirected"
            )
        numbers = {node: number for number, node in enumerate(graph)}
        pairs = [(numbers[node], numbers[other]) for node, others in graph.adjacency() for other in others]
        edge_index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
        return as_community_graph(Data(edge_index=edge_index, num_nodes=len(numbers)))
    raise TypeError(f"a graph must be a Data, a SciPy sparse matrix or a networkx Graph, got {type(graph).__name__}")


def _of_matrix(matrix: Any) -> CommunityGraph:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"the matrix of a graph must be square, got shape {matrix.shape}")
    entries = matrix.tocoo()
    entries.sum_duplicates()
    present = entries.data != 0
    if not (entries.data[present] == 1).all():
        raise ValueError("the matrix of a graph must hold zeros and ones: (matrix != 0) leaves out the weights")
    edge_index = torch.stack([torch.as_tensor(part[present].astype("int64")) for part in (entries.row, entries.col)])
    return as_community_graph(Data(edge_index=edge_index, num_nodes=matrix.shape[0]))


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
