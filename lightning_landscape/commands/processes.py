"""Work that the processes of torchrun share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from lightning_landscape.components.sharding import Sharded, Share, in_turn

_PATIENCE = timedelta(days=30)  # one process may search for long while another has nothing left to do


@contextmanager
def processes() -> Iterator[tuple[int, Share]]:
    """This process's rank, and how work is shared with the others that torchrun has started."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield 0, in_turn
        return
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield dist.get_rank(), Sharded(dist.get_rank(), size, _gather)
    finally:
        dist.destroy_process_group()


def _gather(mine: Any) -> list[Any]:
    outcomes = [None] * dist.get_world_size()
    dist.all_gather_object(outcomes, mine)
    return outcomes
