"""Belief propagation for the block model, with known or with learned parameters."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from lightning_landscape.community.adjacency import checked_graph
from lightning_landscape.community.bethe import BetheModel, MessageGraph
from lightning_landscape.community.graph import CommunityGraph
from lightning_landscape.community.restarts import Ended, Restarts

_CHECK_EVERY = 10
# Messages begin at random, from which there is nothing to learn.
_FIRST_LEARNING = 50
# Marginals this near to the fractions say nothing of any node: their order is that of rounding and of the first guess.
_UNIFORM = 1e-3
# After as many times the sweeps of the first restart that has converged, restarts that lie above it are given up.
_PATIENCE = 2


class BeliefPropagation:
    """Marginals of the block model's posterior by message passing (Decelle, Krzakala, Moore, Zdeborova 2011).

    With ``C = n P`` and group fractions n_a, the messages on directed edges are (their Eq. 26)

        psi[a, i -> j] ~ n_a exp(-h_a) product over l in N(i), l != j, of sum over b of C[a, b] psi[b, l -> i],

    with the field ``h_a = sum over b of C[a, b] m_b``, m the mean of the marginals, in place of all pairs without an
    edge. All edges are updated at once, a sweep, and all restarts at once. Each restart begins at random messages; the
    one of lowest Bethe free energy (their Eq. 34) wins. A restart that has converged rests; after twice its sweeps
    those that lie above the lowest are given up. On large sparse graphs drawn from known parameters no polynomial-time
    method is known to have a larger overlap.

    Without ``connectivity`` parameters are learned between sweeps, by expectation maximisation (their Sec. III C).
    Restarts begin in turn at assortative and disassortative groups of equal affinity, of an SNR of 2 or as near to it
    as the average degree allows, or all at ``first_connectivity``. ``fractions`` are then learned as well, unless
    given. Near the threshold learning overfits, as the k (k + 1) / 2 affinities follow the noise of one graph: the free
    energy falls, and the overlap too. ``symmetric`` learns two numbers only.

    With ``degree_corrected`` node i has the weight ``t_i = d_i / d``, its degree over the average one, and the mean
    number of edges between i and j is ``t_i t_j P[x_i, x_j]`` (Karrer & Newman 2011; Yan et al. 2014). In the messages
    ``t_i h_a`` takes the place of h_a, and m is the mean of t_i times the marginals. It is for graphs whose degrees
    differ by more than a Poisson law has it, as most real ones do.

    Args:
        connectivity: P (k, k), probabilities, as for
            :func:`~lightning_landscape.community.stochastic_block_model`; ``None`` to learn it.
        fractions: n_a (k,), positive, summing to 1; by default 1 / k.
        num_restarts: R.
        damping: share of the old message in the new one, from 0 to below 1.
        max_sweeps: the most.
        tol: a restart has converged where the mean over messages of ``|new - old|`` is at most this, and, where C is
            learned, the largest change by a step of learning, relative to its largest entry.
        seed: random seed of the first messages; the global random state is left as it is.
        degree_corrected: whether each node has its own expected degree.
        symmetric: whether to learn one affinity within communities and one between them, with fractions that are given
            or equal.
        first_connectivity: P (k, k), where learning begins.

    Attributes:
        marginals_: (n, k) float64, after ``fit_predict``, as all below.
        free_energy_: per node, without constants of the graph: ``-m / n log n`` for m edges, and the logarithms of the
            weights of their ends.
        connectivity_: P (k, k).
        fractions_: n_a (k,).
        converged_: whether the chosen restart has converged; a warning says where not.
        informative_: whether some marginal differs from the fractions by more than 0.001. Where not, labels are no
            better than a guess, which a warning says, and a ``connectivity_`` that was to be learned is the density of
            edges.
        num_sweeps_: sweeps of the chosen restart.

    Raises:
        ValueError: if an argument is out of its range, or ``connectivity`` is given beside what says how to learn it.

    Example:
        >>> from lightning_landscape.community import stochastic_block_model
        >>> probabilities = torch.tensor([[0.5, 0.02], [0.02, 0.5]])
        >>> graph = stochastic_block_model(40, probabilities, generator=torch.Generator().manual_seed(0))
        >>> labels = BeliefPropagation(probabilities).fit_predict(graph, num_communities=2)
        >>> bool((labels == graph.y).all() or (labels != graph.y).all())
        True
    """

    def __init__(
        self,
        connectivity: Tensor | None = None,
        fractions: Tensor | None = None,
        num_restarts: int = 4,
        damping: float = 0.2,
        max_sweeps: int = 1000,
        tol: float = 1e-5,
        seed: int = 0,
        degree_corrected: bool = False,
        symmetric: bool = False,
        first_connectivity: Tensor | None = None,
    ) -> None:
        for name, count in (("num_restarts", num_restarts), ("max_sweeps", max_sweeps)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count!r}")
        if not 0 <= damping < 1:
            raise ValueError(f"damping must lie from 0 to below 1, got {damping!r}")
        if not tol > 0:
            raise ValueError(f"tol must be positive, got {tol!r}")
        if connectivity is not None and (symmetric or first_connectivity is not None):
            raise ValueError(
                "connectivity is given, so that nothing is learned: leave out symmetric and first_connectivity, or it"
            )
        self.connectivity = _checked_connectivity("connectivity", connectivity)
        self.first_connectivity = _checked_connectivity("first_connectivity", first_connectivity)
        self.fractions = None if fractions is None else _checked_fractions(fractions)
        self.num_restarts = num_restarts
        self.damping = damping
        self.max_sweeps = max_sweeps
        self.tol = tol
        self.seed = seed
        self.degree_corrected = degree_corrected
        self.symmetric = symmetric

    @torch.no_grad()
    def fit_predict(self, data: Any, num_communities: int) -> Tensor:
        """Find communities: the most probable one of each node.

        Args:
            data: a graph, as :func:`~lightning_landscape.community.as_community_graph` takes it.
            num_communities: k.

        Returns:
            Labels (n,) int64 from 0 to k - 1, computed on the device of the graph.

        Raises:
            ValueError: if k is not from 2 to n or not the k of the parameters, or the graph is directed, not simple or
                without edges.
        """
        graph = checked_graph(data, num_communities)
        self._check_size(num_communities)
        degrees = graph.edge_index[0].bincount(minlength=graph.num_nodes).double()
        average = float(degrees.mean())
        model = BetheModel(
            MessageGraph(graph.edge_index, graph.rev_edge, graph.num_nodes),
            self._first_fractions(num_communities).to(degrees).log()[None],
            self._first_affinity(num_communities, graph.num_nodes, average).to(degrees),
        )
        weights = degrees / average if self.degree_corrected else torch.ones_like(degrees)
        ended = self._propagated(Restarts(model, weights[:, None], self._first_messages(graph, num_communities)))
        return self._chosen(min(ended, key=lambda restart: restart.energy), average)

    def _propagated(self, running: Restarts) -> list[Ended]:
        """Where the restarts ended, but for those that were given up."""
        ended: list[Ended] = []
        learns = torch.zeros(self.num_restarts, dtype=torch.bool, device=running.messages.device)
        for sweep in range(1, self.max_sweeps + 1):
            old = running.sweep(self.damping)
            # Not at each sweep: an accelerator would wait for the answer.
            if sweep % _CHECK_EVERY == 0:
                converged = (running.messages - old).abs().mean(dim=(0, 2)) <= self.tol
                if self.connectivity is None:
                    # Messages that have settled have nothing to wait for.
                    learns = learns | converged | (sweep >= _FIRST_LEARNING)
                    change = running.learn(learns, self.symmetric, keep_fractions=self.fractions is not None)
                    converged = converged & (change <= self.tol)
                resting = converged
                if ended and sweep >= _PATIENCE * ended[0].sweeps:
                    resting = converged | (running.energies() >= min(restart.energy for restart in ended))
                if resting.any():
                    ended += [running.end(run, sweep, True) for run in converged.nonzero().flatten().tolist()]
                    if resting.all():
                        return ended
                    running, old, learns = running.only(~resting), old[:, ~resting], learns[~resting]
            running.damp(old, self.damping)
        return ended + [running.end(run, self.max_sweeps, False) for run in range(len(learns))]

    def _check_size(self, num_communities: int) -> None:
        for name in ("connectivity", "first_connectivity", "fractions"):
            given = getattr(self, name)
            if given is not None and len(given) != num_communities:
                raise ValueError(f"{name} is for {len(given)} communities, num_communities is {num_communities!r}")

    def _first_messages(self, graph: CommunityGraph, k: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        shape = (graph.edge_index.shape[1], self.num_restarts, k)
        messages = torch.rand(shape, generator=generator, dtype=torch.float64).to(graph.edge_index.device)
        return messages / messages.sum(dim=2, keepdim=True)

    def _first_fractions(self, k: int) -> Tensor:
        fractions = torch.full((k,), 1 / k, dtype=torch.float64) if self.fractions is None else self.fractions
        return fractions.expand(self.num_restarts, k)

    def _first_affinity(self, k: int, nodes: int, degree: float) -> Tensor:
        given = self.first_connectivity if self.connectivity is None else self.connectivity
        if given is not None:
            return (given * nodes).expand(self.num_restarts, k, k)
        # C = degree (1 - t) off the diagonal, degree (1 + (k - 1) t) on it: all degrees alike, and SNR = degree t^2.
        strength = (2 / degree) ** 0.5
        signs = torch.tensor([min(strength, 0.9), -min(strength, 0.9 / (k - 1))], dtype=torch.float64)
        signs = signs.repeat((self.num_restarts + 1) // 2)[: self.num_restarts, None, None]
        return degree * (1 - signs + k * signs * torch.eye(k, dtype=torch.float64))

    def _chosen(self, best: Ended, average_degree: float) -> Tensor:
        nodes = len(best.marginals)
        self.marginals_ = best.marginals
        self.free_energy_ = best.energy
        self.connectivity_ = best.affinity / nodes
        self.fractions_ = best.fractions
        self.converged_ = best.converged
        self.num_sweeps_ = best.sweeps
        self.informative_ = bool((best.marginals - best.fractions).abs().max() > _UNIFORM)
        if not self.converged_:
            warnings.warn(
                f"belief propagation has not converged to tol={self.tol:g} in {self.num_sweeps_} sweeps: labels are "
                "those of the last one; raise max_sweeps or damping",
                RuntimeWarning,
                stacklevel=3,
            )
        elif not self.informative_:
            # The first guess is a fixed point of learning there, as is every affinity of equal degrees.
            if self.connectivity is None:
                self.connectivity_ = torch.full_like(self.connectivity_, average_degree / nodes)
            warnings.warn(
                "belief propagation finds no communities: all nodes have the same marginals, as below the threshold, "
                "and the labels are no better than a guess",
                RuntimeWarning,
                stacklevel=3,
            )
        return best.marginals.argmax(dim=1)


def _checked_connectivity(name: str, connectivity: Tensor | None) -> Tensor | None:
    if connectivity is None:
        return None
    rates = torch.as_tensor(connectivity, dtype=torch.float64)
    if rates.dim() != 2 or rates.shape[0] != rates.shape[1] or not torch.equal(rates, rates.T):
        raise ValueError(
            f"{name} must be a symmetric matrix (k, k), without NaN, got {tuple(rates.shape)} {rates.tolist()}"
        )
    if not (rates.min() >= 0 and 0 < rates.max() <= 1):
        raise ValueError(f"{name} must hold probabilities from 0 to 1, not all 0, got {rates.tolist()}")
    return rates


def _checked_fractions(fractions: Tensor) -> Tensor:
    shares = torch.as_tensor(fractions, dtype=torch.float64)
    if shares.dim() != 1 or not (shares > 0).all() or not abs(float(shares.sum()) - 1) < 1e-6:
        raise ValueError(f"fractions must be positive numbers (k,) that sum to 1, got {shares.tolist()}")
    return shares
