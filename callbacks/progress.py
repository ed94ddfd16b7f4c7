"""A bar for a check, shown where the trainer shows bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lightning_landscape.finders import base


@contextmanager
def check_progress(trainer: pl.Trainer, title: str) -> Iterator[base.Progress | None]:
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
    columns = (TextColumn(title), BarColumn(bar_width=20), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("straight line", total=1.0)

        def update(description: str, fraction: float) -> None:
            progress.update(task, description=description, completed=fraction)

        yield update
