"""What every classical method asks of a graph, and its adjacency matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from lightning_landscape.community.graph import CommunityGraph, as_community_graph


def checked_graph(data: Any, num_communities: int) -> CommunityGraph:
    """A graph in which communities can be looked for.

    Args:
        data: what :func:`~lightning_landscape.community.as_community_graph` takes.
        num_communities: k.

    Raises:
        ValueError: if k is not an integer from 2 to the number of nodes; if the graph has no edges, which leaves
            nothing to tell communities from; if it is directed, has self-loops or repeated edges.
    """
    graph = as_community_graph(data)
    nodes = graph.num_nodes
    if isinstance(num_communities, bool) or not isinstance(num_communities, int) or not 2 <= num_communities <= nodes:
        raise ValueError(
            f"num_communities must be an integer from 2 to the number of nodes, {nodes}, got {num_communities!r}"
        )
    if graph.num_edges == 0:
        raise ValueError(f"the graph of {nodes} nodes has no edges, so that nothing tells its communities apart")
    return graph


def adjacency_matrix(graph: CommunityGraph) -> csr_matrix:
    """The symmetric 0/1 matrix A (n, n) in float64.

    Example:
        >>> import torch
        >>> from lightning_landscape.community import community_graph
        >>> adjacency_matrix(community_graph(torch.tensor([[0], [1]]), num_nodes=2)).toarray()
        array([[0., 1.],
               [1., 0.]])
    """
    source, target = graph.edge_index.cpu().numpy()
    return csr_matrix((np.ones(len(source)), (source, target)), shape=(graph.num_nodes, graph.num_nodes))


def degrees(adjacency: csr_matrix) -> np.ndarray:
    """Number of neighbours of each node, (n,) float64."""
    return np.asarray(adjacency.sum(axis=1)).ravel()
