"""The state of several runs of belief propagation on one graph, which are updated together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_landscape.community.bethe import BetheModel

# Of a community that learning has emptied, in place of 0.
_LEAST_FRACTION = 1e-12


@dataclass(frozen=True)
class Ended:
    """Where a restart ended.

    Attributes:
        marginals: (n, k).
        energy: its Bethe free energy per node.
        affinity: C (k, k).
        fractions: n_a (k,).
        sweeps: made until then.
        converged: whether it had converged.
    """

    marginals: Tensor
    energy: float
    affinity: Tensor
    fractions: Tensor
    sweeps: int
    converged: bool


class Restarts:
    """R runs from first messages.

    Args:
        model: parameters of each run, with the logarithms of the fractions (1, R, k) as its weights.
        weights: t (n, 1), of mean 1: how many edges a node expects, relative to the average one.
        messages: (E2, R, k).

    Attributes:
        messages: the newest ones.
    """

    def __init__(self, model: BetheModel, weights: Tensor, messages: Tensor) -> None:
        self.model = model
        self.weights = weights
        self.messages = messages
        # As uniform as the messages: fractions would send all nodes to one side in the first sweep.
        self.mean = messages.mean(dim=0)

    def sweep(self, damping: float) -> Tensor:
        """Update all messages at once, and return the old ones."""
        old = self.messages
        model = self._in_field()
        evidence = model.evidence(old)
        scores = model.node_scores(evidence)
        self.messages = model.updated(evidence, scores)
        # As damped as the messages: a field that runs ahead of them or lags behind would oscillate and grow.
        mean = self._mean(scores.softmax(dim=2), self.weights)
        self.mean = torch.lerp(mean, self.mean, damping)
        return old

    def damp(self, old: Tensor, damping: float) -> None:
        """Go back by a share of the way from the old messages."""
        self.messages = torch.lerp(self.messages, old, damping)

    def learn(self, which: Tensor, symmetric: bool, keep_fractions: bool) -> Tensor:
        """Take the parameters that are most likely under the marginals.

        Args:
            which: (R,), the runs that learn.
            symmetric: one affinity within communities and one between them, and the fractions stay.
            keep_fractions: the fractions stay.

        Returns:
            (R,), the largest change of an affinity relative to the largest one, infinite for runs that did not learn.
        """
        model, nodes = self.model, len(self.weights)
        edges = model.edge_marginals(self.messages)
        mean = self.mean.clamp_min(_LEAST_FRACTION)
        pairs = nodes * mean[:, :, None] * mean[:, None, :]
        if symmetric:
            edges, pairs = _pooled(edges), _pooled(pairs)
        affinity = edges / pairs
        # Symmetric but for rounding, which the next step would enlarge.
        affinity = torch.where(which[:, None, None], (affinity + affinity.mT) / 2, model.affinity)
        log_weights = model.log_weights
        if not (symmetric or keep_fractions):
            learned = self._mean(self._marginals(), 1.0).clamp_min(_LEAST_FRACTION).log()
            log_weights = torch.where(which[:, None], learned, log_weights)
        self.model = replace(model, log_weights=log_weights, affinity=affinity)
        change = (affinity - model.affinity).abs().amax((1, 2)) / model.affinity.amax((1, 2))
        return change.where(which, float("inf"))

    def energies(self) -> Tensor:
        """Bethe free energies per node (R,)."""
        # Pairs without an edge count in the field of both their ends: half of it goes.
        half = torch.einsum("ra,rab,rb->r", self.mean, self.model.affinity, self.mean) / 2
        return self._in_field().free_energy(self.messages) / len(self.weights) - half

    def only(self, which: Tensor) -> Restarts:
        """The runs of a mask (R,) alone."""
        model = replace(
            self.model, log_weights=self.model.log_weights[:, which], affinity=self.model.affinity[which].contiguous()
        )
        left = Restarts(model, self.weights, self.messages[:, which])
        left.mean = self.mean[which]
        return left

    def end(self, run: int, sweeps: int, converged: bool) -> Ended:
        """What has come of a run after this many sweeps."""
        alone = self.only(torch.arange(self.messages.shape[1], device=self.messages.device) == run)
        model = alone.model
        marginals, energy = alone._marginals()[:, 0], float(alone.energies())
        return Ended(marginals, energy, model.affinity[0], model.log_weights[0, 0].exp(), sweeps, converged)

    def _in_field(self) -> BetheModel:
        field = torch.einsum("rab,rb->ra", self.model.affinity, self.mean)
        return replace(self.model, log_weights=self.model.log_weights - self.weights[:, :, None] * field)

    def _marginals(self) -> Tensor:
        model = self._in_field()
        return model.node_scores(model.evidence(self.messages)).softmax(dim=2)

    @staticmethod
    def _mean(marginals: Tensor, weights: Tensor | float) -> Tensor:
        return (marginals.flatten(1) * weights).mean(dim=0).view_as(marginals[0])


def _pooled(sums: Tensor) -> Tensor:
    """Sums (R, k, k), spread evenly over the diagonal and over the rest."""
    k = sums.shape[1]
    within = sums.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] / k
    between = (sums.sum((1, 2))[:, None, None] - within * k) / (k * (k - 1))
    return torch.where(torch.eye(k, dtype=torch.bool, device=sums.device), within, between)
