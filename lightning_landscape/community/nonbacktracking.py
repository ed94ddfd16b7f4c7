"""Communities from the spectrum of the non-backtracking matrix, at the size of the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import bmat, csr_matrix, diags, identity
from scipy.sparse.linalg import ArpackNoConvergence, eigs
from torch import Tensor

from lightning_landscape.community.adjacency import adjacency_matrix, checked_graph, degrees
from lightning_landscape.community.clustering import cluster_rows

_DENSE_SIZE = 200
# Ten times what random graphs below the threshold needed; without a limit, a ring of 600 nodes took 40 s to fail.
_MOST_RESTARTS = 1000


class NonBacktrackingSpectral:
    """k-means on eigenvectors of the non-backtracking matrix B (Krzakala et al. 2013).

    With ``(B y)_{i->j} = sum over l != i of y_{j->l}`` and ``s_i = sum over j of y_{i->j}``, an eigenvector
    ``B y = mu y`` has ``(mu^2 - 1) y_{i->j} = mu s_j - s_i``, and the sum over j gives
    ``mu^2 s = mu A s - (D - 1) s``. Node i gets the values ``s_i / d_i`` of k eigenvectors, the mean over its edges,
    from :func:`ihara_bass`, which is 2n x 2n however many edges there are. Eigenvalues of communities are real and lie
    outside of a disc of radius ``sqrt(largest eigenvalue)`` that holds the others, down to the Kesten-Stigum threshold.

    Args:
        disassortative: take the k - 1 eigenvalues of smallest real part, not the k of largest: for communities that
            avoid themselves.
        seed: random seed of the start of the eigensolver and of k-means; the global random state is left as it is.

    Example:
        >>> from lightning_landscape.community import community_graph
        >>> import torch
        >>> square = community_graph(torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]]), num_nodes=4)
        >>> twins = community_graph(torch.cat([square.edge_index, square.edge_index + 4], dim=1), num_nodes=8)
        >>> labels = NonBacktrackingSpectral().fit_predict(twins, num_communities=2)
        >>> (labels == labels[0]).tolist()
        [True, True, True, True, False, False, False, False]
    """

    def __init__(self, disassortative: bool = False, seed: int = 0) -> None:
        self.disassortative = disassortative
        self.seed = seed

    def embedding(self, adjacency: csr_matrix, num_communities: int) -> np.ndarray:
        """The points that k-means clusters: columns of unit norm, the two parts of a complex pair as two."""
        count = num_communities - 1 if self.disassortative else num_communities
        matrix = ihara_bass(adjacency)
        size = matrix.shape[0]
        if size <= max(_DENSE_SIZE, 4 * count):
            values, vectors = np.linalg.eig(matrix.toarray())
        else:
            start = np.random.default_rng(self.seed).standard_normal(size)
            try:
                values, vectors = eigs(
                    matrix,
                    k=count,
                    which="SR" if self.disassortative else "LR",
                    v0=start,
                    ncv=max(4 * count, 40),
                    maxiter=_MOST_RESTARTS,
                )
            except ArpackNoConvergence as error:
                raise RuntimeError(
                    f"the {count} outermost eigenvalues of the non-backtracking matrix lie too close to others, as in "
                    "a path or a ring of many nodes: BetheHessian asks for less"
                ) from error
        order = np.lexsort((-values.imag, values.real if self.disassortative else -values.real))[:count]
        sums = vectors[size // 2 :, order]
        parts = np.where(values[order].imag < 0, sums.imag, sums.real)
        parts /= np.maximum(degrees(adjacency), 1)[:, None]
        parts /= np.linalg.norm(parts, axis=0)
        return parts

    def fit_predict(self, data: Any, num_communities: int) -> Tensor:
        """Find communities.

        Args:
            data: a graph, as :func:`~lightning_landscape.community.as_community_graph` takes it.
            num_communities: k.

        Returns:
            Labels (n,) int64 from 0 to k - 1, on the device of the graph; the work is done on the CPU.

        Raises:
            ValueError: if k is not from 2 to n, or the graph is directed, not simple or without edges.
            RuntimeError: if the eigenvalues cannot be told from others, as in a long path or ring.
        """
        graph = checked_graph(data, num_communities)
        points = self.embedding(adjacency_matrix(graph), num_communities)
        return cluster_rows(points, num_communities, self.seed).to(graph.edge_index.device)


def ihara_bass(adjacency: csr_matrix) -> csr_matrix:
    """The matrix ``[[A, 1 - D], [1, 0]]`` (2n, 2n), whose eigenvectors are ``(mu s, s)``.

    By Ihara and Bass, ``det(z - B) = (z^2 - 1)^{m - n} det(z - [[A, 1 - D], [1, 0]])`` for n nodes and m edges: but for
    ``|m - n|`` pairs of 1 and -1 both have the same eigenvalues.

    Example:
        >>> edge = csr_matrix(np.array([[0.0, 1.0], [1.0, 0.0]]))
        >>> np.linalg.eigvals(ihara_bass(edge).toarray()).real.round(6).tolist()  # B is 0 (2, 2), m - n is -1
        [0.0, 0.0, 1.0, -1.0]
    """
    size = adjacency.shape[0]
    return bmat([[adjacency, diags(1 - degrees(adjacency))], [identity(size), None]]).tocsr()
