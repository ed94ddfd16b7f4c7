"""A meeting of the processes of a run in which nobody waits for one that is gone."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from torch.distributed import Store  # type: ignore[attr-defined]

T = TypeVar("T")
_PART = 1 << 20  # bytes; a TCPStore takes no value above 8 MiB
_LEAST_PAUSE, _PAUSE, _PAUSE_PER_RANK = 0.002, 0.1, 0.002  # seconds between two looks
_LOOKS = 20  # within a timeout, at least


class RankLostError(RuntimeError):
    """A process of the run did not come to a meeting, or stopped answering in it."""


class _Interruption(BaseException):
    """Ends work on rank zero; no handler of ordinary errors may take it for one of the work's own."""


class Meeting:
    """Processes of a run work, alone or each on its share; each beats in the store as long as it is there.

    A thread raises the process's own counter in the store and reads those of the processes it waits for: rank zero
    waits for all, the others for rank zero. Rank zero works while they wait for its answer, or work too and
    :meth:`bring` what they found. The wait has no end of its own. It ends when a counter stands still for
    ``timeout`` seconds, or when the store, which rank zero's process keeps, is gone. Nothing here is a collective,
    and the thread does all that talks to the store, because a stopped rank zero lets a call to its store hang.

    Args:
        store: of the process group.
        name: of this meeting, the same in every process and used once.
        rank: of this process.
        size: number of processes.
        timeout: seconds, as the run's process group has them.
        what: the work, for messages.
        advice: what to do where a process was only slow, for messages.
    """

    def __init__(self, store: Store, name: str, rank: int, size: int, timeout: float, what: str, advice: str) -> None:
        self._store = store
        self._name = name
        self._rank = rank
        self._timeout = timeout
        self._what = what
        self._advice = advice
        self._longest_pause = min(max(_PAUSE, _PAUSE_PER_RANK * size), timeout / _LOOKS)
        self._watched = [0] if rank else list(range(1, size))
        self._beats = dict.fromkeys(self._watched, 0)
        self._heard = dict.fromkeys(self._watched, time.monotonic())
        self._parts: list[bytes] = []  # rank zero's answer, once it is there
        self._received: set[int] = set()  # ranks that have it
        self._brought: dict[int, list[bytes]] = {}  # what the others have found, by rank
        self._collecting = False
        self._finished = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._armed = self._interrupting = self._done = False
        self._closing = False
        self._failure: Exception | None = None  # of the store
        self._thread = threading.Thread(target=self._attend, name=f"landscape {name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Meeting:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the beats, so that a process which leaves by an interrupt is missed, too."""
        self._closing = True
        self._wake.set()

    def lost(self) -> list[int]:
        """The processes that this one waits for in vain."""
        now = time.monotonic()
        waiting = [rank for rank in self._watched if rank not in self._received]
        if self._failure is not None:
            return waiting
        return [rank for rank in waiting if now - self._heard[rank] > self._timeout]

    def error(self, lost: Iterable[int]) -> RankLostError:
        """What to raise where ``lost`` are lost."""
        absent = [rank for rank in lost if not self._beats[rank]]
        gone = [rank for rank in lost if self._beats[rank]]
        parts = [f"{_named(absent)} did not come to {self._what}"] if absent else []
        parts += [f"{_named(gone)} stopped answering during {self._what}"] if gone else []
        store = f" (the store of the process group is gone: {self._failure})" if self._failure is not None else ""
        return RankLostError(
            f"{' and '.join(parts)}, within {self._timeout:g} s{store}. Read the output of that process: it died, "
            f"stalled, or left early. {self._advice}"
        )

    # On rank zero

    def assemble(self) -> None:
        """Waits until every process has come.

        Raises:
            RankLostError: if one does not come in time.
        """
        for pause in self._pauses():
            if all(self._beats.values()):
                return
            lost = self.lost()
            if lost:
                raise self.error(lost)
            time.sleep(pause)

    def work(self, compute: Callable[[], T]) -> T:
        """The result of ``compute``, which is interrupted when a process is lost; in the main thread alone.

        Raises:
            RankLostError: if one was lost.
        """
        try:
            with self._interruptible():
                result = compute()
        except _Interruption:
            raise self.error(self.lost()) from None
        lost = self.lost()
        if lost:
            raise self.error(lost)
        return result

    def collect(self) -> list[bytes]:
        """What each of the others has found, in the order of their ranks; waits for it.

        Raises:
            RankLostError: if one was lost.
        """
        self._collecting = True
        self._wake.set()
        for pause in self._pauses():
            if len(self._brought) == len(self._watched):
                break
            lost = self.lost()
            if lost:
                raise self.error(lost)
            time.sleep(pause)
        return [b"".join(self._brought[rank]) for rank in self._watched]

    def answer(self, outcome: bytes) -> None:
        """Gives the outcome to the processes that are there, and waits until they have it.

        Raises:
            RankLostError: if one was lost.
        """
        self._parts = _split(outcome)
        self._wake.set()
        lost: list[int] = []
        for pause in self._pauses():
            lost = self.lost()
            if len(self._received) + len(lost) >= len(self._watched):
                break
            time.sleep(pause)
        if lost:
            raise self.error(lost)

    # On the others

    def bring(self, found: bytes) -> None:
        """Gives rank zero what this process has found."""
        self._brought = {self._rank: _split(found)}
        self._wake.set()

    def await_answer(self) -> bytes:
        """The outcome of rank zero.

        Raises:
            RankLostError: if rank zero does not come, or goes.
        """
        while not self._finished.wait(self._longest_pause):
            if self.lost():
                break
        lost = self.lost()
        if lost:
            raise self.error(lost)
        return b"".join(self._parts)

    # The thread

    def _attend(self) -> None:
        try:
            look = self._look_at_zero if self._rank else self._look_at_others
            for pause in self._pauses():
                self._store.add(self._key("beat", self._rank), 1)
                for rank in self._watched:
                    beats = self._store.add(self._key("beat", rank), 0)
                    if beats != self._beats[rank]:
                        self._beats[rank], self._heard[rank] = beats, time.monotonic()
                if self._closing or look():
                    break
                self._wake.wait(pause)
                self._wake.clear()
            if not self._rank and len(self._received) == len(self._watched):
                self._clean()
        except Exception as error:  # whatever a store raises when its keeper is gone
            self._failure = error
        self._finished.set()

    def _look_at_zero(self) -> bool:
        """Puts up what this process has found; takes the answer when it is there, and says so."""
        for rank, found in self._brought.items():
            self._put(found, "brought", rank)
        self._parts = self._take("answer")
        if not self._parts:
            return False
        self._store.add(self._key("received", self._rank), 1)
        self._received = {0}
        return True

    def _look_at_others(self) -> bool:
        """Interrupts the work when a process is lost; takes what is brought, puts up the answer, notes who has it."""
        with self._lock:
            if self._armed and self.lost():
                self._armed, self._interrupting = False, True
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        for rank in self._watched if self._collecting else ():
            if rank not in self._brought and (found := self._take("brought", rank)):
                self._brought[rank] = found
        if self._parts:
            self._put(self._parts, "answer")
            self._received = {rank for rank in self._watched if self._store.add(self._key("received", rank), 0)}
        return False

    def _clean(self) -> None:
        for rank in (0, *self._watched):
            self._store.delete_key(self._key("beat", rank))
            self._store.delete_key(self._key("received", rank))
        for name, parts in [(("answer",), self._parts), *((("brought", r), p) for r, p in self._brought.items())]:
            for number in ("count", *range(len(parts))):
                self._store.delete_key(self._key(*name, number))

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Lets the thread interrupt the block once, by a signal, which ends a sleep too; Ctrl+C means what it meant."""
        previous = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or previous is None:
            yield
            return

        def interrupt(number: int, frame: FrameType | None) -> None:
            if self._interrupting:
                self._interrupting = False
                if not self._done:
                    raise _Interruption
            elif callable(previous):
                previous(number, frame)

        signal.signal(signal.SIGINT, interrupt)
        try:
            try:
                self._armed = True
                yield
            finally:
                self._disarm()
        finally:
            self._disarm()
            signal.signal(signal.SIGINT, previous)

    def _disarm(self) -> None:
        with self._lock:
            self._armed, self._done = False, True

    def _put(self, parts: list[bytes], *name: str | int) -> None:
        """Puts up ``parts``, once."""
        if not self._store.add(self._key(*name, "count"), 0):
            for number, part in enumerate(parts):
                self._store.set(self._key(*name, number), part)  # type: ignore[arg-type]
            self._store.add(self._key(*name, "count"), len(parts))

    def _take(self, *name: str | int) -> list[bytes]:
        """What was put up, nothing as long as it is not there whole."""
        return [self._store.get(self._key(*name, n)) for n in range(self._store.add(self._key(*name, "count"), 0))]

    def _pauses(self) -> Iterator[float]:
        pause = _LEAST_PAUSE
        while True:
            yield pause
            pause = min(1.5 * pause, self._longest_pause)

    def _key(self, *parts: str | int) -> str:
        return "/".join(map(str, (self._name, *parts)))


def _split(outcome: bytes) -> list[bytes]:
    return [outcome[first : first + _PART] for first in range(0, len(outcome), _PART)]


def _named(ranks: list[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
