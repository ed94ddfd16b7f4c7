"""Work that one rank does while the others wait, without a way to wait for ever."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import TypeVar

import pytorch_lightning as pl
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from lightning_landscape.attach.meeting import Meeting, RankLostError

T = TypeVar("T")
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
    with Meeting(
        _get_default_store(),
        f"lightning_landscape/{next(_meetings)}",
        trainer.global_rank,
        trainer.world_size,
        timeout.total_seconds(),
        what,
    ) as meeting:
        if trainer.is_global_zero:
            return _lead(meeting, compute)
        succeeded, result = pickle.loads(meeting.await_answer())
    if not succeeded:
        raise RuntimeError(f"on rank zero: {result}")
    return result  # type: ignore[no-any-return]


def _lead(meeting: Meeting, compute: Callable[[], T]) -> T:
    failure: BaseException | None = None
    try:
        meeting.assemble()
        result = meeting.work(compute)
        answer = pickle.dumps((True, result))
    except BaseException as error:  # an interrupt too: the other ranks have to hear of it
        failure = error
        answer = pickle.dumps((False, f"{type(error).__name__}: {error}"))
    try:
        meeting.answer(answer)
    except RankLostError as error:
        failure = failure or error
    if failure is not None:
        raise failure
    return result
