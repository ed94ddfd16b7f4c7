"""How many components there are, level by level."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from lightning_landscape.components.levels import Step


def level_table(steps: Sequence[Step]) -> Table:
    """One line a level at which N_u changes: the level, the points below it, N_u, and joins that no search found.

    Example:
        >>> table = level_table([Step(0.1, 2, 2, ()), Step(1.5, 2, 1, (("a.ckpt", "b.ckpt"),))])
        >>> [str(cell) for column in table.columns for cell in column.cells]
        ['0.1', '1.5', '2', '2', '2', '1', '', 'a.ckpt and b.ckpt by the level alone']
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for header in ("from level u", "points", "N_u"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("joined", overflow="fold")
    for step in steps:
        pairs = "; ".join(f"{one} and {other}" for one, other in step.apart)
        note = f"{pairs} by the level alone" if pairs else ""
        table.add_row(f"{step.level:.4g}", str(step.points), str(step.components), note)
    table.caption = "by the level alone: it lies above the path that was found, which is higher than their own losses"
    table.caption_justify = "left"
    return table
