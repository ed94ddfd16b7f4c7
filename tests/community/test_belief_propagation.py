"""Belief propagation against enumeration on trees, closed forms and planted communities."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from lightning_landscape.community import BeliefPropagation, CommunityGraph, community_graph, stochastic_block_model
from lightning_landscape.community.bethe import BetheModel, MessageGraph


def same_partition(labels: Tensor, truth: Tensor) -> bool:
    return torch.equal(labels[:, None] == labels, truth[:, None] == truth)


def groups(inside: float, outside: float, k: int = 2) -> Tensor:
    return torch.full((k, k), outside, dtype=torch.float64).fill_diagonal_(inside)


def planted(num_nodes: int, connectivity: Tensor, seed: int = 0, labels: Tensor | None = None) -> Data:
    return stochastic_block_model(num_nodes, connectivity, labels, torch.Generator().manual_seed(seed))


def messages_of(graph: CommunityGraph) -> MessageGraph:
    return MessageGraph(graph.edge_index, graph.rev_edge, graph.num_nodes)


FOREST = community_graph(torch.tensor([[0, 1, 1, 3, 3, 6], [1, 2, 3, 4, 5, 7]]), num_nodes=9)


def forest_model(k: int, runs: int) -> BetheModel:
    """Random weights and affinities on a tree of six nodes, an edge and an isolated node."""
    generator = torch.Generator().manual_seed(k)
    log_weights = torch.randn(9, runs, k, generator=generator, dtype=torch.float64)
    affinity = torch.rand(runs, k, k, generator=generator, dtype=torch.float64) ** 3
    return BetheModel(messages_of(FOREST), log_weights, affinity + affinity.mT)


def propagated(model: BetheModel, sweeps: int) -> Tensor:
    runs, k = model.log_weights.shape[1:]
    messages = torch.rand(model.graph.num_edges, runs, k, dtype=torch.float64)
    messages /= messages.sum(dim=2, keepdim=True)
    for _ in range(sweeps):
        evidence = model.evidence(messages)
        messages = model.updated(evidence, model.node_scores(evidence))
    return messages


def enumerated(model: BetheModel, run: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Marginals (n, k), sums over directed edges of joint probabilities (k, k), and log Z, by all states."""
    n, _, k = model.log_weights.shape
    states = np.array(list(itertools.product(range(k), repeat=n)))
    edges = FOREST.edge_index.numpy()
    weights = model.log_weights[:, run].numpy()[np.arange(n), states].sum(axis=1)
    for i, j in edges.T:
        weights = weights + np.log(model.affinity[run].numpy()[states[:, i], states[:, j]]) / 2
    total = np.exp(weights).sum()
    shares = np.exp(weights) / total
    marginals = np.array([[shares[states[:, i] == a].sum() for a in range(k)] for i in range(n)])
    joint = np.zeros((k, k))
    for i, j in edges.T:
        np.add.at(joint, (states[:, i], states[:, j]), shares)
    return marginals, joint, float(np.log(total))


@pytest.mark.parametrize("k", [2, 3])
def test_exact_on_forests(k: int) -> None:
    model = forest_model(k, runs=2)
    messages = propagated(model, sweeps=6)
    marginals = model.node_scores(model.evidence(messages)).softmax(dim=2)
    pairs, energies = model.edge_marginals(messages), model.free_energy(messages)
    for run in range(2):
        exact, joint, log_partition = enumerated(model, run)
        np.testing.assert_allclose(marginals[:, run], exact, rtol=1e-12)
        np.testing.assert_allclose(pairs[run], joint, rtol=1e-12)
        assert float(energies[run]) == pytest.approx(-log_partition, rel=1e-12)


def test_impossible_pairs_are_excluded() -> None:
    model = forest_model(2, runs=1)
    hard = BetheModel(model.graph, model.log_weights, groups(0.0, 1.0)[None])
    messages = propagated(hard, sweeps=6)
    assert messages.isfinite().all()
    with np.errstate(divide="ignore"):
        exact, _, log_partition = enumerated(hard, 0)
    marginals = hard.node_scores(hard.evidence(messages)).softmax(dim=2)[:, 0]
    np.testing.assert_allclose(marginals, exact, atol=1e-12)
    assert float(hard.free_energy(messages)) == pytest.approx(-log_partition, rel=1e-12)


def test_free_energy_is_stationary_in_the_messages() -> None:
    square = community_graph(torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]]), num_nodes=4)
    weights = torch.tensor([[[0.3, -0.2]]], dtype=torch.float64)
    model = BetheModel(messages_of(square), weights, groups(2.0, 0.7)[None])
    fixed = propagated(model, sweeps=300).requires_grad_()
    (gradient,) = torch.autograd.grad(model.free_energy(fixed), fixed)
    # Messages are normalised: only what changes their proportions counts.
    assert (gradient - (gradient * fixed).sum(dim=2, keepdim=True)).abs().max() < 1e-12
    elsewhere = propagated(model, sweeps=0).requires_grad_()
    (gradient,) = torch.autograd.grad(model.free_energy(elsewhere), elsewhere)
    assert (gradient - (gradient * elsewhere).sum(dim=2, keepdim=True)).abs().max() > 1e-3


def test_without_structure_it_is_a_random_graph() -> None:
    graph = planted(200, groups(0.02, 0.02, 3))
    method = BeliefPropagation(groups(0.02, 0.02, 3))
    method.fit_predict(graph, 3)
    np.testing.assert_allclose(method.marginals_, 1 / 3, rtol=1e-12)
    # The log of p^m exp(-p n^2 / 2), per node, where p = c / n.
    c, edges = 0.02 * 200, graph.num_edges / 2
    assert method.free_energy_ == pytest.approx(c / 2 - edges / 200 * np.log(c), rel=1e-12)
    assert method.converged_


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("inside", "outside"), [(0.3, 0.01), (0.0, 0.25)])
def test_planted_communities_are_found(k: int, known: bool, inside: float, outside: float) -> None:
    connectivity = groups(inside, outside, k)
    graph = planted(60 * k, connectivity)
    method = BeliefPropagation(connectivity if known else None)
    labels = method.fit_predict(graph, k)
    assert labels.dtype == torch.int64
    assert same_partition(labels, graph.y)
    assert method.converged_
    np.testing.assert_allclose(method.marginals_.sum(dim=1), 1, rtol=1e-12)


@pytest.mark.parametrize("damping", [0.0, 0.5, 0.8])
def test_damping_changes_the_way_and_not_the_end(damping: float) -> None:
    connectivity = groups(0.3, 0.01)
    graph = planted(120, connectivity)
    method, reference = BeliefPropagation(connectivity, damping=damping), BeliefPropagation(connectivity)
    assert same_partition(method.fit_predict(graph, 2), reference.fit_predict(graph, 2))
    assert method.converged_
    assert method.free_energy_ == pytest.approx(reference.free_energy_, rel=1e-6)


def test_learned_parameters_are_those_of_the_graph() -> None:
    truth = torch.repeat_interleave(torch.arange(2), torch.tensor([200, 100]))
    graph = planted(300, torch.tensor([[0.2, 0.02], [0.02, 0.3]]), labels=truth)
    method = BeliefPropagation()
    assert same_partition(method.fit_predict(graph, 2), truth)
    assert torch.equal(method.connectivity_, method.connectivity_.T)
    order = method.fractions_.argsort(descending=True)
    np.testing.assert_allclose(method.fractions_[order], [2 / 3, 1 / 3], atol=1e-6)
    members = torch.nn.functional.one_hot(truth).double()
    source, target = graph.edge_index
    density = members[source].T @ members[target] / torch.outer(members.sum(0), members.sum(0))
    np.testing.assert_allclose(method.connectivity_[order][:, order], density, rtol=1e-4)


def test_given_fractions_are_kept() -> None:
    truth = torch.repeat_interleave(torch.arange(2), torch.tensor([150, 50]))
    graph = planted(200, groups(0.3, 0.05), labels=truth)
    fractions = torch.tensor([0.75, 0.25])
    for method in (BeliefPropagation(groups(0.3, 0.05), fractions), BeliefPropagation(fractions=fractions)):
        assert torch.equal(method.fit_predict(graph, 2), truth)
        np.testing.assert_allclose(method.fractions_, [0.75, 0.25], rtol=1e-12)


def test_lowest_free_energy_wins() -> None:
    connectivity = groups(0.0, 0.12, 4)
    graph = planted(160, connectivity, seed=1)
    alone = [BeliefPropagation(connectivity, num_restarts=1, seed=seed) for seed in range(3)]
    together = BeliefPropagation(connectivity, num_restarts=6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        together.fit_predict(graph, 4)
        for method in alone:
            method.fit_predict(graph, 4)
    # The first of the six starts is not that of seed 0 alone, but all fall into the same few fixed points.
    assert together.free_energy_ <= min(method.free_energy_ for method in alone) + 1e-6


def test_learning_has_lower_free_energy_than_wrong_parameters() -> None:
    graph = planted(200, groups(0.2, 0.02))
    right, wrong, learned = (BeliefPropagation(p) for p in (groups(0.2, 0.02), groups(0.15, 0.08), None))
    for method in (right, wrong, learned):
        method.fit_predict(graph, 2)
    assert learned.free_energy_ <= right.free_energy_ + 1e-9
    assert right.free_energy_ < wrong.free_energy_


def test_degree_three_with_known_parameters_is_near_the_published_overlap() -> None:
    connectivity = groups(5.4980e-3, 0.5020e-3)  # SNR 2.08
    graph = planted(1000, connectivity)
    same = (BeliefPropagation(connectivity).fit_predict(graph, 2) == graph.y).double().mean()
    assert abs(2 * float(same) - 1) > 0.75


def test_results_repeat_and_leave_the_global_random_state_alone() -> None:
    graph = planted(150, groups(0.06, 0.02))
    state = torch.get_rng_state()
    first, second = BeliefPropagation(seed=5, max_sweeps=100), BeliefPropagation(seed=5, max_sweeps=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert torch.equal(first.fit_predict(graph, 2), second.fit_predict(graph, 2))
    assert torch.equal(first.marginals_, second.marginals_)
    assert torch.equal(torch.get_rng_state(), state)


def test_stopping_early_is_said() -> None:
    graph = planted(150, groups(0.06, 0.02))
    method = BeliefPropagation(groups(0.06, 0.02), max_sweeps=3)
    with pytest.warns(RuntimeWarning, match="has not converged to tol=1e-05 in 3 sweeps"):
        method.fit_predict(graph, 2)
    assert not method.converged_
    assert method.num_sweeps_ == 3


@pytest.mark.filterwarnings("ignore:belief propagation has not converged")
def test_defined_on_poor_graphs() -> None:
    lone_edge = community_graph(torch.tensor([[0], [1]]), num_nodes=2)
    edge_among_isolated = community_graph(torch.tensor([[2], [5]]), num_nodes=9)
    star = community_graph(torch.stack([torch.zeros(30, dtype=torch.int64), torch.arange(1, 31)]), num_nodes=31)
    for graph, k in ((lone_edge, 2), (edge_among_isolated, 3), (star, 5)):
        method = BeliefPropagation(max_sweeps=100)
        labels = method.fit_predict(graph, k)
        assert labels.shape == (graph.num_nodes,)
        assert method.marginals_.isfinite().all()
        assert np.isfinite(method.free_energy_)


def test_isolated_nodes_keep_their_prior() -> None:
    graph = community_graph(torch.tensor([[0], [1]]), num_nodes=3)
    fractions = torch.tensor([0.7, 0.3], dtype=torch.float64)
    flat = groups(0.5, 0.5)
    method = BeliefPropagation(flat, fractions)
    assert method.fit_predict(graph, 2).tolist() == [0, 0, 0]
    np.testing.assert_allclose(method.marginals_[2], fractions, rtol=1e-12)


def test_bad_input_is_refused() -> None:
    pair = community_graph(torch.tensor([[0], [1]]), num_nodes=3)
    with pytest.raises(ValueError, match="num_communities must be an integer from 2"):
        BeliefPropagation().fit_predict(pair, 4)
    with pytest.raises(ValueError, match="has no edges"):
        BeliefPropagation().fit_predict(community_graph(torch.empty(2, 0, dtype=torch.int64), num_nodes=5), 2)
    with pytest.raises(ValueError, match="both directions"):
        BeliefPropagation().fit_predict(Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3), 2)
    with pytest.raises(ValueError, match="connectivity is for 2 communities, num_communities is 3"):
        BeliefPropagation(groups(0.5, 0.1)).fit_predict(pair, 3)
    with pytest.raises(ValueError, match="fractions is for 2 communities"):
        BeliefPropagation(fractions=torch.tensor([0.5, 0.5])).fit_predict(pair, 3)


@pytest.mark.parametrize(
    "rows",
    [
        [0.1, 0.1],
        [[0.1, 0.2]],
        [[0.1, 0.2], [0.3, 0.1]],
        [[float("nan")]],
        [[0.0]],
        [[1.5]],
        [[0.5, -0.1], [-0.1, 0.5]],
    ],
)
def test_bad_connectivity_is_refused(rows: list[list[float]]) -> None:
    connectivity = torch.tensor(rows)
    with pytest.raises(ValueError, match="connectivity must"):
        BeliefPropagation(connectivity)


@pytest.mark.parametrize("fractions", [[0.5, 0.6], [1.0, 0.0], [[0.5, 0.5]], [float("nan"), 0.5], [1.5, -0.5]])
def test_bad_fractions_are_refused(fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="fractions must be positive"):
        BeliefPropagation(fractions=torch.tensor(fractions))


@pytest.mark.parametrize(
    ("name", "value"),
    [("damping", 1.0), ("damping", -0.1), ("tol", 0.0), ("max_sweeps", 0), ("num_restarts", 0)],
)
def test_bad_settings_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        BeliefPropagation(**{name: value})
