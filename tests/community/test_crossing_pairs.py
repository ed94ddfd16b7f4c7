"""Crossing pairs and their instances, on a graph small enough to do by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_landscape.community.crossing_pairs import LabelledGraph, crossing_pairs, labelled_graph
from lightning_landscape.community.instances import two_community_instances

A, B, C, D = [0, 1, 2, 3], [3, 4, 5], [6, 7], [6, 7, 8]
EDGES = [
    (0, 1), (1, 2), (2, 3), (0, 3), (3, 4), (4, 5), (6, 7), (7, 8), (6, 8), (8, 9),  # within, or to the unlabelled 9
    (2, 4), (1, 4), (5, 6), (3, 6),  # crossing: A|B, A|B, B|D (larger than C), A|D
]  # fmt: skip


def graph_of(edges: list[tuple[int, int]], communities: list[list[int]]) -> LabelledGraph:
    return labelled_graph(
        np.array(edges), np.concatenate([np.array(c) for c in communities]), np.array([len(c) for c in communities])
    )


def test_communities_are_sorted_by_size_and_merged() -> None:
    graph = graph_of(EDGES, [C, B, A, D, A[::-1], [*C, 6]])
    columns = [np.flatnonzero(column).tolist() for column in graph.memberships.toarray().T]
    assert columns == [A, B, D, C]  # B and D are equally large, B was first
    assert set(graph.memberships.data.tolist()) == {1}


def test_pairs_known_by_hand() -> None:
    graph = graph_of(EDGES, [A, B, C, D])  # columns A, B, D, C
    found = crossing_pairs(graph, max_nodes=100)
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert (found.crossing_edges, found.raw) == (4, 4)
    # A and D have 7 nodes together, A and B 6 for they share one.
    small = crossing_pairs(graph, max_nodes=6)
    assert small.pairs.tolist() == [[0, 1], [1, 2]]
    assert (small.crossing_edges, small.raw) == (4, 3)
    assert crossing_pairs(graph, max_nodes=100, min_ratio=0.75).pairs.tolist() == [[1, 2]]
    assert crossing_pairs(graph, max_nodes=100, min_ratio=0.74).raw == 4


def test_repeats_in_the_files_change_nothing() -> None:
    plain = crossing_pairs(graph_of(EDGES, [A, B, C, D]), max_nodes=100)
    doubled = [*EDGES, *[(j, i) for i, j in EDGES], (3, 3)]
    again = crossing_pairs(graph_of(doubled, [A, B, C, D, A, B, C, D]), max_nodes=100)
    assert again.pairs.tolist() == plain.pairs.tolist()
    assert again.raw == plain.raw


def test_pairs_of_random_graphs_are_those_of_the_definition() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        edges = random.integers(0, 25, (60, 2))
        nodes = np.unique(edges)
        lists = [sorted(random.choice(nodes, random.integers(1, 9), replace=False).tolist()) for _ in range(8)]
        graph = graph_of(edges.tolist(), lists)
        communities = sorted({tuple(c): None for c in lists}, key=len, reverse=True)
        expected = []
        for u, v in {(min(e), max(e)) for e in edges.tolist() if e[0] != e[1]}:
            first = [i for i, c in enumerate(communities) if u in c and v not in c]
            second = [i for i, c in enumerate(communities) if v in c and u not in c]
            if first and second:
                expected.append(sorted([first[0], second[0]]))
        found = crossing_pairs(graph, max_nodes=25, min_ratio=0.0)
        assert found.crossing_edges == found.raw == len(expected)
        assert found.pairs.tolist() == [list(pair) for pair in sorted({tuple(pair) for pair in expected})]


def test_instances_known_by_hand() -> None:
    shifted = [(10 * i + 3, 10 * j + 3) for i, j in EDGES]
    graph = graph_of(shifted, [[10 * i + 3 for i in c] for c in (A, B, C, D)])
    instances = two_community_instances(graph, crossing_pairs(graph, max_nodes=6).pairs)
    assert len(instances) == 2
    first, second = instances.graphs("class")
    assert first.node_id.tolist() == [3, 13, 23, 33, 43, 53]
    assert first.y.tolist() == [0, 0, 0, 2, 1, 1]
    inside = {(0, 1), (1, 2), (2, 3), (0, 3), (3, 4), (4, 5), (2, 4), (1, 4)}
    assert {(i, j) for i, j in first.edge_index.T.tolist() if i < j} == inside
    assert first.num_edges == 2 * len(inside)
    # B = {3, 4, 5} comes before D = {6, 7, 8}, and 5-6 and 3-6 join them.
    assert second.node_id.tolist() == [33, 43, 53, 63, 73, 83]
    assert second.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert {(i, j) for i, j in second.edge_index.T.tolist() if i < j} == {
        (0, 1), (1, 2), (3, 4), (4, 5), (3, 5), (2, 3), (0, 3),
    }  # fmt: skip
    assert [graph.y.tolist() for graph in instances.graphs()] == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]
    for graph_ in (first, second):
        assert torch.equal(graph_.edge_index[:, graph_.rev_edge], graph_.edge_index.flip(0))
    with pytest.raises(ValueError, match="overlapping must be 'larger' or 'class', got 'both'"):
        instances.graphs("both")  # type: ignore[arg-type]


def test_no_crossing_edge_is_no_instance() -> None:
    graph = graph_of([(0, 1), (2, 3)], [[0, 1], [2, 3]])
    found = crossing_pairs(graph, max_nodes=10)
    assert (found.pairs.shape, found.crossing_edges, found.raw) == ((0, 2), 0, 0)
    assert two_community_instances(graph, found.pairs).graphs() == []


def test_a_member_without_edge_is_refused() -> None:
    with pytest.raises(ValueError, match="member 7 of a community has no edge") as error:
        labelled_graph(np.array([[0, 1]]), np.array([0, 1, 7]), np.array([1, 2]))
    assert error.value.args[1] == 2
    with pytest.raises(ValueError, match="member 0"):
        labelled_graph(np.zeros((0, 2), np.int64), np.array([0]), np.array([1]))
