"""Communities from a semidefinite relaxation, solved over low-rank factors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from torch import Tensor

from lightning_landscape.community.adjacency import adjacency_matrix, checked_graph
from lightning_landscape.community.clustering import cluster_rows


class BurerMonteiro:
    """Semidefinite relaxation of minimum bisection, over rows of a low-rank factor on the unit sphere.

    The relaxation is ``max <A - c / n 1 1^T, X>`` over semidefinite X with ``X_ii = 1``, c the average degree, and
    ``X = V V^T`` with V (n, rank) (Burer & Monteiro 2003). Any local maximum is within a share of about ``1 / rank`` of
    the global one (Mei et al. 2017), and from ``rank >= sqrt(2 n)`` on almost surely is one (Boumal, Voroninski,
    Bandeira 2016). Disassortative communities are sought by ``max <-A, X>``, the relaxation of the maximum cut, to
    which one single community is the worst answer and needs no penalty.

    For k communities the rows of V would be the k vertices of a simplex in k - 1 dimensions. Rounding is k-means on the
    k - 1 leading principal coordinates of V.

    Args:
        disassortative: look for communities that avoid themselves.
        rank: columns of V.
        tol: stop where no entry of the gradient of ``<M, V V^T> / (2 c)`` is larger, M the matrix of the objective.
        max_iterations: iterations of L-BFGS, at most.
        seed: random seed of the first V and of k-means; the global random state is left as it is.

    Raises:
        ValueError: if ``rank``, ``tol`` or ``max_iterations`` is not positive.

    Example:
        >>> from lightning_landscape.community import community_graph
        >>> import torch
        >>> two_triangles = community_graph(torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 3]]), num_nodes=6)
        >>> labels = BurerMonteiro().fit_predict(two_triangles, num_communities=2)
        >>> (labels == labels[0]).tolist()
        [True, True, True, False, False, False]
    """

    def __init__(
        self,
        disassortative: bool = False,
        rank: int = 32,
        tol: float = 1e-4,
        max_iterations: int = 1000,
        seed: int = 0,
    ) -> None:
        for name, value in (("rank", rank), ("tol", tol), ("max_iterations", max_iterations)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value!r}")
        self.disassortative = disassortative
        self.rank = rank
        self.tol = tol
        self.max_iterations = max_iterations
        self.seed = seed

    def fit_predict(self, data: Any, num_communities: int) -> Tensor:
        """Find communities.

        Args:
            data: a graph, as :func:`~lightning_landscape.community.as_community_graph` takes it.
            num_communities: k, at most ``rank + 1``.

        Returns:
            Labels (n,) int64 from 0 to k - 1, on the device of the graph; the work is done on the CPU.

        Raises:
            ValueError: if k is not from 2 to n or exceeds ``rank + 1``, or the graph is directed, not simple or without
                edges.
        """
        graph = checked_graph(data, num_communities)
        adjacency = adjacency_matrix(graph)
        if num_communities > self.rank + 1:
            raise ValueError(f"{num_communities} communities need a rank of {num_communities - 1}, got {self.rank}")
        factor = self.factor(adjacency)
        _, _, axes = np.linalg.svd(factor.T @ factor)
        points = factor @ axes[: num_communities - 1].T
        return cluster_rows(points, num_communities, self.seed).to(graph.edge_index.device)

    def product(self, adjacency: csr_matrix, factor: np.ndarray) -> np.ndarray:
        """M V (n, rank), with M the matrix of the objective, ``A - c / n 1 1^T`` or -A."""
        neighbours: np.ndarray = adjacency @ factor
        if self.disassortative:
            return -neighbours
        density = float(adjacency.mean())
        neighbours -= density * factor.sum(axis=0)
        return neighbours

    def factor(self, adjacency: csr_matrix) -> np.ndarray:
        """V (n, rank), rows of norm 1, a local maximum of ``<M, V V^T>``."""
        shape = adjacency.shape[0], self.rank
        scale = shape[0] / adjacency.sum()

        def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
            free = flat.reshape(shape)
            norms = np.linalg.norm(free, axis=1, keepdims=True)
            rows = free / norms
            product = self.product(adjacency, rows)
            along = (product * rows).sum(axis=1, keepdims=True)
            # The gradient over free vectors whose directions are the rows: what points along a row does nothing.
            return -scale * float(along.sum()) / 2, (-scale * (product - along * rows) / norms).ravel()

        start = np.random.default_rng(self.seed).standard_normal(shape)
        start /= np.linalg.norm(start, axis=1, keepdims=True)
        options = {"maxiter": self.max_iterations, "maxfun": 2 * self.max_iterations, "gtol": self.tol, "ftol": 0.0}
        found = minimize(cost, start.ravel(), jac=True, method="L-BFGS-B", options=options)
        if np.abs(found.jac).max() > self.tol:
            warnings.warn(
                f"the relaxation has a gradient of {np.abs(found.jac).max():.2g} after {found.nit} iterations, above "
                f"tol={self.tol:g}: raise max_iterations",
                RuntimeWarning,
                stacklevel=3,
            )
        rows: np.ndarray = found.x.reshape(shape)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows
