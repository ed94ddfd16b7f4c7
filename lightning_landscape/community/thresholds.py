"""Where communities of the symmetric block model can be found: parameters and the thresholds known for them.

In the symmetric model of k equal communities nodes of one community are joined with probability a / n, others with
b / n (``exact_recovery``: times log n). With average degree d, the second eigenvalue lambda of the walk over labels and
the information D that edges carry about them,

    d = (a + (k - 1) b) / k,    lambda = (a - b) / (k d),    SNR = d lambda^2 = (a - b)^2 / (k (a + (k - 1) b)),
    D = (a log a + (k - 1) b log b) / k - d log d.
"""

from __future__ import annotations

import math
from enum import StrEnum
from fractions import Fraction

import torch
from torch import Tensor


def average_degree(a: float, b: float, num_communities: int) -> float:
    """``d = (a + (k - 1) b) / k``.

    Args:
        a: n times the probability of an edge between two nodes of one community.
        b: n times the probability of an edge between nodes of different communities.
        num_communities: k, the number of communities, all of one size.

    Raises:
        ValueError: if a or b is negative or not finite, both are 0, or there are fewer than 2 communities.

    Example:
        >>> average_degree(5.5, 0.5, num_communities=2)
        3.0
    """
    _require_rates(a, b, num_communities)
    return (a + (num_communities - 1) * b) / num_communities


def signal_to_noise(a: float, b: float, num_communities: int) -> float:
    """``SNR = (a - b)^2 / (k (a + (k - 1) b))``, which is 1 at the Kesten-Stigum threshold.

    Above 1, efficient methods find communities better than chance (belief propagation, non-backtracking spectrum);
    below it nothing does for k = 2, and no efficient method is known for any k.

    Args:
        a: n times the probability of an edge between two nodes of one community.
        b: n times the probability of an edge between nodes of different communities.
        num_communities: k, the number of communities, all of one size.

    Raises:
        ValueError: if a or b is negative or not finite, both are 0, or there are fewer than 2 communities.

    References:
        A. Decelle, F. Krzakala, C. Moore, L. Zdeborova, Phys. Rev. E 84, 066106, 2011.
        E. Mossel, J. Neeman, A. Sly, "Reconstruction and estimation in the planted partition model", 2015 (k = 2).

    Example:
        >>> signal_to_noise(5.0, 1.0, num_communities=2), signal_to_noise(0.0, 18.0, num_communities=5)
        (1.3333333333333333, 0.9)
    """
    degree = average_degree(a, b, num_communities)
    return (a - b) ** 2 / (num_communities**2 * degree)


def rates_from_snr(snr: float, degree: float, num_communities: int, assortative: bool = True) -> tuple[float, float]:
    """The rates (a, b) with this SNR and average degree: ``b = d -+ sqrt(SNR d)``, ``a = d +- (k - 1) sqrt(SNR d)``.

    Args:
        snr: from 0 to d, where b = 0; to ``d / (k - 1)^2``, where a = 0, if not assortative.
        degree: d, positive.
        num_communities: k.
        assortative: a > b, upper signs; else a < b.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> rates_from_snr(4 / 3, degree=3.0, num_communities=2)
        (5.0, 1.0)
    """
    if not (isinstance(num_communities, int) and num_communities >= 2):
        raise ValueError(f"num_communities must be an integer of at least 2, got {num_communities!r}")
    if not 0 < degree < math.inf:
        raise ValueError(f"degree must be positive and finite, got {degree!r}")
    most = degree if assortative else degree / (num_communities - 1) ** 2
    if not 0 <= snr <= most * (1 + 1e-12):  # so that a user's 0.9 and a rounded 14.4 / 16 go together
        kind = "assortative" if assortative else "disassortative"
        raise ValueError(
            f"snr must lie from 0 to {most:g} for {num_communities} {kind} communities of average degree {degree:g}, "
            f"got {snr!r}"
        )
    difference = math.sqrt(snr * degree) if assortative else -math.sqrt(snr * degree)
    # At the largest SNR one rate is 0, and rounding must not make it negative.
    return max(degree + (num_communities - 1) * difference, 0.0), max(degree - difference, 0.0)


def symmetric_connectivity(
    num_nodes: int, a: float, b: float, num_communities: int, logarithmic: bool = False
) -> Tensor:
    """The probabilities (k, k): a / n on the diagonal and b / n off it, for :func:`stochastic_block_model`.

    Args:
        num_nodes: n.
        a, b: rates within communities and between them.
        num_communities: k.
        logarithmic: ``a log(n) / n`` and ``b log(n) / n``, the regime of exact recovery.

    Raises:
        ValueError: if a probability exceeds 1; as :func:`average_degree`.

    Example:
        >>> symmetric_connectivity(100, 5.0, 1.0, num_communities=2)
        tensor([[0.0500, 0.0100],
                [0.0100, 0.0500]], dtype=torch.float64)
    """
    _require_rates(a, b, num_communities)
    if not (isinstance(num_nodes, int) and num_nodes >= 1):
        raise ValueError(f"num_nodes must be an integer of at least 1, got {num_nodes!r}")
    scale = (math.log(num_nodes) if logarithmic else 1.0) / num_nodes
    if max(a, b) * scale > 1:
        raise ValueError(
            f"rates a = {a:g}, b = {b:g} are probabilities {a * scale:g}, {b * scale:g} for num_nodes = {num_nodes}: "
            f"they must be at most {1 / scale:g}"
        )
    connectivity = torch.full((num_communities, num_communities), b * scale, dtype=torch.float64)
    return connectivity.fill_diagonal_(a * scale)


class Detectability(StrEnum):
    """What is proved of finding communities better than by chance in large graphs."""

    EASY = "easy"  # by efficient algorithms
    HARD = "hard"  # by search through all partitions, no efficient algorithm is known
    UNKNOWN = "unknown"  # between the bounds
    IMPOSSIBLE = "impossible"  # by nothing


def detectability(a: float, b: float, num_communities: int) -> Detectability:
    r"""Which side of the thresholds the symmetric model lies on.

    ``EASY`` above Kesten-Stigum. ``HARD`` below it where a partition that fits as well as the planted one is nearly
    always like it. A partition unlike it fits as well with probability exp(-n D / 2), and k^n compete; but many are
    like the planted one, because nodes of trees that hang from the 2-core take any label at the price of the channel,
    or because nodes without neighbours in their own and in another community can change to it. Counting both,

        D > 2 log k (1 - tau) / (1 - tau / d),              tau e^-tau = d e^-d, tau < 1 < d, or
        D > 2 log k - 2 log 2 e^(-a/k) (1 - (1 - e^(-b/k))^(k-1)).

    ``IMPOSSIBLE`` for SNR <= 1 when k = 2, and for ``SNR < 2 log(k - 1) / (k - 1)`` when k > 2, where graphs cannot be
    told from those without communities; also where d <= 1, without a giant component.

    Args:
        a: n times the probability of an edge between two nodes of one community.
        b: n times the probability of an edge between nodes of different communities.
        num_communities: k, the number of communities, all of one size.

    Raises:
        ValueError: if a or b is negative or not finite, both are 0, or there are fewer than 2 communities.

    References:
        E. Abbe, C. Sandon, "Detection in the stochastic block model with multiple clusters", 2016: the two conditions,
        which cross Kesten-Stigum at k = 4.
        J. Banks, C. Moore, J. Neeman, P. Netrapalli, "Information-theoretic thresholds for community detection in
        sparse networks", COLT 2016: impossibility.

    Example:
        >>> detectability(5.0, 1.0, num_communities=2), detectability(0.0, 18.5, num_communities=5)
        (<Detectability.EASY: 'easy'>, <Detectability.HARD: 'hard'>)
    """
    k, degree, snr = num_communities, average_degree(a, b, num_communities), signal_to_noise(a, b, num_communities)
    if degree <= 1:
        return Detectability.IMPOSSIBLE
    if snr > 1:
        return Detectability.EASY
    if k == 2 or snr < 2 * math.log(k - 1) / (k - 1):
        return Detectability.IMPOSSIBLE
    information = (_entropy(a) + (k - 1) * _entropy(b)) / k - _entropy(degree)
    tau = _conjugate_degree(degree)
    trees = 2 * math.log(k) * (1 - tau) / (1 - tau / degree)
    free = math.exp(-a / k) * (1 - (1 - math.exp(-b / k)) ** (k - 1))
    exchanges = 2 * math.log(k) - 2 * math.log(2) * free
    return Detectability.HARD if information > min(trees, exchanges) else Detectability.UNKNOWN


def critical_degrees(correlation: float, num_communities: int) -> tuple[float, float]:
    """Average degrees below which detection is impossible and above which search through all partitions detects.

    At fixed lambda, with Kesten-Stigum at ``1 / lambda^2``:

        2 log(k - 1) / ((k - 1) lambda^2)  and
        2 k log k / ((1 + (k - 1) lambda) log(1 + (k - 1) lambda) + (k - 1) (1 - lambda) log(1 - lambda)).

    The upper one lies below Kesten-Stigum for all lambda near 0 where k >= 11, and for communities without inner
    edges, lambda = -1 / (k - 1), where k >= 5.

    Args:
        correlation: lambda, from -1 / (k - 1) to 1, not 0.
        num_communities: k, at least 3.

    Raises:
        ValueError: if an argument is out of its range.

    References:
        J. Banks, C. Moore, J. Neeman, P. Netrapalli, COLT 2016.

    Example:
        >>> [round(degree, 2) for degree in critical_degrees(-0.25, num_communities=5)]
        [11.09, 14.43]
    """
    k = num_communities
    if not (isinstance(k, int) and k >= 3):
        raise ValueError(f"num_communities must be an integer of at least 3, got {k!r}: for 2 the threshold is SNR = 1")
    if not -1 / (k - 1) <= correlation <= 1 or correlation == 0:
        raise ValueError(
            f"correlation must lie from -1 / (k - 1) = {-1 / (k - 1):g} to 1 and not be 0, got {correlation!r}"
        )
    lower = 2 * math.log(k - 1) / ((k - 1) * correlation**2)
    information = _entropy(max(1 + (k - 1) * correlation, 0.0)) + (k - 1) * _entropy(1 - correlation)
    return lower, 2 * k * math.log(k) / information


def exact_recovery(a: float, b: float, num_communities: int) -> bool:
    """Whether all labels can be found in large graphs with probabilities a log(n) / n and b log(n) / n.

    That is so when ``|sqrt(a) - sqrt(b)| > sqrt(k)``, and then efficiently; not so when it is smaller. At equality it
    is so if a and b are positive. With a rate of 0 it is not: the expected number of isolated nodes tends to 1. The
    theorem cited for k > 2 leaves equality open; the answer there is that for two communities, where it is proved.

    Args:
        a: the factor of log(n) / n in the probability of an edge between two nodes of one community.
        b: the factor of log(n) / n in the probability of an edge between nodes of different communities.
        num_communities: k, the number of communities, all of one size.

    Raises:
        ValueError: if a or b is negative or not finite, both are 0, or there are fewer than 2 communities.

    References:
        E. Abbe, A. S. Bandeira, G. Hall, "Exact recovery in the stochastic block model", 2016; E. Mossel, J. Neeman,
        A. Sly, "Consistency thresholds for the planted bisection model", 2015 (k = 2, with equality). E. Abbe,
        C. Sandon, "Community detection in general stochastic block models", FOCS 2015 (any k).

    Example:
        >>> exact_recovery(9.0, 1.0, num_communities=2), exact_recovery(5.0, 1.0, num_communities=2)
        (True, False)
        >>> exact_recovery(8.0, 2.0, num_communities=2), exact_recovery(2.0, 0.0, num_communities=2)
        (True, False)
    """
    _require_rates(a, b, num_communities)
    # (sqrt(a) - sqrt(b))^2 against k without roots, so that equality is exact.
    excess = Fraction(a) + Fraction(b) - num_communities
    distance = (excess > 0) * excess**2 - 4 * Fraction(a) * Fraction(b)
    if distance == 0:
        return a > 0 and b > 0
    return distance > 0


def _entropy(x: float) -> float:
    return x * math.log(x) if x > 0 else 0.0


def _conjugate_degree(degree: float) -> float:
    """The solution tau < 1 of ``tau e^-tau = d e^-d``: the degree of what is left outside the giant component."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (middle, high) if math.log(middle) - middle < math.log(degree) - degree else (low, middle)


def _require_rates(a: float, b: float, num_communities: int) -> None:
    for name, rate in (("a", a), ("b", b)):
        if not 0 <= rate < math.inf:
            raise ValueError(f"{name} must be finite and at least 0, got {rate!r}")
    if a == b == 0:
        raise ValueError("a and b must not both be 0: there would be no edges")
    if isinstance(num_communities, bool) or not isinstance(num_communities, int) or num_communities < 2:
        raise ValueError(f"num_communities must be an integer of at least 2, got {num_communities!r}")
