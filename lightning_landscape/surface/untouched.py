"""Batches that a loss changes: every evaluation has to get them as they were."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


class Untouched:
    """Gives a loss its batches, or copies of them once it was seen to change one: in place, or by taking a part out.

    Attributes:
        changed: whether the loss changes what it gets; ``None`` until a first batch has shown it.

    Example:
        >>> guard, batch = Untouched(), [1, 2]
        >>> given = guard.give(batch)
        >>> given.pop(), guard.look(given), guard.changed, batch
        (2, None, True, [1, 2])
    """

    def __init__(self) -> None:
        self.changed: bool | None = None
        self._before: list[tuple[int, int]] = []

    def give(self, batch: Any) -> Any:
        """The batch, or a copy."""
        if self.changed is False:
            return batch
        given = copy.deepcopy(batch)
        self._before = list(_parts(given, set()))
        return given

    def look(self, given: Any) -> None:
        """Sees what the loss has left of what was given."""
        if self.changed is None:
            self.changed = list(_parts(given, set())) != self._before


def _parts(value: Any, seen: set[int]) -> Iterator[tuple[int, int]]:
    """What a batch consists of, and how often each tensor was written."""
    if id(value) in seen:
        return
    seen.add(id(value))
    yield id(value), value._version if isinstance(value, Tensor) else 0
    inner: Any = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    elif not isinstance(value, Tensor | type) and hasattr(value, "__dict__"):
        inner = vars(value).values()
    for item in inner:
        yield from _parts(item, seen)
