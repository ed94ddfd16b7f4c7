"""What every classical method asks of a graph, and its adjacency matrix."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from torch import Tensor
from torch_geometric.data import Data

from lightning_landscape.community.graph import reverse_edges


def checked_reverse(data: Data, num_communities: int) -> Tensor:
    """The reversed edges (E2,) of a graph in which communities can be looked for.

    Args:
        data: a graph with ``edge_index`` (2, E2), both directions of each edge, and ``num_nodes``.
        num_communities: k.

    Raises:
        ValueError: if k is not an integer from 2 to the number of nodes; if the graph has no edges, which leaves
            nothing to tell communities from; if it is directed, has self-loops or repeated edges.
    """
    nodes = data.num_nodes or 0
    if isinstance(num_communities, bool) or not isinstance(num_communities, int) or not 2 <= num_communities <= nodes:
        raise ValueError(
            f"num_communities must be an integer from 2 to the number of nodes, {nodes}, got {num_communities!r}"
        )
    if data.edge_index is None or data.edge_index.numel() == 0:
        raise ValueError(f"the graph of {nodes} nodes has no edges, so that nothing tells its communities apart")
    return reverse_edges(data.edge_index, nodes)


def adjacency_matrix(data: Data, num_communities: int) -> csr_matrix:
    """The symmetric 0/1 matrix A (n, n) in float64, of a graph that :func:`checked_reverse` takes.

    Raises:
        ValueError: if k is not an integer from 2 to the number of nodes; if the graph has no edges, is directed, or
            has self-loops or repeated edges.

    Example:
        >>> import torch
        >>> pair = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
        >>> adjacency_matrix(pair, num_communities=2).toarray()
        array([[0., 1.],
               [1., 0.]])
    """
    checked_reverse(data, num_communities)
    source, target = data.edge_index.cpu().numpy()
    return csr_matrix((np.ones(len(source)), (source, target)), shape=(data.num_nodes, data.num_nodes))


def degrees(adjacency: csr_matrix) -> np.ndarray:
    """Number of neighbours of each node, (n,) float64."""
    return np.asarray(adjacency.sum(axis=1)).ravel()
