"""Work that the processes of torchrun share, and the bar it shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist
from rich.console import Console

from lightning_landscape.attach.ranks import on_every_rank
from lightning_landscape.components.sharding import Sharded, Share, in_turn
from lightning_landscape.report.progress import counted_progress

T = TypeVar("T")
R = TypeVar("R")

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
