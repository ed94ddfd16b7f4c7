"""A bar for a check, shown where the trainer shows bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl

from lightning_landscape.report.progress import search_progress
from lightning_landscape.surface.work import Progress


@contextmanager
def check_progress(trainer: pl.Trainer, title: str) -> Iterator[Progress | None]:
    """A progress bar that disappears when the block ends, on rank zero's terminal.

    Args:
        trainer: its own progress bar decides: where that is switched off, there is none here either.
        title: what the bar is for.

    Yields:
        A function of a description and a fraction for a finder, or ``None``.
    """
    bar = trainer.progress_bar_callback
    if bar is None or not getattr(bar, "is_enabled", True) or not trainer.is_global_zero:
        yield None
        return
    with search_progress(title) as progress:
        yield progress
