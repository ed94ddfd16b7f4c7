"""Communities from the lowest eigenvectors of a symmetric matrix of the graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.sparse import csr_matrix, diags, identity
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from lightning_landscape.community.adjacency import adjacency_matrix, checked_graph, degrees
from lightning_landscape.community.clustering import cluster_rows, partition_likelihood

# Up to this size a dense eigensolver is as fast as Lanczos, and sees every copy of a repeated eigenvalue.
_DENSE_SIZE = 400
# Relative to the size of the spectrum, between rounding and what tells eigenvalues apart.
_SAME_EIGENVALUE = 1e-9
# Relative error of an eigenvalue that is to be told from others only.
_ROUGH = 1e-3


class SpectralMethod(ABC):
    """Clusters of the eigenvectors of the lowest eigenvalues of a symmetric matrix, which a subclass defines.

    Row i of the eigenvectors, of unit norm each, is the point of node i. Of assortative communities there are k, the
    first of which tells little but where nodes of large degree are; of disassortative ones k - 1, as that vector is
    then at the other end of the spectrum. Clusters are those of k-means. Of two communities, the signs of a vector are
    another choice, and the partition of larger :func:`partition_likelihood` is taken.

    Args:
        disassortative: look for communities that avoid themselves.
        seed: random seed of the start of the eigensolver and of k-means; the global random state is left as it is.
    """

    def __init__(self, disassortative: bool = False, seed: int = 0) -> None:
        self.disassortative = disassortative
        self.seed = seed

    @abstractmethod
    def operator(self, adjacency: csr_matrix) -> csr_matrix:
        """The matrix (n, n), from the adjacency matrix (n, n)."""

    def embedding(self, adjacency: csr_matrix, num_communities: int) -> np.ndarray:
        """The points that k-means clusters, (n, k), or (n, k - 1) for disassortative communities."""
        return lowest_eigenvectors(self.operator(adjacency), self._num_vectors(num_communities), self.seed)

    def _num_vectors(self, num_communities: int) -> int:
        return num_communities - 1 if self.disassortative else num_communities

    def fit_predict(self, data: Any, num_communities: int) -> Tensor:
        """Find communities.

        Args:
            data: a graph, as :func:`~lightning_landscape.community.as_community_graph` takes it.
            num_communities: k.

        Returns:
            Labels (n,) int64 from 0 to k - 1, on the device of the graph; the work is done on the CPU.

        Raises:
            ValueError: if k is not from 2 to n, or the graph is directed, not simple or without edges.
        """
        graph = checked_graph(data, num_communities)
        adjacency = adjacency_matrix(graph)
        points = self.embedding(adjacency, num_communities)
        found = [cluster_rows(points, num_communities, self.seed)]
        if num_communities == 2:
            found += [torch.from_numpy(column >= 0).long() for column in points.T]
        best = max(found, key=lambda labels: partition_likelihood(adjacency, labels.numpy(), num_communities))
        return best.to(graph.edge_index.device)


class AdjacencySpectral(SpectralMethod):
    """Leading eigenvectors of the adjacency matrix A.

    In sparse graphs they sit on the nodes of largest degree and know little of communities.

    Arguments are those of :class:`SpectralMethod`.

    Example:
        >>> from lightning_landscape.community import community_graph
        >>> import torch
        >>> two_triangles = community_graph(torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 3]]), num_nodes=6)
        >>> labels = AdjacencySpectral().fit_predict(two_triangles, num_communities=2)
        >>> (labels == labels[0]).tolist()
        [True, True, True, False, False, False]
    """

    def operator(self, adjacency: csr_matrix) -> csr_matrix:
        """-A, or A for disassortative communities."""
        return adjacency if self.disassortative else -adjacency


class LaplacianSpectral(SpectralMethod):
    """Lowest eigenvectors of the regularised Laplacian ``1 - D_t^{-1/2} A D_t^{-1/2}``, divided by ``D_t^{1/2}``.

    D_t adds t to each degree (Chaudhuri, Chung, Tsiatas 2012; Qin & Rohe 2013). With ``t = 0`` it is the normalised
    Laplacian, whose second vector is the Fiedler vector. Its vectors, so divided, are constant on connected components
    (Shi & Malik 2000), of which it has as many zero eigenvalues. A sparse random graph has many small components, so
    that the lowest eigenvectors tell those apart and not the communities; t lifts them out of the way. Disassortative
    communities are sought at the other end of the spectrum.

    Args:
        disassortative: look for communities that avoid themselves.
        regularizer: t, by default the average degree.
        seed: random seed of the start of the eigensolver and of k-means; the global random state is left as it is.

    Raises:
        ValueError: if ``regularizer`` is negative.

    Example:
        >>> from lightning_landscape.community import community_graph
        >>> import torch
        >>> pair_and_path = community_graph(torch.tensor([[0, 2, 3], [1, 3, 4]]), num_nodes=5)
        >>> labels = LaplacianSpectral().fit_predict(pair_and_path, num_communities=2)
        >>> (labels == labels[0]).tolist()
        [True, True, False, False, False]
    """

    def __init__(self, disassortative: bool = False, regularizer: float | None = None, seed: int = 0) -> None:
        super().__init__(disassortative, seed)
        if regularizer is not None and not 0 <= regularizer < float("inf"):
            raise ValueError(f"regularizer is added to degrees and must be at least 0, got {regularizer!r}")
        self.regularizer = regularizer

    def operator(self, adjacency: csr_matrix) -> csr_matrix:
        """The Laplacian, or minus it for disassortative communities; a node without edges and t has a zero row."""
        counts = self._degrees(adjacency)
        scale = diags(1 / np.sqrt(np.where(counts > 0, counts, 1)))
        laplacian = (diags((counts > 0).astype(float)) - scale @ adjacency @ scale).tocsr()
        return -laplacian if self.disassortative else laplacian

    def embedding(self, adjacency: csr_matrix, num_communities: int) -> np.ndarray:
        """The eigenvectors divided by ``D_t^{1/2}``, by 1 for a node without edges and t."""
        vectors = super().embedding(adjacency, num_communities)
        counts = self._degrees(adjacency)
        vectors /= np.sqrt(np.where(counts > 0, counts, 1))[:, None]
        return vectors

    def _degrees(self, adjacency: csr_matrix) -> np.ndarray:
        counts = degrees(adjacency)
        return counts + (counts.mean() if self.regularizer is None else self.regularizer)


class BetheHessian(SpectralMethod):
    """Lowest eigenvectors of ``H(r) = (r^2 - 1) 1 - r A + D`` (Saade, Krzakala, Zdeborova 2014, Eq. 1).

    Its negative eigenvalues at ``r = sqrt(c)``, c the average degree, belong to assortative communities, those at
    ``r = -sqrt(c)`` to disassortative ones; for the block model they exist down to the Kesten-Stigum threshold.

    Args:
        disassortative: look for communities that avoid themselves; r is then negative.
        regularizer: ``|r|``, by default ``sqrt(c)``.
        seed: random seed of the start of the eigensolver and of k-means; the global random state is left as it is.

    Raises:
        ValueError: if ``regularizer`` is not a positive number.

    Example:
        >>> from lightning_landscape.community import community_graph
        >>> import torch
        >>> square = community_graph(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]), num_nodes=4)
        >>> labels = BetheHessian().fit_predict(square, num_communities=2)
        >>> (labels == labels[0]).tolist()
        [True, False, True, False]
    """

    def __init__(self, disassortative: bool | None = None, regularizer: float | None = None, seed: int = 0) -> None:
        super().__init__(bool(disassortative), seed)
        if regularizer is not None and not 0 < regularizer < float("inf"):
            raise ValueError(
                f"regularizer is |r| and must be positive, got {regularizer!r}; disassortative=True makes r negative"
            )
        self.regularizer = regularizer
        self._either = disassortative is None

    def operator(self, adjacency: csr_matrix) -> csr_matrix:
        """H(r), with r positive where ``disassortative`` is not given."""
        counts = degrees(adjacency)
        r = np.sqrt(counts.mean()) if self.regularizer is None else self.regularizer
        if self.disassortative:
            r = -r
        return ((r * r - 1) * identity(len(counts)) - r * adjacency + diags(counts)).tocsr()

    def embedding(self, adjacency: csr_matrix, num_communities: int) -> np.ndarray:
        """The eigenvectors, of the sign of r that shows more where ``disassortative`` is not given."""
        if not self._either:
            return super().embedding(adjacency, num_communities)
        signs = [BetheHessian(avoiding, self.regularizer, self.seed) for avoiding in (False, True)]
        vectors = [method.embedding(adjacency, num_communities) for method in signs]
        shown = []
        for method, columns in zip(signs, vectors, strict=True):
            values = np.einsum("ij,ij->j", columns, method.operator(adjacency) @ columns)[-(num_communities - 1) :]
            shown.append((np.minimum(values, 0).sum(), values.sum()))
        return vectors[shown.index(min(shown))]


class ProjectedPowerIteration(SpectralMethod):
    """What a graph network of a given depth can compute of a spectral method: power iterations, each projected.

    With A the symmetric matrix of ``method`` and ``||A||`` its spectral norm, ``||A|| 1 - A`` has the lowest
    eigenvectors of A as its leading ones. Each column is multiplied by it, projected away from the columns
    before it and normalised: with the first known, the second tends to the Fiedler vector of a Laplacian (Chen, Li,
    Bruna 2019, Sec. 3). The error shrinks per iteration by the ratio of the eigenvalues of ``||A|| 1 - A``.

    Args:
        method: the spectral method whose matrix and points are used, by default ``BetheHessian(disassortative=False)``.
        num_iterations: how many.
        seed: random seed of the first columns and of k-means.

    Raises:
        ValueError: if ``num_iterations`` is not positive.

    Example:
        >>> from lightning_landscape.community import community_graph
        >>> import torch
        >>> two_triangles = community_graph(torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 3]]), num_nodes=6)
        >>> labels = ProjectedPowerIteration().fit_predict(two_triangles, num_communities=2)
        >>> (labels == labels[0]).tolist()
        [True, True, True, False, False, False]
    """

    def __init__(self, method: SpectralMethod | None = None, num_iterations: int = 200, seed: int = 0) -> None:
        if num_iterations < 1:
            raise ValueError(f"num_iterations must be at least 1, got {num_iterations!r}")
        self.method = BetheHessian(disassortative=False) if method is None else method
        super().__init__(self.method.disassortative, seed)
        self.num_iterations = num_iterations

    def operator(self, adjacency: csr_matrix) -> csr_matrix:
        """The matrix of ``method``."""
        return self.method.operator(adjacency)

    def embedding(self, adjacency: csr_matrix, num_communities: int) -> np.ndarray:
        """The columns after the last iteration."""
        matrix = self.operator(adjacency)
        random = np.random.default_rng(self.seed)
        start = random.standard_normal(matrix.shape[0])
        norm = abs(eigsh(matrix, k=1, which="LM", v0=start, return_eigenvectors=False)[0])
        columns = random.standard_normal((matrix.shape[0], self._num_vectors(num_communities)))
        for _ in range(self.num_iterations):
            columns, _ = np.linalg.qr(norm * columns - matrix @ columns)
        return columns


def lowest_eigenvectors(matrix: csr_matrix, count: int, seed: int) -> np.ndarray:
    """Orthonormal eigenvectors (n, count) of the lowest eigenvalues of a symmetric matrix, in their order.

    Args:
        matrix: sparse (n, n), n >= ``count``.
        count: how many.
        seed: random seed of the first Lanczos vector.

    Raises:
        scipy.sparse.linalg.ArpackNoConvergence: if Lanczos does not converge.
    """
    size = matrix.shape[0]
    if size <= max(_DENSE_SIZE, 4 * count):
        _, vectors = eigh(matrix.toarray(), subset_by_index=(0, count - 1))
        return np.asarray(vectors)
    random = np.random.default_rng(seed)
    bound = float(abs(matrix).sum(axis=1).max())
    # ARPACK multiplies its start by the matrix, so that exact zero eigenvalues would be lost: all negative, none is.
    negative = (matrix - 2 * bound * identity(size)).tocsr()
    options = {"which": "SA", "ncv": max(4 * count, 40)}
    values, vectors = eigsh(negative, k=count, v0=random.standard_normal(size), **options)
    while True:
        order = np.argsort(values)
        values, vectors = values[order], vectors[:, order]
        # One start sees one copy of a repeated eigenvalue: another start, with what is found lifted above all else.
        found = vectors
        lifted = LinearOperator(
            matrix.shape, lambda x, v=found: negative @ x + 3 * bound * (v @ (v.T @ x)), dtype=float
        )
        start = random.standard_normal(size)
        # A rough look tells where there is nothing so low; to converge at the edge of many others takes far longer.
        (rough,) = eigsh(lifted, k=1, which="SA", v0=start, tol=_ROUGH, return_eigenvectors=False)
        if rough - _ROUGH * abs(rough) > values[-1]:
            return np.asarray(vectors)
        value, vector = eigsh(lifted, k=1, v0=start, **options)
        if value[0] >= values[-1] - _SAME_EIGENVALUE * bound:
            return np.asarray(vectors)
        values[-1], vectors[:, -1] = value[0], vector[:, 0]
