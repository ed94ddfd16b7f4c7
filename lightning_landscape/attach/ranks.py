"""Work that one rank does while the others wait, or that all share, without a way to wait for ever."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from lightning_landscape.attach.meeting import Meeting, RankLostError

T = TypeVar("T")
_IN_A_RUN = (
    "With fewer batches than the others a process leaves training early. If it was only slow, pass "
    "DDPStrategy(timeout=timedelta(...)) with a longer time"
)
_meetings = count(1)  # every process makes the same calls, and so counts alike


def on_rank_zero(trainer: pl.Trainer, compute: Callable[[], T], what: str = "the work of a callback") -> T:
    """Runs ``compute`` on rank zero and gives its result to every rank; all ranks must call it together.

    The ranks join under the timeout of the run's process group, ``DDPStrategy(timeout=...)``. ``compute`` may take
    longer, and the others wait as long as rank zero lives. When a rank dies or stalls for that timeout, every other
    one raises, and ``compute`` is interrupted. ``compute`` may hold no collective. An error on rank zero ends every
    rank.

    Args:
        trainer: the trainer whose ranks take part.
        compute: returns something that can be pickled.
        what: the work in a few words, for messages.

    Raises:
        RankLostError: if a rank does not come in time, or stops; the message names it.
        BaseException: on rank zero what ``compute`` raised, on the others a RuntimeError that says so.
    """
    if trainer.world_size == 1:
        return compute()
    timeout: timedelta = getattr(trainer.strategy, "_timeout", None) or dist.default_pg_timeout
    with _meeting(trainer.global_rank, trainer.world_size, timeout, what, _IN_A_RUN) as meeting:
        if trainer.is_global_zero:
            return _lead(meeting, compute)
        return _outcome(meeting.await_answer())  # type: ignore[no-any-return]


def on_every_rank(compute: Callable[[], T], timeout: timedelta, what: str, advice: str) -> list[T]:
    """Runs ``compute`` in every process of the group, and gives all results, by rank, to each of them.

    A process may work for as long as it wants while it is alive. When one dies or stalls for ``timeout``, every other
    one raises: rank zero at once, the others when their own work is done. The group needs no backend, only its store.

    Args:
        compute: returns something that can be pickled; each process has its own.
        timeout: how long a process may be late or silent.
        what: the work in a few words, for messages.
        advice: what to do where a process was only slow, for messages.

    Raises:
        RankLostError: if a process does not come in time, or stops; the message names it.
        BaseException: what ``compute`` raised in this process, after which the others miss it.
    """
    with _meeting(dist.get_rank(), dist.get_world_size(), timeout, what, advice) as meeting:
        if dist.get_rank() == 0:
            return _lead(meeting, lambda: [compute(), *map(pickle.loads, meeting.collect())])
        meeting.bring(pickle.dumps(compute()))
        return _outcome(meeting.await_answer())  # type: ignore[no-any-return]


def _meeting(rank: int, size: int, timeout: timedelta, what: str, advice: str) -> Meeting:
    name = f"lightning_landscape/{next(_meetings)}"
    return Meeting(_get_default_store(), name, rank, size, timeout.total_seconds(), what, advice)


def _outcome(answer: bytes) -> Any:
    succeeded, result = pickle.loads(answer)
    if isinstance(result, RankLostError):
        raise result
    if not succeeded:
        raise RuntimeError(f"on rank zero: {result}")
    return result


def _lead(meeting: Meeting, compute: Callable[[], T]) -> T:
    failure: BaseException | None = None
    try:
        meeting.assemble()
        result = meeting.work(compute)
        answer = pickle.dumps((True, result))
    except BaseException as error:  # an interrupt too: the other ranks have to hear of it
        failure = error
        told = error if isinstance(error, RankLostError) else f"{type(error).__name__}: {error}"
        answer = pickle.dumps((False, told))
    try:
        meeting.answer(answer)
    except RankLostError as error:
        failure = failure or error
    if failure is not None:
        raise failure
    return result
