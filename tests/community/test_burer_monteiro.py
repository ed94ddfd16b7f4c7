"""The semidefinite relaxation: its optimality certificate, planted communities and graphs that tell nothing."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from lightning_landscape.community import BurerMonteiro, community_graph, stochastic_block_model
from lightning_landscape.community.adjacency import adjacency_matrix


def same_partition(labels: Tensor, truth: Tensor) -> bool:
    return torch.equal(labels[:, None] == labels, truth[:, None] == truth)


def planted(num_nodes: int, inside: float, outside: float, k: int = 2, seed: int = 0) -> Data:
    connectivity = torch.full((k, k), outside).fill_diagonal_(inside)
    return stochastic_block_model(num_nodes, connectivity, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("disassortative", [False, True])
def test_factor_is_certified_by_duality(disassortative: bool) -> None:
    adjacency = adjacency_matrix(planted(80, 0.08, 0.04))
    method = BurerMonteiro(disassortative, tol=1e-7, max_iterations=5000)
    factor = method.factor(adjacency)
    assert factor.shape == (80, 32)
    np.testing.assert_allclose(np.linalg.norm(factor, axis=1), 1, rtol=1e-12)
    matrix = method.product(adjacency, np.eye(80))
    multipliers = ((matrix @ factor) * factor).sum(axis=1)
    # At the optimum diag(multipliers) - M is semidefinite, and no feasible X has more than their sum, which is <M, X>.
    slack = np.linalg.eigvalsh(np.diag(multipliers) - matrix)[0]
    assert -1e-5 < slack < 1e-5


def test_matrix_of_the_objective() -> None:
    adjacency = adjacency_matrix(planted(20, 0.3, 0.3))
    dense = adjacency.toarray()
    np.testing.assert_allclose(BurerMonteiro().product(adjacency, np.eye(20)), dense - dense.mean(), atol=1e-15)
    np.testing.assert_array_equal(BurerMonteiro(disassortative=True).product(adjacency, np.eye(20)), -dense)


def test_five_cycle_has_the_known_maximum_cut_bound() -> None:
    cycle = community_graph(torch.stack([torch.arange(5), (torch.arange(5) + 1) % 5]), num_nodes=5)
    adjacency = adjacency_matrix(cycle)
    factor = BurerMonteiro(disassortative=True, tol=1e-9).factor(adjacency)
    # Neighbours at 4 pi / 5 from each other (Goemans & Williamson 1995): cos(4 pi / 5) on each edge.
    np.testing.assert_allclose((factor @ factor.T)[adjacency.nonzero()], np.cos(4 * np.pi / 5), rtol=1e-6)


@pytest.mark.parametrize("k", [2, 3])
def test_planted_communities_are_found(k: int) -> None:
    assortative, disassortative = planted(50 * k, 0.4, 0.02, k), planted(50 * k, 0.0, 0.4, k)
    labels = BurerMonteiro().fit_predict(assortative, k)
    assert labels.dtype == torch.int64
    assert same_partition(labels, assortative.y)
    assert same_partition(BurerMonteiro(disassortative=True).fit_predict(disassortative, k), disassortative.y)


def test_disjoint_cliques_are_found() -> None:
    truth = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2])
    graph = community_graph((truth[:, None] == truth).nonzero().T, 12, truth)
    assert same_partition(BurerMonteiro().fit_predict(graph, 3), truth)


def test_sparse_communities_are_found() -> None:
    graph = planted(1000, 5.4980e-3, 0.5020e-3)  # SNR 2.08 at average degree 3
    same = (BurerMonteiro().fit_predict(graph, 2) == graph.y).double().mean()
    assert abs(2 * float(same) - 1) > 0.7


def test_results_repeat_and_leave_global_random_states_alone() -> None:
    graph = planted(100, 0.1, 0.02)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert torch.equal(BurerMonteiro(seed=1).fit_predict(graph, 2), BurerMonteiro(seed=1).fit_predict(graph, 2))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002


def test_stopping_early_is_said() -> None:
    adjacency = adjacency_matrix(planted(100, 0.1, 0.02))
    with pytest.warns(RuntimeWarning, match="after 2 iterations, above tol=0.0001: raise max_iterations"):
        BurerMonteiro(max_iterations=2).factor(adjacency)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BurerMonteiro().factor(adjacency)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_defined_on_poor_graphs() -> None:
    lone_edge = community_graph(torch.tensor([[0], [1]]), num_nodes=2)
    edge_among_isolated = community_graph(torch.tensor([[2], [5]]), num_nodes=9)
    for graph, k in ((lone_edge, 2), (edge_among_isolated, 3), (edge_among_isolated, 9)):
        for disassortative in (False, True):
            labels = BurerMonteiro(disassortative).fit_predict(graph, k)
            assert labels.shape == (graph.num_nodes,)
            assert labels.max() < k


def test_bad_input_is_refused() -> None:
    pair = community_graph(torch.tensor([[0], [1]]), num_nodes=3)
    with pytest.raises(ValueError, match="num_communities must be an integer from 2"):
        BurerMonteiro().fit_predict(pair, 4)
    with pytest.raises(ValueError, match="has no edges"):
        BurerMonteiro().fit_predict(community_graph(torch.empty(2, 0, dtype=torch.int64), num_nodes=5), 2)
    with pytest.raises(ValueError, match="3 communities need a rank of 2, got 1"):
        BurerMonteiro(rank=1).fit_predict(pair, 3)
    for name, value in (("rank", 0), ("tol", 0.0), ("tol", float("nan")), ("max_iterations", 0)):
        with pytest.raises(ValueError, match=name):
            BurerMonteiro(**{name: value})
