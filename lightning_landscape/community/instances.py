"""Small graphs of two communities each, cut out of a large graph and kept in flat arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_landscape.community.crossing_pairs import Integers, LabelledGraph
from lightning_landscape.community.graph import CommunityGraph, community_graph

Overlapping = Literal["larger", "class"]


@dataclass(frozen=True)
class TwoCommunityInstances:
    """Induced subgraphs on unions of two communities, the larger C1 and C2.

    The instances lie one after the other in flat arrays, which a file holds as they are. Within an instance nodes are
    in ascending order of their numbers outside, which tells nothing about their communities.

    Attributes:
        node_ids: (N,) int64, the number of each node outside.
        memberships: (N,) int64, 1 for C1 alone, 2 for C2 alone, 3 for both.
        edges: (2, E) int64, each edge once, nodes counted from 0 in each instance.
        node_counts: (I,) int64, nodes of each instance.
        edge_counts: (I,) int64, edges of each instance.
    """

    node_ids: Tensor
    memberships: Tensor
    edges: Tensor
    node_counts: Tensor
    edge_counts: Tensor

    def __len__(self) -> int:
        return len(self.node_counts)

    def graphs(self, overlapping: Overlapping = "larger") -> list[CommunityGraph]:
        """The instances as graphs, with labels ``y`` and the attribute ``node_id`` (n,), their numbers outside.

        Args:
            overlapping: how a node in both communities is labelled. ``"larger"``: two classes, 0 for the members of
                C1 and 1 for the rest. ``"class"``: three classes, 0 for C1 alone, 1 for C2 alone and 2 for both, which
                may be empty.

        Raises:
            ValueError: for another ``overlapping``.
        """
        names = {"larger": torch.tensor([0, 0, 1, 0]), "class": torch.tensor([0, 0, 1, 2])}
        if overlapping not in names:
            raise ValueError(f"overlapping must be 'larger' or 'class', got {overlapping!r}")
        node_starts = self.node_counts.cumsum(0) - self.node_counts
        edge_starts = 2 * (self.edge_counts.cumsum(0) - self.edge_counts)
        # All instances as one graph: its edges are sorted, so that those of an instance stay together.
        ends = self.edges + node_starts.repeat_interleave(self.edge_counts)
        union = community_graph(ends, len(self.node_ids), names[overlapping][self.memberships])
        sizes = (self.node_counts.tolist(), (2 * self.edge_counts).tolist())
        parts = zip(
            union.edge_index.split(sizes[1], dim=1), union.rev_edge.split(sizes[1]), union.y.split(sizes[0]),
            self.node_ids.split(sizes[0]), node_starts, edge_starts, strict=True,
        )  # fmt: skip
        return [
            # Tensors of its own, so that a copy of one instance copies no other.
            CommunityGraph(
                edge_index=edge_index - node_start,
                rev_edge=rev_edge - edge_start,
                y=y.clone(),
                num_nodes=len(y),
                node_id=node_id.clone(),
            )
            for edge_index, rev_edge, y, node_id, node_start, edge_start in parts
        ]


def two_community_instances(graph: LabelledGraph, pairs: Integers) -> TwoCommunityInstances:
    """Cut out the induced subgraph on C1 and C2 for each pair of communities.

    Args:
        graph: the large graph.
        pairs: (I, 2), columns of its memberships, C1 and C2.

    Example:
        >>> from lightning_landscape.community.crossing_pairs import crossing_pairs, labelled_graph
        >>> edges = np.array([[0, 1], [0, 2], [1, 2], [2, 3], [3, 4], [4, 9]])
        >>> graph = labelled_graph(edges, members=np.array([0, 1, 2, 3, 4]), sizes=np.array([3, 2]))
        >>> instances = two_community_instances(graph, crossing_pairs(graph, max_nodes=5).pairs)
        >>> instances.memberships, instances.edges
        (tensor([1, 1, 1, 2, 2]), tensor([[0, 0, 1, 2, 3],
                [1, 2, 2, 3, 4]]))
    """
    members = graph.memberships.T.tocsr()
    members.sort_indices()
    lists = np.split(members.indices.astype(np.int64), members.indptr[1:-1])
    starts = np.searchsorted(graph.edges[:, 0], np.arange(len(graph.node_ids) + 1))  # of each node's larger neighbours
    nodes, memberships, edges = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros((2, 0), np.int64)]
    for first, second in pairs.tolist():
        union = np.union1d(lists[first], lists[second])
        nodes.append(union)
        memberships.append(np.isin(union, lists[first]) + 2 * np.isin(union, lists[second]))
        edges.append(_induced(union, starts, graph.edges[:, 1]))
    return TwoCommunityInstances(
        torch.from_numpy(graph.node_ids[np.concatenate(nodes)]),
        torch.from_numpy(np.concatenate(memberships)),
        torch.from_numpy(np.concatenate(edges, axis=1)),
        torch.tensor([len(part) for part in nodes[1:]], dtype=torch.int64),
        torch.tensor([part.shape[1] for part in edges[1:]], dtype=torch.int64),
    )


def _induced(nodes: Integers, starts: Integers, neighbours: Integers) -> Integers:
    """Edges (2, E) between ``nodes``, which are ascending, as places in them."""
    counts = starts[nodes + 1] - starts[nodes]
    source = np.repeat(np.arange(len(nodes)), counts)
    offset = np.arange(len(source)) - np.repeat(counts.cumsum() - counts, counts)
    ends = neighbours[starts[nodes][source] + offset]
    target = np.searchsorted(nodes, ends).clip(max=len(nodes) - 1)
    inside = nodes[target] == ends
    return np.stack([source[inside], target[inside]])
