"""The bars of searches, and of work that is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from lightning_landscape.surface.work import Progress


@contextmanager
def search_progress(title: str, console: Console | None = None) -> Iterator[Progress]:
    """A progress bar that disappears when the block ends.

    Args:
        title: words before the bar, which say what is searched.
        console: terminal that shows the bar, by default the terminal.

    Yields:
        A function of a description and a fraction, for a finder.
    """
    columns = (TextColumn(title), BarColumn(bar_width=20), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bars(*columns, transient=True, console=console) as bars:
        task = bars.add_task("straight line", total=1.0)

        def update(description: str, fraction: float) -> None:
            bars.update(task, description=description, completed=fraction)

        yield update


_MEMORY = 600.0  # seconds that an estimate looks back: over what takes minutes, and past what lay in files already


@contextmanager
def counted_progress(title: str, total: int, console: Console | None = None) -> Iterator[Callable[[], None]]:
    """A bar of work done, how much of it there is, and an estimate of the time left; it disappears when the block ends.

    Args:
        title: words before the bar, which say what is done.
        total: how often at most the work is done.
        console: terminal that shows the bar, by default the terminal.

    Yields:
        A function to call each time the work has been done once.
    """
    left = (TimeRemainingColumn(), TextColumn("left"))
    columns = (TextColumn(title), BarColumn(bar_width=20), MofNCompleteColumn(), *left)
    with Bars(*columns, transient=True, console=console, speed_estimate_period=_MEMORY) as bars:
        task = bars.add_task(title, total=total)
        yield lambda: bars.advance(task)
