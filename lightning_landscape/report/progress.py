"""The bar that a search shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
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
