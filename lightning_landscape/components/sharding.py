"""One function over many items, in this process or shared among several, with the same results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Share(Protocol):
    """Applies ``function`` to every item and gives all results, in the order of the items, to every process."""

    def __call__(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The results; every process calls with the same items, and gets the same list."""


def in_turn(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """All items in this process, one after the other.

    Example:
        >>> in_turn(abs, [-1, 2])
        [1, 2]
    """
    return [function(item) for item in items]


class Sharded:
    """Process ``rank`` of ``size`` takes items rank, rank + size, ...; one gather, reached also after an error.

    Args:
        rank: of this process.
        size: number of processes, each of which makes the same calls.
        gather: gives the objects of all processes, in the order of their ranks, to each of them; for example
            ``dist.all_gather_object`` over a gloo group. Objects have to be picklable.

    Raises:
        ValueError: if ``rank`` is not in [0, size).

    Example:
        >>> alone = Sharded(0, 1, gather=lambda mine: [mine])
        >>> alone(abs, [-1, 2])
        [1, 2]
    """

    def __init__(self, rank: int, size: int, gather: Callable[[Any], list[Any]]) -> None:
        if not 0 <= rank < size:
            raise ValueError(f"rank must lie in [0, size), got rank {rank} of {size}")
        self.rank = rank
        self.size = size
        self._gather = gather

    def __call__(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The results of all processes.

        Raises:
            BaseException: what ``function`` raised in this process; a RuntimeError if it raised in another.
        """
        mine: list[R] = []
        failure: BaseException | None = None
        try:
            for item in items[self.rank :: self.size]:
                mine.append(function(item))  # noqa: PERF401 - a comprehension would lose what came before an error
        except BaseException as error:  # an interrupt too: the others wait for this one
            failure = error
        outcomes = self._gather((mine, None if failure is None else f"{type(failure).__name__}: {failure}"))
        if failure is not None:
            raise failure
        for rank, (_, message) in enumerate(outcomes):
            if message is not None:
                raise RuntimeError(f"on rank {rank}: {message}")
        return [outcomes[index % self.size][0][index // self.size] for index in range(len(items))]
