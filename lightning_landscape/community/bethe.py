"""Sum-product messages on the edges of a graph, and their Bethe free energy."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

# In place of 0 in logarithms: small enough to act as 0, large enough to be divided out again.
_TINY = 1e-100


@dataclass(frozen=True)
class BetheModel:
    """R pairwise models on one graph: ``P_r(x) ~ product over nodes i of w_r[x_i] over edges ij of C_r[x_i, x_j]``.

    A message ``psi[r, a, e]`` on the directed edge e = (i -> j) is the probability of x_i = a where edge ij is taken
    away. On a forest marginals and free energy at the fixed point are exact, reached after as many sweeps as the
    longest path has edges. Edges come last, which is what runs fast for few communities.

    Attributes:
        edge_index: (2, E2), both directions of each edge.
        rev_edge: (E2,), the reverse of each.
        num_nodes: n.
        log_weights: log w (R, k).
        affinity: C (R, k, k), symmetric, at least 0.
    """

    edge_index: Tensor
    rev_edge: Tensor
    num_nodes: int
    log_weights: Tensor
    affinity: Tensor

    def evidence(self, messages: Tensor) -> Tensor:
        """``log sum over a of C[b, a] psi[a, i -> j]`` (R, k, E2): what the edge i -> j tells of x_j = b."""
        return (self.affinity @ messages).clamp_min(_TINY).log()

    def node_scores(self, evidence: Tensor) -> Tensor:
        """``log w + sum over incoming edges of the evidence`` (R, k, n): logarithms of unnormalised marginals."""
        scores = self.log_weights[:, :, None].repeat(1, 1, self.num_nodes)
        return scores.index_add_(2, self.edge_index[1], evidence)

    def updated(self, evidence: Tensor, node_scores: Tensor) -> Tensor:
        """The messages (R, k, E2) that follow: the scores of a node, less what the receiver has told it."""
        senders = node_scores.index_select(2, self.edge_index[0])
        return (senders - evidence.index_select(2, self.rev_edge)).softmax(dim=1)

    def edge_marginals(self, messages: Tensor) -> Tensor:
        """Sums over directed edges i -> j of the joint probability of x_i = a and x_j = b (R, k, k)."""
        per_edge = messages / self._edge_norms(messages)[:, None]
        return self.affinity * (per_edge @ messages.index_select(2, self.rev_edge).mT)

    def free_energy(self, messages: Tensor) -> Tensor:
        """``-sum over nodes of log Z_i + sum over edges of log Z_ij`` (R,); -log of the partition function on trees."""
        nodes = self.node_scores(self.evidence(messages)).logsumexp(dim=1).sum(dim=1)
        return self._edge_norms(messages).log().sum(dim=1) / 2 - nodes

    def _edge_norms(self, messages: Tensor) -> Tensor:
        ends = messages.index_select(2, self.rev_edge) * (self.affinity @ messages)
        return ends.sum(dim=1).clamp_min(_TINY)
