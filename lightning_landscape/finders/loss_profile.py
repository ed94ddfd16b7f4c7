"""The running losses along a curve in training, and where on it they call for the next step."""

from __future__ import annotations

import torch
from torch import Tensor

_BINS = 20
_BY_LOSS = 0.8  # of the draws are made in proportion to the loss, the rest uniformly
_RECENT = 0.3  # weight of a new loss in the running mean of its bin


class LossProfile:
    """Running means of the training loss in equal bins of t in [0, 1]; a bin without any counts as the largest so far.

    Args:
        generator: of the random numbers of :meth:`draw`.

    Example:
        >>> profile = LossProfile(torch.Generator().manual_seed(0))
        >>> profile.note(0.5, 2.0)
        >>> profile.note(0.99, 1.0)
        >>> profile.at(0.52), profile.at(0.98), profile.at(0.0), profile.mean
        (2.0, 1.0, 2.0, 1.95)
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._losses: list[float | None] = [None] * _BINS

    def draw(self) -> Tensor:
        """A t, shape (1,): where losses are high more often, in proportion to them; everywhere now and then."""
        chance, inside = torch.rand(2, generator=self._generator).tolist()
        weights = torch.tensor(self._filled())
        weights -= weights.min().clamp(max=0.0)  # a loss may be negative
        if chance < _BY_LOSS and bool(weights.isfinite().all()) and float(weights.sum()) > 0:
            place = int(torch.multinomial(weights, 1, generator=self._generator))
            return torch.tensor([(place + inside) / _BINS])
        return torch.tensor([inside])

    def note(self, t: float, loss: float) -> None:
        """Takes a training loss at ``t`` into account."""
        place = self._bin(t)
        before = self._losses[place]
        self._losses[place] = loss if before is None else before + _RECENT * (loss - before)

    def at(self, t: float) -> float:
        """The running loss of the bin of ``t``."""
        return self._filled()[self._bin(t)]

    @property
    def mean(self) -> float:
        """Mean of the running losses over all bins."""
        return sum(self._filled()) / _BINS

    def _filled(self) -> list[float]:
        known = [loss for loss in self._losses if loss is not None]
        largest = max(known, default=1.0)
        return [largest if loss is None else loss for loss in self._losses]

    @staticmethod
    def _bin(t: float) -> int:
        return min(_BINS - 1, int(t * _BINS))
