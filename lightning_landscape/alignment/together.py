"""Several networks in one order of hidden units: permutations that agree with each other around every cycle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_landscape.alignment.by_weights import Descent, match_weights
from lightning_landscape.alignment.specification import Permutation, PermutationSpec

_RESOLUTION = 1e-9  # relative gain below which a round is rounding


def match_together(
    spec: PermutationSpec, points: Sequence[Tensor], seed: int = 0, restarts: int = 3
) -> list[list[Permutation]]:
    """One set of permutations for each network, which brings all of them close to each other.

    With theta_1, ..., theta_k the points, it looks for permutations P_i that maximise ::

        sum_{i < j} <P_i theta_i, P_j theta_j>,    P_1 = identity.

    All networks so come into one order of units, that of the first. From network i to network j leads
    P_j^-1 P_i, and so every way around a cycle is the identity, which matching each pair by itself does not give. The
    objective is that of the universal space of C2M3, which climbs it for all networks at once (Frank-Wolfe). Here one
    network after another is matched to the sum of the others, a step that never lowers it (Ainsworth et al. 2023,
    algorithm 3), until a round gains nothing. The answer is a local maximum.

    Args:
        spec: what may be permuted, as :func:`permutation_spec` derives it.
        points: the networks, (P,) each, at least one.
        seed: random seed of the orders in which groups are visited and of random starts.
        restarts: descents from which each network starts, of which the best one counts.

    Returns:
        For each network one permutation a group of the specification; for the first the identity.

    Raises:
        ValueError: for no points, and as :func:`match_weights` does.

    Source: Crisostomi, Fumero, Baieri, Bernard & Rodola (2024), "C2M3: Cycle-Consistent Multi-Model Merging", arXiv
    2405.17897, Eq. 4.

    Example:
        >>> from torch import nn
        >>> from lightning_landscape.alignment import permutation_spec
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> theta = nn.utils.parameters_to_vector(net.parameters()).detach()
        >>> spec = permutation_spec(net, torch.zeros(1, 2))
        >>> points = [theta, spec.apply(theta, spec.random(1)), spec.apply(theta, spec.random(2))]
        >>> found = match_together(spec, points)
        >>> all(torch.equal(spec.apply(point, p), theta) for point, p in zip(points, found))
        True
    """
    if not points:
        raise ValueError("points is empty: there is nothing to match")
    first = points[0]
    found = [spec.identity()]
    found += [match_weights(spec, first, point, seed, restarts).permutations for point in points[1:]]
    if len(points) < 3:
        return found
    generator = np.random.default_rng(seed)
    copies = [spec.apply(point, p).to(first) for point, p in zip(points, found, strict=True)]
    total = torch.stack(copies).sum(0)
    gaining = True
    while gaining:
        gaining = False
        for number in range(1, len(points)):
            others = total - copies[number]
            descent = Descent(spec, others, points[number], found[number])
            objectives = descent.run(range(len(spec.groups)), generator)
            if objectives[-1] - objectives[0] > _RESOLUTION * abs(objectives[-1]):
                gaining = True
                found[number] = descent.permutations
                copies[number] = spec.apply(points[number], found[number]).to(first)
                total = others + copies[number]
    return found
