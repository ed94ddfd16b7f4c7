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
    """Process ``rank`` of ``size`` takes items rank, rank + size, ...; all come together, also after an error.

    Args:
        rank: of this process.
        size: number of processes, each of which makes the same calls.
        together: runs the function that it is given in this process, and gives what it returned in each process, in
            the order of their ranks, to all of them. What travels has to be picklable.

    Raises:
        ValueError: if ``rank`` is not in [0, size).

    Example:
        >>> alone = Sharded(0, 1, together=lambda work: [work()])
        >>> alone(abs, [-1, 2])
        [1, 2]
    """

    def __init__(self, rank: int, size: int, together: Callable[[Callable[[], Any]], list[Any]]) -> None:
        if not 0 <= rank < size:
            raise ValueError(f"rank must lie in [0, size), got rank {rank} of {size}")
        self.rank = rank
        self.size = size
        self._together = together

    def __call__(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The results of all processes.

        Raises:
            BaseException: what ``function`` raised in this process; a RuntimeError if it raised in another.
        """
        failure: Exception | KeyboardInterrupt | SystemExit | None = None

        def work() -> tuple[list[R], str | None]:
            nonlocal failure
            try:
                return in_turn(function, items[self.rank :: self.size]), None
            except (Exception, KeyboardInterrupt, SystemExit) as error:  # the others wait for this process
                failure = error
                return [], f"{type(error).__name__}: {error}"

        outcomes = self._together(work)
        if failure is not None:
            raise failure
        for rank, (_, message) in enumerate(outcomes):
            if message is not None:
                raise RuntimeError(f"on rank {rank}: {message}")
        return [outcomes[index % self.size][0][index // self.size] for index in range(len(items))]
