"""The affiliation graph model: planted memberships, closed forms of its likelihood, and degenerate graphs."""

from __future__ import annotations

import math

import networkx
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from lightning_landscape.community import AffiliationGraphFit, CommunityGraph, community_graph
from lightning_landscape.community.affiliation import Affiliation


def planted(memberships: Tensor, probabilities: Tensor, background: float, seed: int) -> CommunityGraph:
    """A graph drawn from the model, pair by pair."""
    count = len(memberships)
    shared = (memberships[:, None] & memberships[None]).double()
    missing = (1 - background) * (1 - probabilities * shared).prod(-1)
    drawn = torch.rand(count, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) > missing
    return community_graph(drawn.triu(1).nonzero().T, count)


def likelihood(graph: CommunityGraph, fit: Affiliation) -> float:
    """Straight from the definition, with all pairs."""
    shared = (fit.memberships[:, None] & fit.memberships[None]).double()
    p = 1 - (1 - fit.background) * (1 - fit.probabilities * shared).prod(-1)
    edge = torch.zeros_like(p, dtype=torch.bool)
    edge[graph.edge_index[0], graph.edge_index[1]] = True
    return torch.where(edge, p.log(), (1 - p).log()).triu(1).sum().item()


def clique_edges(nodes: range) -> list[tuple[int, int]]:
    return [(i, j) for i in nodes for j in nodes if i < j]


@pytest.mark.parametrize("seed", range(3))
def test_planted_memberships_and_probabilities_are_recovered(seed: int) -> None:
    memberships = torch.zeros(80, 2, dtype=torch.bool)
    memberships[:48, 0] = memberships[40:, 1] = True  # 8 nodes in both
    truth = torch.tensor([0.4, 0.5], dtype=torch.float64)
    graph = planted(memberships, truth, 0.02, seed)
    fit = AffiliationGraphFit(restarts=5).fit(graph)
    order = [0, 1] if (fit.memberships == memberships).float().mean() > 0.5 else [1, 0]
    assert (fit.memberships[:, order] == memberships).float().mean() > 0.97
    torch.testing.assert_close(fit.probabilities[order], truth, rtol=0, atol=0.05)
    assert abs(fit.background - 0.02) < 0.01
    alone = memberships.sum(1) == 1
    labels = torch.tensor(order)[fit.labels] if order == [0, 1] else 1 - fit.labels
    assert (labels[alone] == memberships[alone, 1].long()).float().mean() > 0.97


@pytest.mark.parametrize("communities", [1, 2, 3])
def test_the_likelihood_is_that_of_the_definition_and_never_falls(communities: int) -> None:
    memberships = torch.rand(30, 2, generator=torch.Generator().manual_seed(1)) < 0.6
    graph = planted(memberships, torch.tensor([0.5, 0.4], dtype=torch.float64), 0.05, seed=4)
    fit = AffiliationGraphFit(restarts=3).fit(graph, communities)
    assert fit.memberships.shape == (30, communities)
    assert math.isclose(fit.log_likelihood, likelihood(graph, fit), rel_tol=1e-9)
    assert len(fit.history) > 1
    assert all(later >= earlier for earlier, later in zip(fit.history, fit.history[1:], strict=False))
    assert fit.history[-1] == fit.log_likelihood


def test_no_change_of_one_node_and_no_other_probability_is_likelier() -> None:
    memberships = torch.zeros(24, 2, dtype=torch.bool)
    memberships[:13, 0] = memberships[11:, 1] = True
    graph = planted(memberships, torch.tensor([0.6, 0.5], dtype=torch.float64), 0.05, seed=2)
    fit = AffiliationGraphFit(restarts=2).fit(graph)
    for node in range(24):
        for types in ([False, False], [True, False], [False, True], [True, True]):
            other = fit.memberships.clone()
            other[node] = torch.tensor(types)
            changed = Affiliation(other, fit.probabilities, fit.background, 0.0, [], fit.labels)
            assert likelihood(graph, changed) <= fit.log_likelihood + 1e-6
    for shift in (0.99, 1.01):
        for probabilities, background in (
            (fit.probabilities * torch.tensor([shift, 1.0]), fit.background),
            (fit.probabilities * torch.tensor([1.0, shift]), fit.background),
            (fit.probabilities, fit.background * shift),
        ):
            changed = Affiliation(fit.memberships, probabilities, background, 0.0, [], fit.labels)
            assert likelihood(graph, changed) < fit.log_likelihood


def test_two_cliques_fit_with_the_largest_probabilities() -> None:
    graph = community_graph(torch.tensor(clique_edges(range(5)) + clique_edges(range(5, 12))).T, 12)
    fit = AffiliationGraphFit().fit(graph)
    cap = 1 - 1 / 12**2
    torch.testing.assert_close(fit.probabilities, torch.full((2,), cap, dtype=torch.float64), rtol=1e-3, atol=0)
    assert math.isclose(fit.background, 1 / 12**2, rel_tol=1e-3)
    assert AffiliationGraphFit().fit_predict(graph).tolist() == [0] * 5 + [1] * 7


@pytest.mark.parametrize(
    ("edges", "count"),
    [([(0, 1)], 2), ([(0, 1)], 4), (clique_edges(range(6)), 6), ([(0, i) for i in range(1, 8)], 8)],
    ids=["one edge", "isolated nodes", "complete", "star"],
)
def test_degenerate_graphs_have_a_finite_fit(edges: list[tuple[int, int]], count: int) -> None:
    graph = community_graph(torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T, count)
    fit = AffiliationGraphFit(restarts=2).fit(graph)
    assert math.isfinite(fit.log_likelihood)
    assert fit.log_likelihood <= 0
    labels = AffiliationGraphFit(restarts=2).fit_predict(graph)
    assert labels.dtype == torch.int64
    assert labels.shape == (count,)
    assert set(labels.tolist()) <= {0, 1}
    assert labels[0] == 0  # numbered as they occur


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("communities", [1, 2, 3])
def test_a_graph_without_edges_has_no_communities(count: int, communities: int) -> None:
    graph = community_graph(torch.empty(2, 0, dtype=torch.int64), count)
    reason = "has no edges" if communities <= count else f"at most the number of nodes, {count}, got {communities}"
    for ask in (AffiliationGraphFit().fit, AffiliationGraphFit().fit_predict):
        with pytest.raises(ValueError, match=reason):
            ask(graph, communities)


def test_nodes_without_edges_and_a_complete_graph() -> None:
    triangle = community_graph(torch.tensor(clique_edges(range(3))).T, 6)
    assert AffiliationGraphFit().fit_predict(triangle).tolist() == [0, 0, 0, 1, 1, 1]
    complete = community_graph(torch.tensor(clique_edges(range(6))).T, 6)
    assert AffiliationGraphFit().fit_predict(complete).tolist() == [0] * 6


def test_the_fit_depends_on_its_own_seed_alone() -> None:
    memberships = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) < 0.5
    graph = planted(memberships, torch.tensor([0.3, 0.3], dtype=torch.float64), 0.1, seed=0)
    before = torch.get_rng_state()
    first = AffiliationGraphFit(restarts=1, seed=3).fit(graph)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    again = AffiliationGraphFit(restarts=1, seed=3).fit(graph)
    assert again.history == first.history
    assert torch.equal(again.memberships, first.memberships)
    best = AffiliationGraphFit(restarts=8, seed=3).fit(graph)
    assert best.log_likelihood >= first.log_likelihood


def test_bad_arguments_are_refused() -> None:
    for arguments in ({"restarts": 0}, {"max_rounds": 0}, {"seed": -1}, {"restarts": True}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            AffiliationGraphFit(**arguments)
    graph = community_graph(torch.tensor([[0], [1]]), 2)
    for communities in (0, 7, True):
        with pytest.raises(ValueError, match="num_communities must be from 1 to 6"):
            AffiliationGraphFit().fit(graph, communities)
    with pytest.raises(ValueError, match="no nodes"):
        AffiliationGraphFit().fit(community_graph(torch.empty(2, 0, dtype=torch.int64), 0))
    with pytest.raises(ValueError, match="both directions"):
        AffiliationGraphFit().fit(Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2))


def test_takes_graphs_of_any_kind_with_edges_in_any_order() -> None:
    club = networkx.karate_club_graph()
    matrix = networkx.to_scipy_sparse_array(club, weight=None)
    edges = torch.tensor([*club.edges, *((b, a) for a, b in club.edges)]).T
    shuffled = Data(edge_index=edges[:, torch.randperm(edges.shape[1])], num_nodes=34)
    labels = [AffiliationGraphFit(restarts=2).fit_predict(graph, 2) for graph in (club, matrix, shuffled)]
    assert torch.equal(labels[0], labels[1])
    assert torch.equal(labels[0], labels[2])
    with pytest.raises(ValueError, match="both directions of an edge"):
        AffiliationGraphFit().fit(club.to_directed(), 2)
    with pytest.raises(TypeError, match="a graph must be a Data"):
        AffiliationGraphFit().fit(edges, 2)
