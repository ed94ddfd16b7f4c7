"""Stochastic block models in time and memory of their edges."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_landscape.community.graph import CommunityGraph, community_graph


def stochastic_block_model(
    num_nodes: int,
    connectivity: Tensor,
    labels: Tensor | None = None,
    generator: torch.Generator | None = None,
    degree_weights: Tensor | None = None,
) -> CommunityGraph:
    r"""A graph with an edge between nodes i < j with probability ``P[y_i, y_j]``, independently.

    For each pair of communities the number of edges is binomial and the edges are then drawn without replacement, which
    is the same law: O(n + \|E\|) time and memory, no n x n array.

    With ``degree_weights`` theta it is the degree-corrected model: ``theta_i theta_j P[y_i, y_j]`` is the mean of a
    Poisson number of edges between i and j, of which repeats are merged, so that there is an edge with probability
    ``1 - exp(-theta_i theta_j P[y_i, y_j])``. Where that is small and theta has mean 1 in each community, node i
    expects theta_i times the edges of its community's average node.

    Args:
        num_nodes: n.
        connectivity: P (k, k), symmetric, probabilities. ``a / n`` and ``b / n`` for the sparse regime with a and b
            neighbours of a kind, ``a log(n) / n`` for the logarithmic one.
        labels: integers (n,) from 0 to k - 1, the communities y; some may be empty. ``None`` for k communities whose
            sizes differ by one at most, in random order.
        generator: source of randomness; ``None`` for the global one, as for the functions of torch. Graph and
            generator live on one device.
        degree_weights: theta (n,), at least 0, for the degree-corrected model.

    Returns:
        The graph with ``y``.

    Raises:
        ValueError: if an argument is out of its range or has a wrong shape.

    References:
        P. W. Holland, K. B. Laskey, S. Leinhardt, "Stochastic blockmodels: first steps", Social Networks 5, 1983.
        B. Karrer, M. E. J. Newman, "Stochastic blockmodels and community structure in networks", Phys. Rev. E 83, 2011.

    Example:
        >>> graph = stochastic_block_model(6, torch.eye(2), generator=torch.Generator().manual_seed(0))
        >>> graph.y.bincount(), graph.num_edges  # two triangles, both directions of each edge
        (tensor([3, 3]), 12)
    """
    if isinstance(num_nodes, bool) or not isinstance(num_nodes, int) or not 0 <= num_nodes < 2**31:
        raise ValueError(f"num_nodes must be an integer from 0 to 2**31 - 1, got {num_nodes!r}")
    rates = _checked_connectivity(connectivity, poisson=degree_weights is not None)
    device = torch.device("cpu") if generator is None else generator.device
    if labels is None:
        balanced = torch.arange(num_nodes, device=device) % len(rates)
        labels = balanced[torch.randperm(num_nodes, generator=generator, device=device)]
    labels = _checked_labels(labels, num_nodes, len(rates)).to(device)
    members = list(labels.argsort(stable=True).split(labels.bincount(minlength=len(rates)).tolist()))
    if degree_weights is None:
        pairs = _bernoulli_edges(rates, members, generator)
    else:
        pairs = _poisson_edges(rates, members, _checked_weights(degree_weights, num_nodes).to(device), generator)
    return community_graph(pairs, num_nodes, labels)


def _bernoulli_edges(rates: Tensor, members: list[Tensor], generator: torch.Generator | None) -> Tensor:
    first, second = torch.triu_indices(len(members), len(members)).tolist()
    sizes = [
        len(members[a]) * (len(members[a]) - 1) // 2 if a == b else len(members[a]) * len(members[b])
        for a, b in zip(first, second, strict=True)
    ]
    device = members[0].device
    totals = torch.tensor(sizes, dtype=torch.float64, device=device)
    counts = torch.binomial(totals, rates[first, second].to(device), generator=generator).long().tolist()
    edges = [torch.empty(2, 0, dtype=torch.int64, device=device)]
    for a, b, size, count in zip(first, second, sizes, counts, strict=True):
        if count == 0:
            continue
        number = distinct_integers(size, count, generator, device)
        length = len(members[b])
        if a == b:
            # Nodes on a circle: the pairs at distance 1, then those at distance 2, ..., half the circle at most.
            source, target = number % length, (number % length + 1 + number // length) % length
        else:
            source, target = number // length, number % length
        edges.append(torch.stack([members[a][source], members[b][target]]))
    return torch.cat(edges, dim=1)


def _poisson_edges(rates: Tensor, members: list[Tensor], weights: Tensor, generator: torch.Generator | None) -> Tensor:
    first, second = torch.triu_indices(len(members), len(members)).tolist()
    totals = torch.stack([weights[nodes].sum() for nodes in members])
    means = rates.to(weights.device)[first, second] * totals[first] * totals[second]
    # Ordered pairs of one community count each edge twice; those of a node with itself are dropped later.
    means[torch.tensor(first) == torch.tensor(second)] /= 2
    counts = torch.poisson(means, generator=generator).long().tolist()
    edges = [torch.empty(2, 0, dtype=torch.int64, device=weights.device)]
    for a, b, count in zip(first, second, counts, strict=True):
        if count:
            ends = [_weighted_choice(members[c], weights[members[c]], count, generator) for c in (a, b)]
            edges.append(torch.stack(ends))
    return torch.cat(edges, dim=1)


def _weighted_choice(nodes: Tensor, weights: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    # By inversion, because torch.multinomial takes 2^24 categories at most.
    cumulative = weights.cumsum(0)
    drawn = torch.rand(count, dtype=weights.dtype, device=nodes.device, generator=generator) * cumulative[-1]
    return nodes[torch.searchsorted(cumulative, drawn, right=True)]


def distinct_integers(
    size: int, count: int, generator: torch.Generator | None, device: torch.device | None = None
) -> Tensor:
    """A uniformly random set of ``count`` of the integers 0 to ``size - 1``, (count,) int64, in O(count).

    Example:
        >>> distinct_integers(10**15, 3, torch.Generator().manual_seed(0)).shape
        torch.Size([3])
    """
    if 4 * count > size:
        return torch.randperm(size, generator=generator, device=device)[:count]
    # Never more draws than are missing: the law is symmetric in the integers, so that all sets are equally likely.
    drawn = torch.empty(0, dtype=torch.int64, device=device)
    while len(drawn) < count:
        more = torch.randint(size, (count - len(drawn),), generator=generator, device=device)
        drawn = torch.cat([drawn, more]).unique()
    return drawn


def _checked_connectivity(connectivity: Tensor, poisson: bool) -> Tensor:
    rates = torch.as_tensor(connectivity, dtype=torch.float64)
    if rates.dim() != 2 or rates.shape[0] != rates.shape[1] or len(rates) == 0:
        raise ValueError(f"connectivity must be a matrix (k, k), got shape {tuple(rates.shape)}")
    if not torch.equal(rates, rates.T):
        raise ValueError(f"connectivity must be symmetric and without NaN, got {rates.tolist()}")
    most = float("inf") if poisson else 1.0
    if not (rates.isfinite().all() and rates.min() >= 0 and rates.max() <= most):
        raise ValueError(f"connectivity must hold probabilities from 0 to 1, got {rates.tolist()}")
    return rates


def _checked_labels(labels: Tensor, num_nodes: int, communities: int) -> Tensor:
    if labels.shape != (num_nodes,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels must be integers of shape ({num_nodes},), one a node, got {labels.dtype} {tuple(labels.shape)}"
        )
    if num_nodes and not (labels.min() >= 0 and labels.max() < communities):
        raise ValueError(
            f"labels must lie from 0 to k - 1 = {communities - 1}, the rows of connectivity, "
            f"got {int(labels.min())} to {int(labels.max())}"
        )
    return labels.long()


def _checked_weights(weights: Tensor, num_nodes: int) -> Tensor:
    weights = torch.as_tensor(weights, dtype=torch.float64)
    if weights.shape != (num_nodes,) or not (weights.isfinite().all() and (weights >= 0).all()):
        raise ValueError(f"degree_weights must be finite numbers of at least 0, shape ({num_nodes},), one a node")
    return weights
