"""Between which samples of a loss along a line it may rise above a level, judged by its curvature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

_SAFETY = 4.0  # the curvature between samples may be this many times the largest that they show nearby


def rising_gaps(losses: Mapping[float, float], level: float) -> list[tuple[float, float]]:
    """The gaps between neighbouring samples in which E may rise above ``level``.

    Where ``|E''| <= c`` between samples at a < b, E lies below the parabola through both of second derivative -c. Its
    maximum is at an end where the slope s between the samples is at least ``c (b - a) / 2``, and else
    ``(E(a) + E(b)) / 2 + c (b - a)^2 / 8 + s^2 / (2 c)``. As c stands four times the
    largest second divided difference, ``2 [(E_3 - E_2) / (t_3 - t_2) - (E_2 - E_1) / (t_2 - t_1)] / (t_3 - t_1)``,
    among the triples of samples that touch the gap. That is an estimate: a peak narrower than the samples are apart
    escapes it, as it would escape the samples of any grid.

    Args:
        losses: finite losses by t, at least two.
        level: the level u.

    Example:
        >>> rising_gaps({0.0: 1.0, 0.5: 0.2, 1.0: 1.0}, level=5.0)
        []
        >>> rising_gaps({0.0: 1.0, 0.5: 0.9, 1.0: 1.0}, level=1.0)
        [(0.0, 0.5), (0.5, 1.0)]
    """
    t = sorted(losses)
    slopes = [(losses[b] - losses[a]) / (b - a) for a, b in pairwise(t)]
    # One a sample between the ends; two samples alone show no curvature, and leave everything open.
    bends = [2 * abs(slopes[i + 1] - slopes[i]) / (t[i + 2] - t[i]) for i in range(len(t) - 2)]
    gaps = []
    for index, (a, b) in enumerate(pairwise(t)):
        near = bends[max(0, index - 2) : index + 2]
        if not _bound(losses[a], losses[b], b - a, _SAFETY * max(near, default=math.inf)) <= level:
            gaps.append((a, b))
    return gaps


def _bound(first: float, last: float, width: float, curvature: float) -> float:
    if not curvature < math.inf:
        return math.inf
    slope = abs(last - first) / width
    if slope >= curvature * width / 2:
        return max(first, last)
    return (first + last) / 2 + curvature * width**2 / 8 + slope**2 / (2 * curvature)


def vertex(losses: Mapping[float, float]) -> list[float]:
    """Where the parabola through the highest sample and its two neighbours has its top; nothing at an end.

    Args:
        losses: finite losses by t.

    Example:
        >>> vertex({0.0: 0.0, 0.5: 0.75, 1.0: 1.0, 2.0: 0.0})
        [1.0]
    """
    t = sorted(losses)
    top = max(range(len(t)), key=lambda index: losses[t[index]])
    if not 0 < top < len(t) - 1:
        return []
    a, b, c = t[top - 1 : top + 2]
    left, right = (losses[b] - losses[a]) / (b - a), (losses[c] - losses[b]) / (c - b)
    # Newton's form: the slope at the middle of each gap, and where the straight line between the two is 0.
    return [(a + b) / 2 + (c - a) / 2 * left / (left - right)] if left > right else []
