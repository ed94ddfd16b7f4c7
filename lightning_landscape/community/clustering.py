"""From points to communities."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from torch import Tensor


def cluster_rows(points: np.ndarray, num_communities: int, seed: int) -> Tensor:
    """Labels (n,) int64 of the best of ten k-means clusterings of the rows of ``points`` (n, d).

    Example:
        >>> first, second, third = cluster_rows(np.array([[0.0], [0.1], [9.0]]), num_communities=2, seed=0).tolist()
        >>> first == second != third
        True
    """
    labels = KMeans(num_communities, n_init=10, random_state=seed).fit_predict(points)
    return torch.from_numpy(labels).long()


def partition_likelihood(adjacency: csr_matrix, labels: np.ndarray, num_communities: int) -> float:
    """How likely the edges are, given the communities and the degrees, under the likeliest affinities of these.

    ``sum over communities a, b of m_ab log(m_ab / (m_a m_b))``, with m_ab the edges between a and b in both directions
    and m_a the sum of the degrees in a: the profile likelihood of the degree-corrected block model, but for constants
    (Karrer & Newman 2011).

    Args:
        adjacency: A (n, n), symmetric.
        labels: (n,) from 0 to k - 1.
        num_communities: k.

    Example:
        >>> square = csr_matrix(np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]))
        >>> best, other = (partition_likelihood(square, np.array(y), 2) for y in ([0, 1, 0, 1], [0, 0, 1, 1]))
        >>> best > other
        True
    """
    members = np.eye(num_communities)[labels]
    edges = members.T @ (adjacency @ members)
    ends = edges.sum(axis=1)
    present = edges > 0
    return float((edges[present] * np.log(edges[present] / np.outer(ends, ends)[present])).sum())
