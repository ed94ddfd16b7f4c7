"""Spectral methods against dense algebra, planted communities and graphs that tell nothing."""

from __future__ import annotations

import random

import networkx
import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch_geometric.data import Data

from lightning_landscape.community import (
    AdjacencySpectral,
    BetheHessian,
    LaplacianSpectral,
    NonBacktrackingSpectral,
    ProjectedPowerIteration,
    community_graph,
    stochastic_block_model,
)
from lightning_landscape.community.adjacency import adjacency_matrix, degrees
from lightning_landscape.community.clustering import cluster_rows
from lightning_landscape.community.nonbacktracking import ihara_bass
from lightning_landscape.community.spectral import lowest_eigenvectors

METHODS = [AdjacencySpectral, LaplacianSpectral, BetheHessian, ProjectedPowerIteration, NonBacktrackingSpectral]
DISASSORTATIVE = [AdjacencySpectral, LaplacianSpectral, BetheHessian, NonBacktrackingSpectral]


def same_partition(labels: Tensor, truth: Tensor) -> bool:
    return torch.equal(labels[:, None] == labels, truth[:, None] == truth)


def cliques(sizes: list[int]) -> Data:
    """Disjoint cliques whose nodes are numbered at random."""
    truth = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    truth = truth[torch.randperm(len(truth), generator=torch.Generator().manual_seed(1))]
    edges = (truth[:, None] == truth).nonzero().T
    return community_graph(edges, len(truth), truth)


def planted(num_nodes: int, inside: float, outside: float, k: int, seed: int) -> Data:
    connectivity = torch.full((k, k), outside).fill_diagonal_(inside)
    return stochastic_block_model(num_nodes, connectivity, generator=torch.Generator().manual_seed(seed))


def random_adjacency(num_nodes: int, degree: float, seed: int) -> csr_matrix:
    return adjacency_matrix(planted(num_nodes, degree / num_nodes, degree / num_nodes, 2, seed))


def dense_nonbacktracking(adjacency: csr_matrix) -> np.ndarray:
    edges = np.argwhere(adjacency.toarray())
    return np.array([[float(j == source and i != target) for source, target in edges] for i, j in edges])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sizes", [[5, 5], [6, 6, 6]])
def test_disjoint_cliques_are_found(method: type, sizes: list[int]) -> None:
    graph = cliques(sizes)
    labels = method().fit_predict(graph, len(sizes))
    assert labels.dtype == torch.int64
    assert labels.shape == (sum(sizes),)
    assert same_partition(labels, graph.y)


@pytest.mark.parametrize("method", METHODS)
def test_well_separated_communities_are_found(method: type) -> None:
    graph = planted(120, 0.6, 0.02, 3, seed=0)
    assert same_partition(method().fit_predict(graph, 3), graph.y)


@pytest.mark.parametrize("method", DISASSORTATIVE)
@pytest.mark.parametrize("k", [2, 3])
def test_disassortative_communities_are_found(method: type, k: int) -> None:
    graph = planted(40 * k, 0.0, 0.5, k, seed=0)
    assert same_partition(method(disassortative=True).fit_predict(graph, k), graph.y)
    assert not same_partition(method(disassortative=False).fit_predict(graph, k), graph.y)


def test_power_iteration_follows_its_method() -> None:
    graph = planted(80, 0.0, 0.5, 2, seed=0)
    method = ProjectedPowerIteration(BetheHessian(disassortative=True))
    assert same_partition(method.fit_predict(graph, 2), graph.y)


def test_power_iteration_reaches_the_lowest_eigenvectors() -> None:
    adjacency = adjacency_matrix(planted(60, 0.6, 0.1, 2, seed=0))
    matrix = LaplacianSpectral().operator(adjacency)
    exact = lowest_eigenvectors(matrix, 2, seed=0)
    found = ProjectedPowerIteration(LaplacianSpectral(), num_iterations=400).embedding(adjacency, 2)
    np.testing.assert_allclose(abs(exact.T @ found), np.eye(2), atol=1e-8)


def test_power_iteration_improves_with_iterations() -> None:
    adjacency = random_adjacency(60, 6.0, seed=0)
    matrix = BetheHessian().operator(adjacency)
    floor = np.linalg.eigvalsh(matrix.toarray())[:2].sum()
    traces = []
    for count in (1, 10, 100):
        columns = ProjectedPowerIteration(num_iterations=count).embedding(adjacency, 2)
        np.testing.assert_allclose(columns.T @ columns, np.eye(2), atol=1e-12)
        traces.append(np.trace(columns.T @ (matrix @ columns)))
    assert traces[0] > traces[1] > traces[2] > floor - 1e-9


def test_operators_match_their_definitions() -> None:
    adjacency = random_adjacency(30, 3.0, seed=3)
    dense, counts = adjacency.toarray(), degrees(adjacency)
    assert counts.min() == 0, "the graph is to have an isolated node"
    c = counts.mean()
    for sign in (1, -1):
        avoiding = sign < 0
        operator = BetheHessian(avoiding).operator(adjacency).toarray()
        np.testing.assert_allclose(operator, (c - 1) * np.eye(30) - sign * c**0.5 * dense + np.diag(counts), atol=1e-14)
        np.testing.assert_array_equal(
            AdjacencySpectral(disassortative=sign < 0).operator(adjacency).toarray(), -sign * dense
        )
    given = BetheHessian(regularizer=1.0).operator(adjacency).toarray()
    np.testing.assert_array_equal(given, np.diag(counts) - dense)  # r = 1 is the Laplacian
    with np.errstate(divide="ignore"):
        scale = np.where(counts > 0, counts**-0.5, 0)
    laplacian = np.diag((counts > 0) * 1.0) - scale[:, None] * dense * scale
    np.testing.assert_allclose(LaplacianSpectral(regularizer=0).operator(adjacency).toarray(), laplacian, atol=1e-15)
    np.testing.assert_allclose(
        LaplacianSpectral(disassortative=True, regularizer=0).operator(adjacency).toarray(), -laplacian, atol=1e-15
    )


def test_lanczos_and_dense_eigenvectors_agree() -> None:
    adjacency = adjacency_matrix(planted(600, 0.05, 0.01, 3, seed=0))
    matrix = BetheHessian().operator(adjacency)
    vectors = lowest_eigenvectors(matrix, 3, seed=0)
    values, exact = np.linalg.eigh(matrix.toarray())
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(np.diag(vectors.T @ (matrix @ vectors)), values[:3], atol=1e-9)
    np.testing.assert_allclose(abs(np.diag(vectors.T @ exact[:, :3])), 1, atol=1e-8)


def test_every_copy_of_a_repeated_eigenvalue_is_seen() -> None:
    # Isolated nodes and small trees make many zero eigenvalues; one start of Lanczos sees three of the five asked for.
    matrix = LaplacianSpectral(regularizer=0).operator(random_adjacency(450, 3.0, seed=0))
    vectors = lowest_eigenvectors(matrix, 5, seed=0)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=1e-10)
    np.testing.assert_allclose(matrix @ vectors, 0, atol=1e-10)


@pytest.mark.parametrize("degree", [1.0, 2.0, 4.0])
def test_ihara_bass_has_the_characteristic_polynomial_of_b(degree: float) -> None:
    adjacency = random_adjacency(20, degree, seed=2)
    b, reduced = dense_nonbacktracking(adjacency), ihara_bass(adjacency).toarray()
    excess = len(b) // 2 - adjacency.shape[0]
    # Determinants, as eigenvalues of a matrix with tree branches are ill-conditioned.
    for z in (1.7, -2.3, 0.4 + 0.9j, -0.2 - 1.5j):
        left = np.linalg.det(z * np.eye(len(b)) - b)
        right = (z * z - 1) ** excess * np.linalg.det(z * np.eye(len(reduced)) - reduced)
        np.testing.assert_allclose(left, right, rtol=1e-9)


def test_ihara_bass_has_the_eigenvalues_of_b() -> None:
    adjacency = adjacency_matrix(planted(14, 0.6, 0.6, 2, seed=0))
    assert degrees(adjacency).min() >= 2
    b = dense_nonbacktracking(adjacency)
    excess = len(b) // 2 - 14
    signs = np.repeat([1.0, -1.0], excess)
    expected = np.concatenate([np.linalg.eigvals(ihara_bass(adjacency).toarray()), signs])
    found = np.linalg.eigvals(b)
    assert len(found) == len(expected)
    # Copies of +-1 that are defective are known to the square root of rounding only.
    distances = abs(found[:, None] - expected)
    assert max(distances.min(axis=0).max(), distances.min(axis=1).max()) < 1e-6
    np.testing.assert_allclose(np.sum(found**3).real, np.sum(expected**3).real, rtol=1e-9)


def test_embedding_of_nodes_is_the_mean_of_an_eigenvector_of_b_over_their_edges() -> None:
    adjacency = adjacency_matrix(planted(24, 0.8, 0.05, 2, seed=0))
    b = dense_nonbacktracking(adjacency)
    values, vectors = np.linalg.eig(b)
    leading = np.argsort(-values.real)[:2]
    assert abs(values[leading].imag).max() < 1e-9
    sources = np.argwhere(adjacency.toarray())[:, 0]
    means = np.array([np.bincount(sources, vectors[:, e].real, minlength=24) for e in leading]).T
    means /= degrees(adjacency)[:, None]
    found = NonBacktrackingSpectral().embedding(adjacency, 2)
    np.testing.assert_allclose(abs(np.diag(found.T @ means)), np.linalg.norm(means, axis=0), rtol=1e-9)


def test_sparse_and_dense_nonbacktracking_spectra_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    adjacency = adjacency_matrix(planted(90, 0.2, 0.02, 2, seed=0))
    exact = NonBacktrackingSpectral().embedding(adjacency, 2)
    monkeypatch.setattr("lightning_landscape.community.nonbacktracking._DENSE_SIZE", 10)
    found = NonBacktrackingSpectral().embedding(adjacency, 2)
    np.testing.assert_allclose(abs(np.diag(exact.T @ found)), 1, rtol=1e-8)


def test_eigenvalues_that_lie_too_close_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_landscape.community.nonbacktracking._MOST_RESTARTS", 20)
    ring = community_graph(torch.stack([torch.arange(600), (torch.arange(600) + 1) % 600]), 600)
    with pytest.raises(RuntimeError, match="2 outermost eigenvalues of the non-backtracking matrix lie too close"):
        NonBacktrackingSpectral().fit_predict(ring, 2)
    halves = BetheHessian().fit_predict(ring, 2)
    assert abs(halves.bincount() - 300).max() <= 10


@pytest.mark.parametrize("method", METHODS)
def test_results_repeat_and_leave_global_random_states_alone(method: type) -> None:
    graph = planted(450, 5 / 450, 1 / 450, 2, seed=4)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first = method(seed=3).fit_predict(graph, 2)
    np.random.seed(99)  # noqa: NPY002
    changed = np.random.get_state()[1].copy()  # noqa: NPY002
    assert torch.equal(first, method(seed=3).fit_predict(graph, 2))
    assert (np.random.get_state()[1] == changed).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[2]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_defined_on_poor_graphs(method: type) -> None:
    lone_edge = community_graph(torch.tensor([[0], [1]]), num_nodes=2)
    edge_among_isolated = community_graph(torch.tensor([[2], [5]]), num_nodes=9)
    path = community_graph(torch.stack([torch.arange(7), torch.arange(1, 8)]), num_nodes=8)
    for graph, k in ((lone_edge, 2), (edge_among_isolated, 3), (path, 8), (path, 2)):
        labels = method().fit_predict(graph, k)
        assert labels.shape == (graph.num_nodes,)
        assert labels.min() >= 0
        assert labels.max() < k


@pytest.mark.parametrize("method", METHODS)
def test_bad_graphs_and_counts_are_refused(method: type) -> None:
    pair = community_graph(torch.tensor([[0], [1]]), num_nodes=3)
    for count in (4, 1, 0, True, 2.0):
        with pytest.raises(ValueError, match=r"num_communities must be an integer from 2 to the number of nodes, 3"):
            method().fit_predict(pair, count)
    with pytest.raises(ValueError, match="has no edges"):
        method().fit_predict(community_graph(torch.empty(2, 0, dtype=torch.int64), num_nodes=5), 2)
    with pytest.raises(ValueError, match="has no edges"):
        method().fit_predict(Data(num_nodes=5), 2)
    with pytest.raises(ValueError, match="both directions"):
        method().fit_predict(Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3), 2)
    with pytest.raises(ValueError, match="self-loops"):
        method().fit_predict(Data(edge_index=torch.tensor([[0, 1, 1], [1, 0, 1]]), num_nodes=3), 2)


def test_bad_arguments_are_refused() -> None:
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="regularizer"):
            BetheHessian(regularizer=value)
    with pytest.raises(ValueError, match="num_iterations"):
        ProjectedPowerIteration(num_iterations=0)


def test_sparse_graphs_hide_communities_from_the_plain_laplacian() -> None:
    # a, b of SNR 2.52 at average degree 3.
    graph = planted(1000, 5.75e-3, 0.25e-3, 2, seed=0)
    methods = (BetheHessian(), NonBacktrackingSpectral(), LaplacianSpectral(), LaplacianSpectral(regularizer=0))
    found = [abs(2 * float((method.fit_predict(graph, 2) == graph.y).double().mean()) - 1) for method in methods]
    assert min(found[:3]) > 0.8
    assert found[3] < 0.1


def test_signs_of_the_second_vector_know_more_than_k_means_near_the_threshold() -> None:
    # a, b of SNR 1.69 at average degree 3.
    overlaps = []
    for seed in range(4):
        graph = planted(1000, 5.252e-3, 0.748e-3, 2, seed)
        adjacency = adjacency_matrix(graph)
        clusters = cluster_rows(BetheHessian().embedding(adjacency, 2), 2, seed=0)
        labels = BetheHessian().fit_predict(graph, 2)
        overlaps.append([abs(2 * float((found == graph.y).double().mean()) - 1) for found in (labels, clusters)])
    signs, k_means = np.mean(overlaps, axis=0)
    assert signs > k_means


@pytest.mark.parametrize(("a", "b"), [(0.0, 18.0), (22.0, 4.0)])
def test_the_graph_says_whether_its_communities_avoid_themselves(a: float, b: float) -> None:
    graph = planted(500, a / 500, b / 500, 3, seed=0)
    assert torch.equal(BetheHessian().fit_predict(graph, 3), BetheHessian(a < b).fit_predict(graph, 3))


@pytest.mark.parametrize("method", METHODS)
def test_any_kind_of_graph_is_taken(method: type) -> None:
    graph = planted(60, 0.5, 0.05, 2, seed=0)
    labels = method().fit_predict(graph, 2)
    shuffled = Data(edge_index=graph.edge_index[:, torch.randperm(graph.num_edges)], num_nodes=60)
    network = networkx.Graph()
    network.add_nodes_from(range(60))
    network.add_edges_from(graph.edge_index.T.tolist())
    for same in (shuffled, network, adjacency_matrix(graph), adjacency_matrix(graph).tocoo()):
        assert torch.equal(method().fit_predict(same, 2), labels)
