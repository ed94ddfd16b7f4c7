"""Work that one rank does while the others wait, without a way to wait for ever."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch.distributed as dist

T = TypeVar("T")
# The others wait in a group of their own: the run's would give up after its timeout, 10 minutes under NCCL.
_PATIENCE = timedelta(days=30)


def on_rank_zero(trainer: pl.Trainer, compute: Callable[[], T]) -> T:
    """Runs ``compute`` on rank zero and gives its result to every rank; all ranks must call it together.

    ``compute`` may hold no collective. The one broadcast is reached whether or not it raises, so that an error
    on rank zero ends every rank and leaves none waiting.

    Args:
        trainer: the trainer whose ranks take part.
        compute: returns something that can be pickled.

    Raises:
        BaseException: on rank zero what ``compute`` raised, on the others a RuntimeError that says so.
    """
    group: Any = dist.new_group(backend="gloo", timeout=_PATIENCE) if trainer.world_size > 1 else None
    outcome: tuple[bool, Any] = (False, "rank zero did not run")
    failure: BaseException | None = None
    if trainer.is_global_zero:
        try:
            outcome = (True, compute())
        except BaseException as error:  # an interrupt too: the other ranks have to hear of it
            failure = error
            outcome = (False, f"{type(error).__name__}: {error}")
    if group is not None:
        outcomes = [outcome]
        dist.broadcast_object_list(outcomes, src=0, group=group)
        dist.destroy_process_group(group)
        outcome = outcomes[0]
    if failure is not None:
        raise failure
    succeeded, result = outcome
    if not succeeded:
        raise RuntimeError(f"on rank zero: {result}")
    return result  # type: ignore[no-any-return]
