"""Layers that take the largest of several numbers: ReLU, leaky ReLU, max pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lightning_landscape.certificates.chord import UNIT, Chord, Deviation, between
from lightning_landscape.certificates.operation import Operation, Piece, Point, UnsupportedError

# Of a bound that is made of fewer than thirty operations on numbers of at most six times the largest.
_ROUNDING = 256 * UNIT


class LeakyReLU(Operation):
    """``h -> max(h, 0) + slope min(h, 0)``; slope 0 is the ReLU.

    Args:
        slope: in [0, 1], so that the function is increasing and convex.
    """

    def __init__(self, slope: float = 0.0) -> None:
        if not 0 <= slope <= 1:
            raise UnsupportedError(f"negative_slope={slope} lies outside of [0, 1]")
        self._slope = slope

    def value(self, inputs: Sequence[Tensor], point: Point) -> Tensor:
        """The output at one point."""
        return functional.leaky_relu(inputs[0], self._slope) if self._slope else inputs[0].relu()

    def deviation(self, inputs: Sequence[Chord], start: Tensor, end: Tensor, piece: Piece) -> Deviation:
        """How far the output is from its chord."""
        chord = inputs[0]
        slack = chord.deviation.slack + _ROUNDING * chord.largest
        low, high = chord.low, chord.high
        down, up = relu_bounds(chord.start, chord.end, low, high)
        if self._slope:
            down, up = (
                down.mul_(1 - self._slope).add_(low, alpha=self._slope),
                up.mul_(1 - self._slope).add_(high, alpha=self._slope),
            )
        return between(down, up, slack)


class MaxPool(Operation):
    """The largest number of each window, in one or two dimensions.

    Args:
        kernel_size, stride, padding: as those of ``nn.MaxPool2d``, one number for each dimension.
    """

    def __init__(self, kernel_size: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> None:
        self._sizes = list(zip(kernel_size, stride, padding, strict=True))

    def value(self, inputs: Sequence[Tensor], point: Point) -> Tensor:
        """The output at one point."""
        return self._windows(inputs[0], -torch.inf).amax(-1)

    def deviation(self, inputs: Sequence[Chord], start: Tensor, end: Tensor, piece: Piece) -> Deviation:
        """How far the output is from its chord."""
        chord = inputs[0]
        slack = chord.deviation.slack + _ROUNDING * chord.largest
        first, last = self._windows(chord.start, -torch.inf), self._windows(chord.end, -torch.inf)
        low, high = self._windows(chord.low, 0.0), self._windows(chord.high, 0.0)
        return between(*max_bounds(first, last, low, high), slack)

    def _windows(self, h: Tensor, fill: float) -> Tensor:
        pads = [pad for _, _, padding in reversed(self._sizes) for pad in (padding, padding)]
        h = functional.pad(h, pads, value=fill) if any(pads) else h
        for axis, (size, stride, _) in enumerate(self._sizes):
            h = h.unfold(2 + axis, size, stride)
        return h.flatten(-len(self._sizes))


def relu_bounds(start: Tensor, end: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of the factor of s (1 - s) in ``max(h(s), 0) - (1 - s) max(start, 0) - s max(end, 0)``.

    Args:
        start, end: the ends of the chord of h.
        low, high: bounds of the factor of s (1 - s) in h.
    """
    gap = touching(start.abs(), end.abs())
    begins, ends = start >= 0, end >= 0
    on, crosses = begins & ends, begins != ends
    down = torch.where(on, low, 0.0)
    up = torch.where(on, torch.maximum(high, -gap), (high - gap).clamp_min_(0.0))
    # Most units keep their sign.
    where = crosses.nonzero(as_tuple=True)
    first, last = start[where], end[where]
    below, above = -torch.minimum(first, last), torch.maximum(first, last)
    down[where] = -crossing(below, above, low[where])
    up[where] = torch.maximum(high[where] - below, -above)
    return down, up


def max_bounds(start: Tensor, end: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of the factor of s (1 - s) in ``max_i h_i(s) - (1 - s) max_i start_i - s max_i end_i``, last axis."""
    (top, winner), (bottom, loser) = start.max(-1, keepdim=True), end.max(-1, keepdim=True)
    up = (high - touching(top - start, bottom - end)).amax(-1)
    first, second = low.gather(-1, winner), low.gather(-1, loser)
    # How far the one that wins at the end lies below at the start, and the other way round.
    behind, fallen = top - start.gather(-1, loser), bottom - end.gather(-1, winner)
    down = first - crossing(behind, fallen, second - first)
    down = torch.where(behind == 0, torch.maximum(down, second), down)
    down = torch.where(fallen == 0, torch.maximum(down, first), down)
    return down.squeeze(-1), up


def touching(start: Tensor, end: Tensor) -> Tensor:
    """The largest k with ``(1 - s) start + s end >= k s (1 - s)`` on all of [0, 1], for numbers of at least 0."""
    return (start.sqrt() + end.sqrt()).square_()


def crossing(below: Tensor, above: Tensor, factor: Tensor) -> Tensor:
    """The largest of ``min(above / (1 - s), below / s - factor)`` over s: how far a maximum falls below its chord."""
    reach = below + above - factor
    root = ((below - above - factor).square() + 4 * below * above).sqrt()
    return (reach + root) / 2
