"""Graphs from lists of edges, and the permutation that reverses edges."""

from __future__ import annotations

import pickle

import networkx
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from lightning_landscape.community import (
    CommunityGraph,
    as_community_graph,
    community_graph,
    reverse_edges,
    stochastic_block_model,
)


def edges(*pairs: tuple[int, int]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T


def test_a_directed_list_with_loops_and_repeats_becomes_simple() -> None:
    graph = community_graph(edges((2, 0), (0, 2), (2, 0), (1, 1), (3, 2)), num_nodes=5)
    assert graph.edge_index.tolist() == [[0, 2, 2, 3], [2, 0, 3, 2]]
    assert graph.num_nodes == 5  # 1 and 4 are isolated
    assert graph.is_undirected()
    assert not graph.has_self_loops()


def test_the_columns_are_sorted_and_reversed_by_rev_edge() -> None:
    generator = torch.Generator().manual_seed(1)
    graph = community_graph(torch.randint(40, (2, 200), generator=generator), num_nodes=40)
    keys = graph.edge_index[0] * 40 + graph.edge_index[1]
    assert (keys.diff() > 0).all()
    assert torch.equal(graph.edge_index[:, graph.rev_edge], graph.edge_index.flip(0))
    assert torch.equal(graph.rev_edge[graph.rev_edge], torch.arange(graph.num_edges))


@pytest.mark.parametrize("num_nodes", [0, 1, 4])
def test_no_edges(num_nodes: int) -> None:
    graph = community_graph(edges(), num_nodes, y=torch.zeros(num_nodes, dtype=torch.int32))
    assert graph.edge_index.shape == (2, 0)
    assert graph.rev_edge.shape == (0,)
    assert graph.y.dtype == torch.int64
    assert graph.num_nodes == num_nodes


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_any_integers(dtype: torch.dtype) -> None:
    assert community_graph(edges((0, 200), (200, 100)).to(dtype), 201).edge_index.tolist() == [
        [0, 100, 200, 200],
        [200, 200, 0, 100],
    ]


@pytest.mark.parametrize(
    ("edge_index", "num_nodes", "y", "message"),
    [
        (edges((0, 3)), 3, None, "nodes from 0 to num_nodes - 1 = 2, got 0 to 3"),
        (edges((-1, 2)), 3, None, "got -1 to 2"),
        (edges((0, 1)).T[0], 3, None, r"shape \(2, E\), got torch.int64 \(2,\)"),
        (edges((0, 1)).float(), 3, None, "edge_index must be integers"),
        (edges((0, 1)).bool(), 3, None, "edge_index must be integers"),
        (edges((0, 1)), -1, None, "num_nodes must be an integer from 0 .* got -1"),
        (edges((0, 1)), 2.0, None, "num_nodes must be an integer"),
        (edges((0, 1)), 2**31, None, "num_nodes must be an integer"),
        (edges((0, 1)), 3, torch.zeros(2, dtype=torch.int64), r"y must be integers of shape \(3,\)"),
        (edges((0, 1)), 3, torch.zeros(3), r"y must be integers of shape \(3,\).* got torch.float32"),
        (edges((0, 1)), 3, torch.tensor([0, -1, 1]), "communities from 0 on, got -1"),
    ],
)
def test_bad_input_is_named(edge_index: Tensor, num_nodes: int, y: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        community_graph(edge_index, num_nodes, y)


@pytest.mark.parametrize(
    ("edge_index", "message"),
    [
        (edges((0, 1), (1, 2)), "both directions"),  # directed
        (edges((0, 1), (1, 0), (1, 2)), "both directions"),
        (edges((0, 0), (0, 1), (1, 0)), "no self-loops"),
        (edges((0, 1), (0, 1), (1, 0), (1, 0)), "each edge once"),
        (edges((1, 0), (0, 1)), "sorted"),
        (edges((0, 2), (0, 1), (1, 0), (2, 0)), "sorted"),
        (edges((0, 3), (3, 0)), "num_nodes - 1 = 2"),
    ],
)
def test_no_reverse_of_what_is_not_simple(edge_index: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reverse_edges(edge_index, num_nodes=3)


def test_batches_offset_the_reverse_edges() -> None:
    graphs = [
        stochastic_block_model(n, torch.full((2, 2), p), generator=torch.Generator().manual_seed(n))
        for n, p in ((12, 0.4), (3, 0.0), (7, 1.0), (9, 0.3))
    ]
    batch = Batch.from_data_list(graphs)
    assert isinstance(batch, CommunityGraph)
    assert batch.num_nodes == 31
    assert torch.equal(batch.rev_edge, reverse_edges(batch.edge_index, 31))
    for graph, same in zip(graphs, batch.to_data_list(), strict=True):
        for key in ("edge_index", "rev_edge", "y"):
            assert torch.equal(graph[key], same[key])
    nested = Batch.from_data_list([Batch.from_data_list(graphs[:2]), Batch.from_data_list(graphs[2:])])
    assert torch.equal(nested.rev_edge, batch.rev_edge)
    loaded = next(iter(DataLoader(graphs, batch_size=4)))
    assert torch.equal(loaded.rev_edge, batch.rev_edge)
    copy = pickle.loads(pickle.dumps(batch)).to("cpu")
    assert torch.equal(copy.rev_edge, batch.rev_edge)


def test_graphs_of_other_kinds_are_the_same_graph() -> None:
    network = networkx.Graph([("a", "b"), ("c", "a")])
    matrix = csr_matrix(([True] * 4, ([0, 1, 0, 2], [1, 0, 2, 0])), shape=(3, 3))
    unordered = Data(edge_index=torch.tensor([[2, 0, 1, 0], [0, 2, 0, 1]]), num_nodes=3, y=torch.tensor([0, 1, 1]))
    for graph in (network, matrix, matrix.tocoo(), unordered):
        same = as_community_graph(graph)
        assert same.edge_index.tolist() == [[0, 0, 1, 2], [1, 2, 0, 0]]
        assert same.rev_edge.tolist() == [2, 3, 0, 1]
        assert same.num_nodes == 3
    assert as_community_graph(unordered).y.tolist() == [0, 1, 1]
    assert as_community_graph(networkx.empty_graph(4)).num_nodes == 4


@pytest.mark.parametrize(
    ("graph", "error", "words"),
    [
        (networkx.DiGraph([(0, 1)]), ValueError, r"networkx.Graph\(graph\)"),
        (networkx.MultiGraph([(0, 1), (0, 1)]), ValueError, r"networkx.Graph\(graph\)"),
        (networkx.Graph([(0, 0), (0, 1)]), ValueError, "self-loops"),
        (csr_matrix([[0, 1], [0, 0]]), ValueError, "both directions"),
        (csr_matrix([[0, 2], [2, 0]]), ValueError, "zeros and ones"),
        (csr_matrix([[0.0, float("nan")], [float("nan"), 0.0]]), ValueError, "zeros and ones"),
        (csr_matrix([[0, 1, 0], [1, 0, 0]]), ValueError, "square"),
        (Data(edge_index=torch.tensor([[0, 0, 1], [1, 1, 0]]), num_nodes=2), ValueError, "each edge once"),
        (Data(edge_index=torch.tensor([[0, 5], [5, 0]]), num_nodes=2), ValueError, "nodes from 0"),
        ([[0, 1], [1, 0]], TypeError, "got list"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_what_is_no_simple_graph_is_refused(graph: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        as_community_graph(graph)
