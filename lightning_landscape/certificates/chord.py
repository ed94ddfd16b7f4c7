"""A number that depends on s in [0, 1], as its chord and what it can be away from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

UNIT = 2.0**-52  # twice the unit roundoff of double precision


class Deviation(NamedTuple):
    """What is known of ``h(s) - (1 - s) h_0 - s h_1``: it lies within ``s (1 - s) (middle +- radius) +- slack``.

    Attributes:
        middle, radius: tensors of the shape of h; ``None`` for zero.
        slack: a number for all of h, which takes up rounding.
    """

    middle: Tensor | None
    radius: Tensor | None
    slack: float


@dataclass(frozen=True)
class Chord:
    """A tensor h(s) along a piece of a segment, ``h(s) = (1 - s) start + s end + deviation(s)``.

    Attributes:
        start, end: the ends of the chord, double precision.
        deviation: bounds of what h is away from it.
    """

    start: Tensor
    end: Tensor
    deviation: Deviation

    @property
    def fixed(self) -> bool:
        """Whether h does not depend on s, but for rounding."""
        return self.start is self.end and self.deviation.middle is None and self.deviation.radius is None

    @property
    def low(self) -> Tensor:
        """Lower bound of the factor of s (1 - s)."""
        return self._side(-1)

    @property
    def high(self) -> Tensor:
        """Upper bound of the factor of s (1 - s)."""
        return self._side(1)

    @property
    def spread(self) -> Tensor | None:
        """Bound of the absolute value of the factor of s (1 - s); ``None`` for zero."""
        middle, radius, _ = self.deviation
        if middle is None or radius is None:
            return radius if middle is None else middle.abs()
        return middle.abs() + radius

    @property
    def largest(self) -> float:
        """Bound of all absolute values of h(s), and of the factors of s (1 - s)."""
        spread = self.spread
        size = max(_largest(self.start), _largest(self.end))
        return (size + (0.0 if spread is None else _largest(spread))) * (1 + UNIT) + self.deviation.slack

    def _side(self, sign: int) -> Tensor:
        middle, radius, _ = self.deviation
        if middle is None:
            middle = torch.zeros_like(self.start)
        return middle if radius is None else torch.add(middle, radius, alpha=sign)


def between(low: Tensor, high: Tensor, slack: float) -> Deviation:
    """The deviation with a factor of s (1 - s) between ``low`` and ``high``."""
    middle = (low + high) / 2
    return Deviation(middle, (high - low).div_(2).clamp_min_(0.0), slack)


def _largest(tensor: Tensor) -> float:
    if not tensor.numel():
        return 0.0
    low, high = torch.aminmax(tensor)
    # In this order a NaN stays one.
    return max(float(high), -float(low)) if bool(low == low) else float("nan")
