"""Work that the processes of torchrun share, and the bar it shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist
from rich.console import Console

from lightning_landscape.components.sharding import Sharded, Share, in_turn
from lightning_landscape.report.progress import counted_progress

T = TypeVar("T")
R = TypeVar("R")

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


def shown(
    title: str, function: Callable[[T], R], items: Sequence[T], rank: int, share: Share, console: Console
) -> list[R]:
    """``share(function, items)``, beside a bar of the part that rank zero does.

    Args:
        title: words before the bar.
        function: of one item.
        items: what is shared; every process gives the same.
        rank: of this process, as :func:`processes` gives it.
        share: as :func:`processes` gives it.
        console: terminal that shows the bar.
    """
    size = share.size if isinstance(share, Sharded) else 1
    quiet = console if rank == 0 else Console(quiet=True)
    with counted_progress(title, len(items[rank::size]), quiet) as done:

        def counted(item: T) -> R:
            found = function(item)
            done()
            return found

        return share(counted, items)


def _gather(mine: Any) -> list[Any]:
    outcomes = [None] * dist.get_world_size()
    dist.all_gather_object(outcomes, mine)
    return outcomes
