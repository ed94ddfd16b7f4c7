"""Work that the processes of torchrun share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from lightning_landscape.attach.ranks import on_every_rank
from lightning_landscape.components.sharding import Sharded, Share, in_turn

_SILENCE = timedelta(minutes=10)  # of a process, and how much later than another it may come; work may last longer


@contextmanager
def processes(what: str, advice: str) -> Iterator[tuple[int, Share]]:
    """This process's rank, and how work is shared with the others that torchrun has started.

    Args:
        what: the work, for messages.
        advice: what to do when a process is lost, for its message.

    Raises:
        RankLostError: if another process ends or falls silent.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield 0, in_turn
        return

    def together(work: Callable[[], Any]) -> list[Any]:
        return on_every_rank(work, _SILENCE, what, advice)

    dist.init_process_group("gloo", timeout=_SILENCE)
    try:
        yield dist.get_rank(), Sharded(dist.get_rank(), size, together)
    finally:
        dist.destroy_process_group()
