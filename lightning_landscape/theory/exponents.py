"""The exponent of a power law, read from measured means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_FEWEST = 3  # points, below which a line says nothing


def fitted_exponent(sizes: Sequence[float], means: Sequence[float], floor: float = 0.0) -> float | None:
    """The exponent p of ``mean = c * size^p``: the least-squares slope of log(mean) over log(size).

    Args:
        sizes: positive numbers, such as the widths of networks.
        means: what was measured at each size, in the same order.
        floor: means at or below it are left out, because there the accuracy of the measurement shows.

    Returns:
        The slope, or ``None`` where fewer than three means lie above the floor.

    Raises:
        ValueError: if the lists differ in length, a size is not positive, or the floor is negative.

    Source:
        Freeman & Bruna (2017), Sec. 2.3, bounds the exponent of the excess over the width by -1/n; the fit is ours.

    Example:
        >>> round(fitted_exponent([2, 4, 8, 16], [0.5, 0.25, 0.125, 0.0]), 6)
        -1.0
    """
    if len(sizes) != len(means):
        raise ValueError(f"{len(sizes)} sizes do not go with {len(means)} means: give one mean for each size")
    if min(sizes, default=1) <= 0 or floor < 0:
        raise ValueError(f"sizes must be positive and the floor at least 0, got {list(sizes)} and {floor}")
    kept = [(size, mean) for size, mean in zip(sizes, means, strict=True) if mean > floor]
    if len(kept) < _FEWEST:
        return None
    logs = np.log(np.array(kept, dtype=np.float64))
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
