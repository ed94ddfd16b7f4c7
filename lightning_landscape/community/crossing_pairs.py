"""Pairs of overlapping ground-truth communities that an edge of a large graph separates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelledGraph:
    """A large undirected graph whose nodes belong to any number of known communities.

    Made by :func:`labelled_graph`.

    Attributes:
        node_ids: (n,) int64, the numbers that the nodes have outside, ascending.
        edges: (E, 2) int64, each edge once, the smaller node first, in ascending order; nodes are 0 to n - 1.
        memberships: sparse (n, K) of ones: node i belongs to community c. No two communities have the same members;
            the largest come first, equally large ones in the order given.
    """

    node_ids: Integers
    edges: Integers
    memberships: sparse.csr_matrix


def labelled_graph(edges: Integers, members: Integers, sizes: Integers) -> LabelledGraph:
    """The graph of an edge list and of lists of members, with repeats of every kind merged.

    Args:
        edges: (E, 2), the ends of each edge; self-loops and repeats are dropped.
        members: (T,), the members of all communities, one community after the other, numbered as in ``edges``.
        sizes: (R,), how many members each has, at least 1.

    Raises:
        ValueError: if a member has no edge; its place in ``members`` is the exception's second argument.

    Example:
        >>> graph = labelled_graph(np.array([[5, 7], [7, 5], [7, 9]]), np.array([7, 9, 5, 9, 7]), np.array([2, 1, 2]))
        >>> graph.node_ids, graph.edges.tolist()
        (array([5, 7, 9]), [[0, 1], [1, 2]])
        >>> graph.memberships.toarray().tolist()  # {7, 9} came twice
        [[0, 1], [1, 0], [1, 0]]
    """
    node_ids, numbers = np.unique(edges, return_inverse=True)
    count = max(len(node_ids), 1)
    ends = np.sort(numbers.reshape(-1, 2), axis=1)
    keys = np.sort(ends[:, 0] * count + ends[:, 1])  # np.unique hashes, which takes six times as long
    keys = keys[(np.diff(keys, prepend=-1) > 0) & (keys // count != keys % count)]
    ends = np.stack([keys // count, keys % count], axis=1)
    nodes = np.searchsorted(node_ids, members)
    known = nodes < len(node_ids)
    known[known] = node_ids[nodes[known]] == members[known]
    if not known.all():
        place = int(known.argmin())
        raise ValueError(f"member {members[place]} of a community has no edge, so that it is no node", place)
    # Sorted within each community and without repeats, so that equal communities are equal bytes.
    listed = np.unique(np.stack([np.repeat(np.arange(len(sizes)), sizes), nodes], axis=1), axis=0)
    bounds = np.searchsorted(listed[:, 0], np.arange(1, len(sizes)))
    distinct = {part.tobytes(): part for part in np.split(listed[:, 1], bounds) if len(part)}
    communities = sorted(distinct.values(), key=len, reverse=True)
    columns = np.repeat(np.arange(len(communities)), [len(part) for part in communities])
    rows = np.concatenate([np.zeros(0, np.int64), *communities])
    shape = (len(node_ids), len(communities))
    return LabelledGraph(node_ids, ends, sparse.csr_matrix((np.ones(len(rows), np.int32), (rows, columns)), shape))


@dataclass(frozen=True)
class CrossingPairs:
    """The pairs of communities to tell apart, and how many edges led to them.

    Attributes:
        pairs: (I, 2) int64, columns of ``memberships``, the larger community first; sorted, no pair twice.
        crossing_edges: number of edges whose ends each have a community that the other lacks.
        raw: number of those edges whose pair is within the limits: the instances before repeats are merged.
    """

    pairs: Integers
    crossing_edges: int
    raw: int


def crossing_pairs(graph: LabelledGraph, max_nodes: int, min_ratio: float = 0.05) -> CrossingPairs:
    """For each edge that crosses communities, the two largest that separate its ends.

    An edge {u, v} crosses if u has a community without v and v has one without u. C1 is the largest of the former, C2
    of the latter, so that u lies in C1 \\ C2 and v in C2 \\ C1, and neither contains the other. A pair is within the
    limits if C1 and C2 together have at most ``max_nodes`` nodes and the smaller has more than ``min_ratio`` times the
    members of the larger.

    Sparse throughout: time and memory are those of the memberships of the edges' ends.

    Args:
        graph: a graph with communities sorted by size.
        max_nodes: the largest union, at least 2.
        min_ratio: the smaller community must have more than this times the members of the larger, in [0, 1); 0.05 is
            what the first public program of the authors uses.

    References:
        Z. Chen, L. Li, J. Bruna, "Supervised community detection with line graph neural networks", ICLR 2019, on the
        SNAP graphs; github.com/joanbruna/GNN_community for what the text leaves open.

    Example:
        >>> edges = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
        >>> graph = labelled_graph(edges, np.array([0, 1, 2, 2, 3, 4]), np.array([3, 3]))
        >>> crossing_pairs(graph, max_nodes=5)  # node 2 is in both, so that no edge crosses
        CrossingPairs(pairs=array([], shape=(0, 2), dtype=int64), crossing_edges=0, raw=0)
    """
    labelled = np.diff(graph.memberships.indptr) > 0
    ends = graph.edges[labelled[graph.edges].all(axis=1)]
    of_first, of_second = graph.memberships[ends[:, 0]], graph.memberships[ends[:, 1]]
    shared = of_first.multiply(of_second)
    found = np.stack([_first_column(of_first - shared), _first_column(of_second - shared)], axis=1)
    crossing = np.sort(found[(found >= 0).all(axis=1)], axis=1)
    pairs, counts = np.unique(crossing, axis=0, return_counts=True)
    members = graph.memberships.T.tocsr()
    sizes = np.diff(members.indptr)[pairs]
    common = np.asarray(members[pairs[:, 0]].multiply(members[pairs[:, 1]]).sum(axis=1)).ravel()
    within = (sizes.sum(axis=1) - common <= max_nodes) & (sizes[:, 1] > min_ratio * sizes[:, 0])
    return CrossingPairs(pairs[within], len(crossing), int(counts[within].sum()))


def _first_column(matrix: sparse.csr_matrix) -> Integers:
    """The first column of each row with an entry that is not zero, -1 where there is none."""
    matrix = matrix.tocsr()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    first = np.full(matrix.shape[0], -1, np.int64)
    filled = np.diff(matrix.indptr) > 0
    first[filled] = matrix.indices[matrix.indptr[:-1][filled]]
    return first
