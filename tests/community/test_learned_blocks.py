"""Belief propagation that learns its parameters, corrects for degrees, and says where it finds nothing."""

from __future__ import annotations

import warnings

import networkx
import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from lightning_landscape.community import BeliefPropagation, stochastic_block_model
from lightning_landscape.community.restarts import Restarts


def groups(inside: float, outside: float, k: int = 2) -> Tensor:
    return torch.full((k, k), outside, dtype=torch.float64).fill_diagonal_(inside)


def planted(num_nodes: int, connectivity: Tensor) -> Data:
    return stochastic_block_model(num_nodes, connectivity, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("restarts", [1, 4])
@pytest.mark.parametrize(("a", "b"), [(38.0, 2.0), (2.0, 38.0), (16.0, 4.0), (9.0, 1.0)])
def test_learned_rates_are_those_that_the_graph_was_drawn_from(a: float, b: float, restarts: int) -> None:
    graph = planted(2000, groups(a / 2000, b / 2000))
    method = BeliefPropagation(num_restarts=restarts, symmetric=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        method.fit_predict(graph, 2)
    if method.informative_:
        np.testing.assert_allclose(method.connectivity_ * 2000, groups(a, b), rtol=0.15, atol=0.2)
    else:
        # One restart looks for assortative communities alone.
        assert restarts == 1
        assert a < b
        np.testing.assert_allclose(method.connectivity_ * 2000, graph.num_edges / 2000, rtol=1e-9)


def test_below_the_threshold_nothing_is_found_and_said() -> None:
    connectivity = groups(3.6 / 2000, 2.4 / 2000)  # SNR 0.12
    method = BeliefPropagation(connectivity)
    with pytest.warns(RuntimeWarning, match="finds no communities"):
        method.fit_predict(planted(2000, connectivity), 2)
    assert not method.informative_
    assert method.converged_


def test_one_hopeless_restart_does_not_use_all_sweeps() -> None:
    graph = planted(1000, groups(9 / 1000, 1 / 1000))
    sweeps = []
    original = Restarts.sweep

    def counted(self: Restarts, damping: float) -> Tensor:
        sweeps.append(self.messages.shape[1])
        return original(self, damping)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        patch.setattr(Restarts, "sweep", counted)
        method = BeliefPropagation()
        method.fit_predict(graph, 2)
    assert method.informative_
    assert len(sweeps) < 1000
    assert sweeps[-1] < 4  # those that have converged rest


def test_karate_club_is_learned_with_its_degrees() -> None:
    club = networkx.karate_club_graph()
    truth = torch.tensor([int(club.nodes[node]["club"] == "Officer") for node in club])
    method = BeliefPropagation(degree_corrected=True)
    same = float((method.fit_predict(club, 2) == truth).double().mean())
    assert abs(2 * same - 1) >= 0.94 - 1e-2
    assert method.converged_


def test_degrees_hide_communities_unless_they_are_in_the_model() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.exp(torch.randn(1000, generator=generator, dtype=torch.float64))
    graph = stochastic_block_model(
        1000, groups(9e-3, 1e-3), generator=generator, degree_weights=weights / weights.mean()
    )
    found = []
    for corrected in (True, False):
        method = BeliefPropagation(degree_corrected=corrected)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            same = float((method.fit_predict(graph, 2) == graph.y).double().mean())
        found.append(abs(2 * same - 1))
    assert found[0] > 0.65
    assert found[1] < 0.3


def test_learning_begins_where_it_is_told_and_not_beside_given_parameters() -> None:
    graph = planted(400, groups(0.05, 0.01))
    first = BeliefPropagation(first_connectivity=groups(0.05, 0.01), num_restarts=1)
    first.fit_predict(graph, 2)
    assert first.informative_
    for learning in ({"symmetric": True}, {"first_connectivity": groups(0.1, 0.2)}):
        with pytest.raises(ValueError, match="nothing is learned"):
            BeliefPropagation(groups(0.1, 0.2), **learning)
    with pytest.raises(ValueError, match="first_connectivity is for 3 communities"):
        BeliefPropagation(first_connectivity=groups(0.1, 0.2, 3)).fit_predict(graph, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_rates_above_the_threshold_are_learned_within_five_per_cent(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    degree = 2.5 * 8 ** float(torch.rand(1, generator=generator))
    difference = (4 * 1.8 * degree) ** 0.5  # SNR 1.8
    a, b = degree + difference / 2, degree - difference / 2
    if seed % 2:
        a, b = b, a
    graph = stochastic_block_model(4000, groups(a / 4000, b / 4000), generator=generator)
    method = BeliefPropagation(symmetric=True)
    method.fit_predict(graph, 2)
    assert method.informative_
    assert method.connectivity_ is not None
    # Those of the graph that was drawn, which differ from a and b by chance.
    first, second = graph.y[graph.edge_index]
    sizes = torch.bincount(graph.y).double()
    pairs = torch.outer(sizes, sizes) - torch.diag(sizes)
    edges = torch.bincount(2 * first + second, minlength=4).reshape(2, 2)
    np.testing.assert_allclose(method.connectivity_ * 4000, edges / pairs * 4000, atol=0.05 * degree)
