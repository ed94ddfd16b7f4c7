"""Values as plain JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
from torch import Tensor


def plain_json(value: Any) -> Any:
    """A value made of nothing but what JSON knows, so that every reader of a file understands it.

    Args:
        value: numbers, strings, ``None``, enums, NumPy scalars and arrays, tensors, and mappings and sequences of
            them, nested in any way. Anything else is returned as it is, for ``json.dumps`` to refuse.

    Returns:
        A number that is not finite as ``None``, an enum as its value, a mapping as a ``dict`` with keys made plain,
        a sequence, array or tensor as a list, nested by its axes; an array or tensor without axes as its number.

    Example:
        >>> plain_json({"height": float("inf"), "bends": (np.int64(2), np.array([0.5, np.nan]))})
        {'height': None, 'bends': [2, [0.5, None]]}
    """
    if isinstance(value, Enum):  # before strings and numbers, which an enum may be, too
        return plain_json(value.value)
    if isinstance(value, Tensor):
        return plain_json(value.detach().cpu().tolist())
    if isinstance(value, np.ndarray | np.generic):
        return plain_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain_json(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return value
