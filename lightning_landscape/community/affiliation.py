"""The community-affiliation graph model, fitted to one graph by maximum likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.optimize import minimize
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from lightning_landscape.community.graph import as_community_graph, reverse_edges

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_MOST_COMMUNITIES = 6  # sets of communities are enumerated, 64 of them
_LEAST_GAIN = 1e-9  # nats; less is rounding


@dataclass(frozen=True)
class Affiliation:
    """A fitted model.

    Attributes:
        memberships: (n, k) bool, which communities each node is in; any number of them, or none.
        probabilities: (k,) float64, p_c.
        background: epsilon, the probability of an edge without a shared community.
        log_likelihood: log-likelihood of the graph, in nats.
        history: log-likelihoods of the ascent that led here, one a round.
        labels: (n,) int64, the one community that explains the edges of each node best if it may have no other. Of a
            node without edges that is the community in which their absence is the least surprise.
    """

    memberships: Tensor
    probabilities: Tensor
    background: float
    log_likelihood: float
    history: list[float]
    labels: Tensor


class AffiliationGraphFit:
    r"""Fits ``P(edge u-v) = 1 - (1 - epsilon) prod over shared communities c of (1 - p_c)`` to a graph.

    Nodes belong to any number of the k communities, and two nodes are the likelier to be joined the more they share:
    the AGM of Yang and Leskovec. With ``lambda_c = -log(1 - p_c)`` and ``Lambda_uv = lambda_0 + sum of lambda_c`` over
    the shared ones, the log-likelihood is ``sum over edges of log(1 - exp(-Lambda_uv)) - sum over the other pairs of
    Lambda_uv``, which is concave in lambda. The fit ascends in turn in

    - the memberships, node by node: the best of its 2^k sets given those of all others;
    - lambda, by L-BFGS-B on ``0 <= lambda_c <= log(n^2)`` and ``1/n^2 <= epsilon <= 1 - 1/n^2``. It depends on the
      graph by the numbers of pairs and of edges for each shared set alone.

    Neither lowers the likelihood. Yang and Leskovec move the memberships by a Markov chain instead, and their program
    fixes epsilon unless it is told to fit it. As the ascent ends in a local maximum, it starts anew ``restarts`` times,
    from k nodes far from each other, and the likeliest fit counts; the first of them is random. A round of the
    memberships takes ``O(4^k n + 2^k |E|)``.

    Args:
        restarts: number of starts, at least 1.
        max_rounds: rounds of each start, at least 1.
        seed: random seed of the starts and of the order of nodes. The global random state is left alone.

    Raises:
        ValueError: if an argument is out of its range.

    References:
        J. Yang, J. Leskovec, "Community-affiliation graph model for overlapping network community detection", ICDM
        2012.

    Example:
        >>> from lightning_landscape.community.graph import community_graph
        >>> two_triangles = torch.tensor([[0, 1, 2, 3, 4, 5, 2], [1, 2, 0, 4, 5, 3, 3]])
        >>> AffiliationGraphFit().fit_predict(community_graph(two_triangles, num_nodes=6))
        tensor([0, 0, 0, 1, 1, 1])
    """

    def __init__(self, restarts: int = 10, max_rounds: int = 100, seed: int = 0) -> None:
        for name, value, least in (("restarts", restarts, 1), ("max_rounds", max_rounds, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        self.restarts = restarts
        self.max_rounds = max_rounds
        self.seed = seed

    def fit_predict(self, data: Any, num_communities: int = 2) -> Tensor:
        """One community for each node, (n,) int64: the ``labels`` of :meth:`fit`, numbered as they occur.

        On the device of the graph; the work is done on the CPU.

        Args:
            data: as for :meth:`fit`.
            num_communities: k, from 1 to 6 and to the number of nodes.
        """
        graph = as_community_graph(data)
        labels = self.fit(graph, num_communities).labels
        names, first = np.unique(labels.numpy(), return_index=True)
        order = np.empty(num_communities, np.int64)
        order[names[first.argsort()]] = np.arange(len(names))
        return torch.from_numpy(order[labels.numpy()]).to(graph.edge_index.device)

    def fit(self, data: Any, num_communities: int = 2) -> Affiliation:
        """The likeliest model found.

        Args:
            data: a graph of PyG, SciPy or networkx, whatever ``as_community_graph`` takes.
            num_communities: k, from 1 to 6 and to the number of nodes.

        Raises:
            ValueError: if ``num_communities`` is out of its range, or the graph has no nodes or no edges, is directed
                or has self-loops or repeated edges.
        """
        if isinstance(num_communities, bool) or num_communities not in range(1, _MOST_COMMUNITIES + 1):
            raise ValueError(f"num_communities must be from 1 to {_MOST_COMMUNITIES}, got {num_communities!r}")
        data = as_community_graph(data)
        if not data.num_nodes:
            raise ValueError("data has no nodes: there is nothing to fit")
        if num_communities > data.num_nodes:
            raise ValueError(
                f"num_communities must be at most the number of nodes, {data.num_nodes}, got {num_communities!r}"
            )
        if data.edge_index.shape[1] == 0:
            raise ValueError(
                f"the graph of {data.num_nodes} nodes has no edges, so that nothing tells its communities apart"
            )
        reverse_edges(data.edge_index, data.num_nodes)  # refuses what a transform has left of a CommunityGraph
        source, target = data.edge_index.cpu().numpy()
        adjacency = sparse.csr_matrix((np.ones(len(source), np.int8), (source, target)), (data.num_nodes,) * 2)
        random = np.random.default_rng(self.seed)
        ascents = []
        for _ in range(self.restarts):
            ascent = _Ascent(adjacency, num_communities, _start(adjacency, num_communities, random))
            ascent.run(self.max_rounds, random)
            ascents.append(ascent)
        return max(ascents, key=lambda ascent: ascent.history[-1]).result()


class _Ascent:
    """One ascent; the communities of a node are the bits of its type."""

    def __init__(self, adjacency: sparse.csr_matrix, communities: int, types: Integers) -> None:
        self.count = adjacency.shape[0]
        self.communities = communities
        self.types = types
        self.neighbours = np.split(adjacency.indices, adjacency.indptr[1:-1])
        self.ends = np.repeat(np.arange(self.count), np.diff(adjacency.indptr)), adjacency.indices
        self.sets = np.arange(1 << communities)
        self.shared = self.sets[:, None] & self.sets
        # Rows (1, bits of s), so that this times lambda is Lambda for a shared set s.
        self.design = np.concatenate(
            [np.ones((len(self.sets), 1)), self.sets[:, None] >> np.arange(communities) & 1], 1
        )
        least = 1 / max(self.count, 2) ** 2
        self.bounds = [(-np.log1p(-least), -np.log(least)), *[(0.0, -np.log(least))] * communities]
        self.rates = np.array([upper for _, upper in self.bounds]) / 2
        self.history: list[float] = []

    def run(self, max_rounds: int, random: np.random.Generator) -> None:
        self._fit_rates()
        for _ in range(max_rounds):
            moved = self._move_nodes(random)
            if not moved:
                break
            self._fit_rates()

    def result(self) -> Affiliation:
        edge, pair = self._tables()
        seen, counts = self._neighbour_types(), self._type_counts()
        singles = 1 << np.arange(self.communities)
        scores = seen @ edge[singles].T + counts @ pair[singles].T - pair[np.ix_(singles, self.types)].T
        bits = self.types[:, None] >> np.arange(self.communities) & 1
        probabilities = -np.expm1(-self.rates)
        return Affiliation(
            torch.from_numpy(bits.astype(bool)),
            torch.from_numpy(probabilities[1:]),
            float(probabilities[0]),
            self.history[-1],
            self.history,
            torch.from_numpy(scores.argmax(axis=1)),
        )

    def _tables(self) -> tuple[Floats, Floats]:
        """What a pair of types adds to the likelihood: more if it is an edge, and in any case."""
        total = (self.design @ self.rates)[self.shared]
        return np.log(np.expm1(total)), -total

    def _type_counts(self) -> Integers:
        return np.bincount(self.types, minlength=len(self.sets))

    def _neighbour_types(self) -> Floats:
        """(n, 2^k), how many neighbours of each type each node has."""
        source, target = self.ends
        cells = np.bincount(source * len(self.sets) + self.types[target], minlength=self.count * len(self.sets))
        return cells.reshape(self.count, -1).astype(np.float64)

    def _move_nodes(self, random: np.random.Generator) -> bool:
        edge, pair = self._tables()
        seen, counts = self._neighbour_types(), self._type_counts()
        moved = False
        for node in random.permutation(self.count):
            old = self.types[node]
            scores = edge @ seen[node] + pair @ counts - pair[:, old]
            new = scores.argmax()
            if scores[new] > scores[old] + _LEAST_GAIN:
                self.types[node] = new
                counts[old] -= 1
                counts[new] += 1
                seen[self.neighbours[node], old] -= 1
                seen[self.neighbours[node], new] += 1
                moved = True
        return moved

    def _fit_rates(self) -> None:
        """Maximise over lambda, and note the likelihood."""
        counts = self._type_counts()
        # Without pairs of a node with itself, whose shared set is its type.
        pairs = (np.bincount(self.shared.ravel(), np.outer(counts, counts).ravel(), len(self.sets)) - counts) / 2
        source, target = self.ends
        edges = np.bincount(self.types[source] & self.types[target], minlength=len(self.sets)) / 2
        scale = max(pairs.sum(), 1)

        def loss(rates: Floats) -> tuple[float, Floats]:
            total = self.design @ rates
            odds = np.expm1(total)
            value = edges @ np.log(odds) - pairs @ total
            slope = edges * (1 + 1 / odds) - pairs
            return -value / scale, -(slope @ self.design) / scale

        found: Any = minimize(loss, self.rates, jac=True, bounds=self.bounds, options={"ftol": 1e-13, "gtol": 1e-9})
        if found.fun < loss(self.rates)[0]:
            self.rates = found.x
        self.history.append(-loss(self.rates)[0] * scale)


def _start(adjacency: sparse.csr_matrix, communities: int, random: np.random.Generator) -> Integers:
    """Each node in the communities of the nearest of k nodes, which are chosen one after the other, far away."""
    count = adjacency.shape[0]
    distances = np.empty((communities, count))
    nearest = np.full(count, np.inf)
    seed = random.integers(count)
    for community in range(communities):
        distances[community] = shortest_path(adjacency, unweighted=True, indices=seed)
        nearest = np.minimum(nearest, distances[community])
        seed = random.choice(np.flatnonzero(nearest == nearest.max()))
    joined = (distances == nearest) & np.isfinite(nearest)
    types: Integers = (1 << np.arange(communities)) @ joined
    return types
