"""A mean with its error, which says what kind of error it is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Error(StrEnum):
    """What stands behind ``-+``."""

    OF_MEAN = "standard error"  # of the mean: the standard deviation divided by sqrt(count)
    DEVIATION = "standard deviation"  # of the values, with count - 1 in its denominator

    @property
    def label(self) -> str:
        """For the header of a column or the text beside a table."""
        return f"mean -+ {self}"


@dataclass(frozen=True)
class Mean:
    """A mean with its error.

    Attributes:
        mean: NaN of no values.
        error: NaN of fewer than two values.
        count: number of values.
        kind: which error it is.
    """

    mean: float
    error: float
    count: int
    kind: Error = Error.OF_MEAN

    @classmethod
    def of(cls, values: Sequence[float], kind: Error = Error.OF_MEAN) -> Mean:
        """The mean of some values.

        Args:
            values: any number of them.
            kind: which error to compute.

        Example:
            >>> Mean.of([1.0, 3.0]).text(2), Mean.of([1.0, 3.0], Error.DEVIATION).text(2), Mean.of([1.0]).text(2)
            ('2.00 -+ 1.00', '2.00 -+ 1.41', '1.00')
        """
        count = len(values)
        mean = statistics.fmean(values) if count else math.nan
        deviation = statistics.stdev(values) if count > 1 else math.nan
        return cls(mean, deviation / math.sqrt(count) if kind is Error.OF_MEAN and count else deviation, count, kind)

    @property
    def bar(self) -> tuple[float, float]:
        """The mean and the length of its bar in a figure, 0 where there is a single value."""
        return self.mean, self.error if self.count > 1 else 0.0

    def text(self, digits: int = 3) -> str:
        """``mean -+ error``, the mean alone of one value, ``-`` of none."""
        if not self.count:
            return "-"
        error = f" -+ {self.error:.{digits}f}" if self.count > 1 else ""
        return f"{self.mean:.{digits}f}{error}"
