"""Activations with two derivatives: tanh, sigmoid, softplus, GELU, SiLU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lightning_landscape.certificates.chord import UNIT, Chord, Deviation, between
from lightning_landscape.certificates.operation import Operation, Piece, Point

_ROUNDING = 512 * UNIT  # the functions of the library are taken to be right to some units in the last place


@dataclass(frozen=True)
class Curve:
    """A function of one number, its first two derivatives, and bounds of three.

    Attributes:
        value, slope, bend: f, f' and f''.
        slopes, bends: the least and the largest value of f' and f'' on the real line, or beyond.
        jerk: a bound of the absolute value of f'''.
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    bend: Callable[[Tensor], Tensor]
    slopes: tuple[float, float]
    bends: tuple[float, float]
    jerk: float


def _normal(x: Tensor) -> Tensor:
    return torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)


def _sigmoid_slope(x: Tensor) -> Tensor:
    sigmoid = x.sigmoid()
    return sigmoid * (1 - sigmoid)


def _sigmoid_bend(x: Tensor) -> Tensor:
    return _sigmoid_slope(x) * (1 - 2 * x.sigmoid())


TANH = Curve(
    torch.tanh,
    lambda x: 1 - x.tanh().square(),
    lambda x: -2 * x.tanh() * (1 - x.tanh().square()),
    (0.0, 1.0),
    (-0.77, 0.77),
    2.0,
)
SIGMOID = Curve(torch.sigmoid, _sigmoid_slope, _sigmoid_bend, (0.0, 0.25), (-0.0963, 0.0963), 0.125)
SOFTPLUS = Curve(
    lambda x: x.clamp_min(0) + torch.log1p(torch.exp(-x.abs())),
    torch.sigmoid,
    _sigmoid_slope,
    (0.0, 1.0),
    (0.0, 0.25),
    0.0963,
)
GELU = Curve(
    lambda x: functional.gelu(x),
    lambda x: 0.5 * torch.erfc(-x / math.sqrt(2)) + x * _normal(x),
    lambda x: (2 - x.square()) * _normal(x),
    (-0.13, 1.13),
    (-0.108, 0.798),
    0.78,
)
SILU = Curve(
    functional.silu,
    lambda x: x.sigmoid() + x * _sigmoid_slope(x),
    lambda x: 2 * _sigmoid_slope(x) + x * _sigmoid_bend(x),
    (-0.1, 1.1),
    (-0.08, 0.5),
    0.32,
)


class Smooth(Operation):
    """``h -> f(h)``: the chord is off by at most ``(dh)^2 |f''| / 2`` times s (1 - s), what h is off by the slope.

    Args:
        curve: the function.
    """

    def __init__(self, curve: Curve) -> None:
        self._curve = curve

    def value(self, inputs: Sequence[Tensor], point: Point) -> Tensor:
        """The output at one point."""
        return self._curve.value(inputs[0])

    def deviation(self, inputs: Sequence[Chord], start: Tensor, end: Tensor, piece: Piece) -> Deviation:
        """How far the output is from its chord."""
        chord, curve = inputs[0], self._curve
        low, high = chord.low, chord.high
        slope_slack = max(map(abs, curve.slopes))
        slack = slope_slack * chord.deviation.slack + _ROUNDING * (chord.largest + 1) * (1 + chord.largest)
        centre, step = (chord.start + chord.end) / 2, chord.end - chord.start
        reach = step.abs() / 2 + torch.maximum(low.abs(), high.abs()) / 4 + chord.deviation.slack
        bend, slope = curve.bend(centre), curve.slope(centre)
        least, most = (
            (bend - curve.jerk * reach).clamp_min(curve.bends[0]),
            (bend + curve.jerk * reach).clamp_max(curve.bends[1]),
        )
        sharp = max(map(abs, curve.bends))
        flat, steep = (
            (slope - sharp * reach).clamp_min(curve.slopes[0]),
            (slope + sharp * reach).clamp_max(curve.slopes[1]),
        )
        square = step.square() / 2
        # A slope may be negative, so that either end of h may give the least.
        products = torch.stack([flat * low, flat * high, steep * low, steep * high])
        down, up = products.amin(0) - square * most, products.amax(0) - square * least
        return between(down, up, slack)
