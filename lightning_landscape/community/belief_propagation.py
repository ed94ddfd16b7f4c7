"""Belief propagation for the block model, with known or with learned parameters."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor
from torch_geometric.data import Data

from lightning_landscape.community.adjacency import checked_reverse
from lightning_landscape.community.bethe import BetheModel

_CHECK_EVERY = 10
# Messages begin at random, from which there is nothing to learn.
_FIRST_LEARNING = 50
# Of a community that learning has emptied, in place of 0.
_LEAST_FRACTION = 1e-12


class BeliefPropagation:
    """Marginals of the block model's posterior by message passing (Decelle, Krzakala, Moore, Zdeborova 2011).

    With ``C = n P`` and group fractions n_a, the messages on directed edges are (their Eq. 26)

        psi[a, i -> j] ~ n_a exp(-h_a) product over l in N(i), l != j, of sum over b of C[a, b] psi[b, l -> i],

    with the field ``h_a = sum over b of C[a, b] m_b``, m the mean of the marginals, in place of all pairs without an
    edge. All edges are updated at once, a sweep, and all restarts at once. Each restart begins at random messages; the
    one of lowest Bethe free energy (their Eq. 34) wins. On large sparse graphs drawn from known parameters no
    polynomial-time method is known to have a larger overlap.

    Without ``connectivity`` parameters are learned between sweeps, by expectation maximisation (their Sec. III C):
    restarts begin in turn at assortative and disassortative groups of equal affinity, of an SNR of 2 or as near to it
    as the average degree allows. ``fractions`` are then learned as well, unless given.

    Args:
        connectivity: P (k, k), probabilities, as for
            :func:`~lightning_landscape.community.stochastic_block_model`; ``None`` to learn it.
        fractions: n_a (k,), positive, summing to 1; by default 1 / k.
        num_restarts: R.
        damping: share of the old message in the new one, from 0 to below 1.
        max_sweeps: the most.
        tol: a restart has converged where the mean over messages of ``|new - old|`` is at most this, and, where C is
            learned, its largest change relative to its largest entry.
        seed: random seed of the first messages; the global random state is left as it is.

    Attributes:
        marginals_: (n, k) float64, after ``fit_predict``, as all below.
        free_energy_: per node, without the constant ``-m / n log n`` of a graph of m edges.
        connectivity_: P (k, k).
        fractions_: n_a (k,).
        converged_: whether the chosen restart has converged; a warning says where not.
        num_sweeps_: made.

    Raises:
        ValueError: if an argument is out of its range.

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
    ) -> None:
        for name, count in (("num_restarts", num_restarts), ("max_sweeps", max_sweeps)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count!r}")
        if not 0 <= damping < 1:
            raise ValueError(f"damping must lie from 0 to below 1, got {damping!r}")
        if not tol > 0:
            raise ValueError(f"tol must be positive, got {tol!r}")
        self.connectivity = None if connectivity is None else _checked_connectivity(connectivity)
        self.fractions = None if fractions is None else _checked_fractions(fractions)
        self.num_restarts = num_restarts
        self.damping = damping
        self.max_sweeps = max_sweeps
        self.tol = tol
        self.seed = seed

    @torch.no_grad()
    def fit_predict(self, data: Data, num_communities: int) -> Tensor:
        """Find communities: the most probable one of each node.

        Args:
            data: a graph with ``edge_index`` (2, E2), both directions of each edge, and ``num_nodes``.
            num_communities: k.

        Returns:
            Labels (n,) int64 from 0 to k - 1, computed on the device of the graph.

        Raises:
            ValueError: if k is not from 2 to n or not the k of the parameters, or the graph is directed, not simple or
                without edges.
        """
        self._check_size(num_communities)
        rev_edge = checked_reverse(data, num_communities)
        affinity = self._first_affinity(data, num_communities)
        fractions = self._first_fractions(num_communities).to(affinity)
        model = BetheModel(data.edge_index, rev_edge, data.num_nodes, fractions.log(), affinity)
        messages = self._first_messages(data, num_communities)
        mean = messages.mean(dim=2)
        converged = torch.zeros(self.num_restarts, dtype=torch.bool)
        for sweep in range(1, self.max_sweeps + 1):
            evidence = model.evidence(messages)
            scores = _in_field(model, mean).node_scores(evidence)
            old, messages = messages, model.updated(evidence, scores)
            # As damped as the messages: a field that runs ahead of them or lags behind would oscillate and grow.
            mean = torch.lerp(scores.softmax(dim=1).mean(dim=2), mean, self.damping)
            # Not at each sweep: an accelerator would wait for the answer.
            if sweep % _CHECK_EVERY == 0:
                converged = (messages - old).abs().mean(dim=(1, 2)) <= self.tol
                if self.connectivity is None and sweep >= _FIRST_LEARNING:
                    previous, model = model, self._learned(model, messages, mean)
                    change = (model.affinity - previous.affinity).abs().amax((1, 2)) / previous.affinity.amax((1, 2))
                    converged = converged & (change <= self.tol)
                if converged.all():
                    break
            messages = torch.lerp(messages, old, self.damping)
        self.num_sweeps_ = sweep
        return self._chosen(model, messages, mean, converged)

    def _check_size(self, num_communities: int) -> None:
        for name, given in (("connectivity", self.connectivity), ("fractions", self.fractions)):
            if given is not None and len(given) != num_communities:
                raise ValueError(f"{name} is for {len(given)} communities, num_communities is {num_communities!r}")

    def _first_messages(self, data: Data, k: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.num_restarts, k, data.edge_index.shape[1])
        messages = torch.rand(shape, generator=generator, dtype=torch.float64).to(data.edge_index.device)
        return messages / messages.sum(dim=1, keepdim=True)

    def _first_fractions(self, k: int) -> Tensor:
        fractions = torch.full((k,), 1 / k, dtype=torch.float64) if self.fractions is None else self.fractions
        return fractions.expand(self.num_restarts, k)

    def _first_affinity(self, data: Data, k: int) -> Tensor:
        device: torch.device = data.edge_index.device
        nodes = int(data.num_nodes)
        if self.connectivity is not None:
            return (self.connectivity * nodes).to(device).expand(self.num_restarts, k, k)
        # C = degree (1 - t) off the diagonal, degree (1 + (k - 1) t) on it: all degrees alike, and SNR = degree t^2.
        degree = int(data.num_edges) / nodes
        strength = (2 / degree) ** 0.5
        signs = torch.tensor([min(strength, 0.9), -min(strength, 0.9 / (k - 1))], dtype=torch.float64, device=device)
        signs = signs.repeat((self.num_restarts + 1) // 2)[: self.num_restarts, None, None]
        return degree * (1 - signs + k * signs * torch.eye(k, dtype=torch.float64, device=device))

    def _learned(self, model: BetheModel, messages: Tensor, mean: Tensor) -> BetheModel:
        """The model with the parameters that are most likely under its marginals."""
        present = mean.clamp_min(_LEAST_FRACTION)
        fractions = present if self.fractions is None else model.log_weights.exp()
        pairs = model.num_nodes * present[:, :, None] * present[:, None, :]
        affinity = model.edge_marginals(messages) / pairs
        # Symmetric but for rounding, which the next step would enlarge.
        return replace(model, log_weights=fractions.log(), affinity=(affinity + affinity.mT) / 2)

    def _chosen(self, model: BetheModel, messages: Tensor, mean: Tensor, converged: Tensor) -> Tensor:
        in_field = _in_field(model, mean)
        # Pairs without an edge count in the field of both their ends: half of it goes.
        half = (mean[:, None] @ model.affinity @ mean[:, :, None]).flatten() / 2
        energies = in_field.free_energy(messages) / model.num_nodes - half
        best = int(energies.argmin())
        marginals = in_field.node_scores(model.evidence(messages))[best].softmax(dim=0).T
        self.marginals_ = marginals
        self.free_energy_ = float(energies[best])
        self.connectivity_ = model.affinity[best] / model.num_nodes
        self.fractions_ = model.log_weights[best].exp()
        self.converged_ = bool(converged[best])
        if not self.converged_:
            warnings.warn(
                f"belief propagation has not converged to tol={self.tol:g} in {self.num_sweeps_} sweeps: labels are "
                "those of the last one; raise max_sweeps or damping",
                RuntimeWarning,
                stacklevel=3,
            )
        return marginals.argmax(dim=1)


def _in_field(model: BetheModel, mean: Tensor) -> BetheModel:
    field = (model.affinity @ mean[:, :, None]).squeeze(2)
    return replace(model, log_weights=model.log_weights - field)


def _checked_connectivity(connectivity: Tensor) -> Tensor:
    rates = torch.as_tensor(connectivity, dtype=torch.float64)
    if rates.dim() != 2 or rates.shape[0] != rates.shape[1] or not torch.equal(rates, rates.T):
        raise ValueError(
            f"connectivity must be a symmetric matrix (k, k), without NaN, got {tuple(rates.shape)} {rates.tolist()}"
        )
    if not (rates.min() >= 0 and 0 < rates.max() <= 1):
        raise ValueError(f"connectivity must hold probabilities from 0 to 1, not all 0, got {rates.tolist()}")
    return rates


def _checked_fractions(fractions: Tensor) -> Tensor:
    shares = torch.as_tensor(fractions, dtype=torch.float64)
    if shares.dim() != 1 or not (shares > 0).all() or not abs(float(shares.sum()) - 1) < 1e-6:
        raise ValueError(f"fractions must be positive numbers (k,) that sum to 1, got {shares.tolist()}")
    return shares
