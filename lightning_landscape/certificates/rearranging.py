"""Steps that only move, add or average numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from lightning_landscape.certificates.chord import UNIT, Chord, Deviation
from lightning_landscape.certificates.operation import Operation, Piece, Point


class Averaging(Operation):
    """A function that is linear with weights that are not negative: the same for h, m and rho.

    Args:
        run: the function.
        terms: how many numbers one output is made of, at most.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], terms: int) -> None:
        self._run = run
        self._rounding = 2 * (terms + 64) * UNIT if terms > 1 else 0.0

    def value(self, inputs: Sequence[Tensor], point: Point) -> Tensor:
        """The output at one point."""
        return self._run(inputs[0])

    def deviation(self, inputs: Sequence[Chord], start: Tensor, end: Tensor, piece: Piece) -> Deviation:
        """How far the output is from its chord."""
        middle, radius, slack = inputs[0].deviation
        if self._rounding:
            slack += self._rounding * inputs[0].largest
        return Deviation(
            None if middle is None else self._run(middle), None if radius is None else self._run(radius), slack
        )


class Combination(Operation):
    """``sum_i c_i h_i + c``, of tensors that broadcast.

    Args:
        factors: c_i.
        constant: c.
    """

    def __init__(self, factors: Sequence[float], constant: float = 0.0) -> None:
        self._factors = factors
        self._constant = constant

    def value(self, inputs: Sequence[Tensor], point: Point) -> Tensor:
        """The output at one point."""
        total = self._factors[0] * inputs[0] + self._constant
        for factor, h in zip(self._factors[1:], inputs[1:], strict=True):
            total = total + factor * h
        return total

    def deviation(self, inputs: Sequence[Chord], start: Tensor, end: Tensor, piece: Piece) -> Deviation:
        """How far the output is from its chord."""
        middle = radius = None
        slack = fresh = 0.0
        for factor, chord in zip(self._factors, inputs, strict=True):
            theirs, around, loose = chord.deviation
            # Broadcast by the zeros of the output.
            if theirs is not None:
                middle = factor * theirs + (start.new_zeros(start.shape) if middle is None else middle)
            if around is not None:
                radius = abs(factor) * around + (start.new_zeros(start.shape) if radius is None else radius)
            slack += abs(factor) * loose
            fresh += abs(factor) * chord.largest
        slack += 64 * UNIT * (fresh + abs(self._constant))
        return Deviation(middle, radius, slack * (1 + 2.0**-30))
