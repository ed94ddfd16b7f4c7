"""The law of the sampler of block models."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from lightning_landscape.community import stochastic_block_model
from lightning_landscape.community.sbm import distinct_integers


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_graph_of_four_nodes_has_its_probability() -> None:
    labels = torch.tensor([0, 1, 0, 1])
    connectivity = torch.tensor([[0.7, 0.2], [0.2, 0.4]])
    pairs = list(combinations(range(4), 2))
    rates = np.array([connectivity[labels[i], labels[j]] for i, j in pairs], dtype=float)
    present = (np.arange(64)[:, None] >> np.arange(6)) & 1
    expected = np.where(present, rates, 1 - rates).prod(axis=1)
    draws, generator = 1500, seeded(3)
    counts = np.zeros(64)
    for _ in range(draws):
        edge_index = stochastic_block_model(4, connectivity, labels, generator).edge_index
        adjacency = torch.zeros(4, 4, dtype=torch.int64)
        adjacency[edge_index[0], edge_index[1]] = 1
        counts[sum(int(adjacency[i, j]) << place for place, (i, j) in enumerate(pairs))] += 1
    assert stats.chisquare(counts, draws * expected).pvalue > 1e-3


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8])
def test_probability_one_gives_every_pair_once(size: int) -> None:
    graph = stochastic_block_model(size, torch.ones(1, 1), generator=seeded())
    assert graph.num_edges == size * (size - 1)


def test_a_bipartite_complete_graph() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1])
    graph = stochastic_block_model(5, torch.tensor([[0.0, 1.0], [1.0, 0.0]]), labels, seeded())
    assert graph.num_edges == 2 * 2 * 3
    assert (labels[graph.edge_index[0]] != labels[graph.edge_index[1]]).all()


def test_edges_between_blocks_follow_the_connectivity() -> None:
    n, k = 3000, 3
    rates = torch.tensor([[8.0, 1.0, 3.0], [1.0, 5.0, 0.0], [3.0, 0.0, 2.0]]) / n
    graph = stochastic_block_model(n, rates, generator=seeded(1))
    blocks = graph.y[graph.edge_index]
    found = torch.zeros(k, k).index_put_((blocks[0], blocks[1]), torch.ones(graph.num_edges), accumulate=True)
    expected = rates * (n / k) ** 2
    assert ((found - expected).abs() <= 4 * (2 * expected).sqrt() + 1e-9).all()
    degrees = graph.edge_index[0].bincount(minlength=n)[graph.y == 0].double()
    assert degrees.mean() == pytest.approx(4, abs=0.3)
    assert degrees.var() == pytest.approx(4, abs=0.6)  # Poisson


def test_balanced_communities_in_random_order() -> None:
    graph = stochastic_block_model(11, torch.zeros(3, 3), generator=seeded())
    assert sorted(graph.y.bincount().tolist()) == [3, 4, 4]
    assert graph.y.tolist() != sorted(graph.y.tolist())
    assert graph.num_edges == 0


def test_more_communities_than_nodes_and_empty_ones() -> None:
    assert stochastic_block_model(2, torch.ones(4, 4), generator=seeded()).num_edges == 2
    labels = torch.tensor([2, 2, 2])
    graph = stochastic_block_model(3, torch.ones(3, 3), labels, seeded())
    assert graph.num_edges == 6
    assert torch.equal(graph.y, labels)
    assert stochastic_block_model(0, torch.ones(2, 2), generator=seeded()).num_nodes == 0


def test_a_million_nodes_take_no_array_of_pairs() -> None:
    n = 10**6
    graph = stochastic_block_model(n, torch.tensor([[1.5, 0.5], [0.5, 1.5]]) / n, generator=seeded())
    assert graph.num_edges / n == pytest.approx(1, abs=0.01)


def test_seeds_decide_and_the_global_state_stays() -> None:
    state = torch.get_rng_state()
    first, same, other = (
        stochastic_block_model(50, torch.full((2, 2), 0.1), generator=seeded(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.edge_index, same.edge_index)
    assert torch.equal(first.y, same.y)
    assert first.edge_index.shape != other.edge_index.shape or not torch.equal(first.edge_index, other.edge_index)
    torch.manual_seed(5)
    anew = stochastic_block_model(50, torch.full((2, 2), 0.1))
    torch.manual_seed(5)
    assert torch.equal(anew.edge_index, stochastic_block_model(50, torch.full((2, 2), 0.1)).edge_index)


@pytest.mark.parametrize(("size", "count"), [(5, 0), (5, 1), (5, 2), (9, 2), (40, 3)])
def test_all_sets_of_integers_are_equally_likely(size: int, count: int) -> None:
    generator, draws = seeded(), 3000
    sets = [tuple(sorted(distinct_integers(size, count, generator).tolist())) for _ in range(draws)]
    assert {len(set(drawn)) for drawn in sets} == {count}
    frequency = np.bincount([number for drawn in sets for number in drawn], minlength=size)
    if count:
        assert stats.chisquare(frequency).pvalue > 1e-3
    if count == 2:
        joint = [sets.count(pair) for pair in combinations(range(size), 2)]
        assert stats.chisquare(joint).pvalue > 1e-3


def test_degree_correction_gives_poisson_edges() -> None:
    weights = torch.tensor([3.0, 0.0, 0.5, 1.0])
    labels = torch.tensor([0, 0, 0, 1])
    connectivity = torch.tensor([[0.5, 0.3], [0.3, 0.9]])
    draws, generator = 1000, seeded(2)
    found = torch.zeros(4, 4, dtype=torch.float64)
    for _ in range(draws):
        source, target = stochastic_block_model(4, connectivity, labels, generator, weights).edge_index
        found[source, target] += 1
    rates = weights[:, None] * weights * connectivity[labels][:, labels]
    expected = (1 - torch.exp(-rates.double())).fill_diagonal_(0)
    assert ((found / draws - expected).abs() <= 4 * (expected * (1 - expected) / draws).sqrt()).all()


def test_degrees_are_proportional_to_their_weights() -> None:
    n = 4000
    weights = torch.where(torch.arange(n) % 2 == 0, 1.6, 0.4)
    graph = stochastic_block_model(n, torch.tensor([[8.0, 2.0], [2.0, 8.0]]) / n, None, seeded(), weights)
    degrees = graph.edge_index[0].bincount(minlength=n).double()
    assert degrees[::2].mean() == pytest.approx(1.6 * 5, rel=0.04)
    assert degrees[1::2].mean() == pytest.approx(0.4 * 5, rel=0.06)
    assert graph.num_edges == len(graph.edge_index.unique(dim=1)[0])


def test_communities_without_weight_have_no_edges() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    graph = stochastic_block_model(4, torch.full((3, 3), 50.0), labels, seeded(), torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert graph.edge_index.tolist() == [[2, 3], [3, 2]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"connectivity": torch.ones(2, 3)}, r"matrix \(k, k\), got shape \(2, 3\)"),
        ({"connectivity": torch.ones(0, 0)}, "matrix"),
        ({"connectivity": torch.tensor(0.5)}, "matrix"),
        ({"connectivity": torch.tensor([[0.1, 0.2], [0.3, 0.1]])}, "symmetric"),
        ({"connectivity": torch.full((2, 2), torch.nan)}, "without NaN"),
        ({"connectivity": torch.full((2, 2), 1.5)}, "from 0 to 1"),
        ({"connectivity": torch.full((2, 2), -0.1)}, "from 0 to 1"),
        ({"num_nodes": -1}, "num_nodes must be an integer from 0"),
        ({"num_nodes": True}, "num_nodes must be an integer from 0"),
        ({"labels": torch.tensor([0, 1])}, r"labels must be integers of shape \(4,\)"),
        ({"labels": torch.zeros(4)}, "labels must be integers"),
        ({"labels": torch.tensor([0, 1, 2, 0])}, "from 0 to k - 1 = 1, .* got 0 to 2"),
        ({"labels": torch.tensor([0, 1, -1, 0])}, "got -1 to 1"),
        ({"degree_weights": torch.ones(3)}, r"degree_weights must be .* shape \(4,\)"),
        ({"degree_weights": -torch.ones(4)}, "at least 0"),
        ({"degree_weights": torch.full((4,), torch.nan)}, "finite"),
        ({"degree_weights": torch.ones(4), "connectivity": torch.full((2, 2), torch.inf)}, "connectivity must hold"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stochastic_block_model(**{"num_nodes": 4, "connectivity": torch.full((2, 2), 0.5), **arguments})
