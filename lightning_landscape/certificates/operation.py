"""What the bound has to know of each layer: its value at a point, and how far its output is from a chord."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_landscape.certificates.chord import Chord, Deviation

Point = Mapping[str, Tensor]


class UnsupportedError(ValueError):
    """A layer, a loss or a surface that nothing is proved about; the message names it."""


@dataclass(frozen=True)
class Piece:
    """A piece of a segment in parameter space.

    Attributes:
        start, end: the trainable parameters at its ends by name, double precision.
        largest: for each name an upper bound of the absolute values on the whole segment.
    """

    start: Point
    end: Point
    largest: Point


class Operation(ABC):
    """One step of a forward pass."""

    @abstractmethod
    def value(self, inputs: Sequence[Tensor], point: Point) -> Tensor:
        """The output at one point in parameter space."""

    @abstractmethod
    def deviation(self, inputs: Sequence[Chord], start: Tensor, end: Tensor, piece: Piece) -> Deviation:
        """How far the output is from the chord of ``start`` and ``end``, its values at the ends of the piece."""
