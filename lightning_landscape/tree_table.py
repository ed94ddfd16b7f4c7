"""The table of a merge tree."""

from __future__ import annotations

from rich import box
from rich.table import Table

from lightning_landscape.components import MergeTree


def merge_table(tree: MergeTree) -> Table:
    """One line a merge, the lowest first: the height, the components that become one, and N_u from there on.

    Example:
        >>> table = merge_table(MergeTree.from_heights([0.1, 0.2], [[0.1, 0.5], [0.5, 0.2]], ["run", "twin"]))
        >>> [str(cell) for column in table.columns for cell in column.cells]
        ['0.5', 'run', 'twin', '1']
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("height", justify="right", no_wrap=True)
    table.add_column("joins", overflow="fold")
    table.add_column("with", overflow="fold")
    table.add_column("components", justify="right")
    groups = {index: [name] for index, name in enumerate(tree.names)}
    for number, merge in enumerate(tree.merges):
        left, right = groups.pop(merge.left), groups.pop(merge.right)
        groups[len(tree.names) + number] = left + right
        table.add_row(f"{merge.height:.4g}", _members(left), _members(right), str(tree.num_components(merge.height)))
    table.caption = "heights are upper bounds: what is apart here may be connected lower"
    table.caption_justify = "left"
    return table


def _members(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
