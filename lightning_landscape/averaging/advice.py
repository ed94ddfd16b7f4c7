"""Whether an average of models is worth having, by its loss and those of the models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

TOLERANCE = 0.01  # a loss that is larger by no more than this share of itself counts as no larger
_MUCH_WORSE = 1.0  # an average above the best model by this share of its loss spoils that model


class Advice(StrEnum):
    """What to do with an average."""

    AVERAGE = "average"  # as good as the best of the models, or better
    BEST_ALONE = "best alone"  # harmless: between the best and the worst of them
    AGAINST = "against"  # above the worst of them, or far above the best, or no number


def advice(loss: float, losses: Sequence[float]) -> Advice:
    """What to do with an average of loss ``loss`` of models with ``losses``.

    With b the smallest and w the largest of ``losses``: ``against`` above w + 0.01 |w| or above b + |b|, where one
    model alone is far better; ``average`` up to b + 0.01 |b|; in between ``best alone``.

    Args:
        loss: of the average.
        losses: of the models, at least one, measured in the same way. One that is not finite speaks against.

    Example:
        >>> str(advice(0.36, [0.37, 0.38])), str(advice(1.79, [0.37, 0.38])), str(advice(2.1, [0.3, 5.0]))
        ('average', 'against', 'against')
    """
    if not all(math.isfinite(value) for value in (loss, *losses)):
        return Advice.AGAINST
    best, worst = min(losses), max(losses)
    if loss > worst + TOLERANCE * abs(worst) or loss > best + _MUCH_WORSE * abs(best):
        return Advice.AGAINST
    return Advice.AVERAGE if loss <= best + TOLERANCE * abs(best) else Advice.BEST_ALONE
