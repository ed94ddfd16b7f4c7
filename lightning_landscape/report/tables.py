"""Tables for a terminal: of the checks of a run, one connection, the merges of a tree and its components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lightning_landscape.components.merge_tree import MergeTree
from lightning_landscape.connection import Reason, Verdict, outcome


def check_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line a check: epoch, level, linear height, height, verdict, beads, normalised length, seconds.

    Below it stands the conclusion of the last check.

    Args:
        rows: rows of ``checks.jsonl``; ``None``, a number that was not finite or not measured, is a dash.

    Returns:
        A table that fits 80 columns; losses have four significant digits.

    Example:
        >>> row = {"epoch": 4, "level": 0.11, "linear_height": 2.3, "height": 0.108, "verdict": "not_found",
        ...        "reason": "budget", "num_beads": 3, "normalized_length": 1.32, "seconds": 12.34}
        >>> table = check_table([row])
        >>> [str(cell) for column in table.columns for cell in column.cells]
        ['4', '0.11', '2.3', '0.108', 'undecided: budget spent', '3', '1.320', '12.3']
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for header in ("epoch", "level", "linear\nheight", "height", "verdict", "beads", "normalised\nlength", "seconds"):
        if header == "verdict":
            # So that a narrow terminal wraps between words.
            table.add_column(header, vertical="bottom", min_width=len("undecided:"))
        else:
            table.add_column(header, justify="right", vertical="bottom", no_wrap=True)
    for row in rows:
        table.add_row(
            _number(row["epoch"], "d"),
            _number(row["level"], ".4g"),
            _number(row["linear_height"], ".4g"),
            _number(row["height"], ".4g"),
            _verdict(row),
            _number(row["num_beads"], "d"),
            _number(row["normalized_length"], ".3f"),
            _number(row["seconds"], ".1f"),
        )
    captions = [f"The last check: {row['conclusion']}" for row in rows[-1:] if "conclusion" in row]
    if any(row["verdict"] == Verdict.NOT_FOUND for row in rows):
        captions.append("undecided: this search found no path; it never proves that there is none")
    if captions:
        table.caption = Text("\n".join(captions))
        table.caption_justify = "left"
    return table


def connection_table(row: Mapping[str, Any]) -> Table:
    """What one search found, a quantity a line.

    Args:
        row: :meth:`Connection.to_dict() <lightning_landscape.connection.Connection.to_dict>`.

    Example:
        >>> from lightning_landscape.connection import Connection
        >>> table = connection_table(Connection.failed(ValueError("no data")).to_dict())
        >>> list(table.columns[1].cells)[0].plain
        'undecided: the check failed'
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, show_header=False, pad_edge=False)
    table.add_row("verdict", _verdict(row))
    if row["aligned"]:
        table.add_row("end", Text("the permuted copy of B, not B itself"))
    if row["verdict"] == Verdict.SEPARATED:
        table.add_row("every path reaches", Text(_number(row["floor"], ".6g")))
    for key, spec in _QUANTITIES.items():
        table.add_row(key.replace("_", " "), Text(_number(row[key], spec)))
    return table


_QUANTITIES = {
    "level": ".6g",
    "height": ".6g",
    "loss_a": ".6g",
    "loss_b": ".6g",
    "barrier": ".4g",
    "linear_height": ".6g",
    "linear_barrier": ".4g",
    "normalized_length": ".4f",
    "num_beads": "d",
    "gradient_steps": "d",
    "loss_evaluations": "d",
    "seconds": ".1f",
}


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _verdict(row: Mapping[str, Any]) -> Text:
    if row["verdict"] == Verdict.CONNECTED:
        return Text("connected", style="green")
    if row["verdict"] == Verdict.SEPARATED:
        return Text("separated (proved)", style="magenta")
    style = "red" if row["reason"] == Reason.ERROR else "yellow"
    return Text(outcome(row["verdict"], row["reason"]), style=style)


def merge_table(tree: MergeTree) -> Table:
    """One line a merge, the lowest first: the height, the components that become one, and N_u from there on.

    Where separations are proved, a column has the height that the two cannot be joined below.

    Example:
        >>> table = merge_table(MergeTree.from_heights([0.1, 0.2], [[0.1, 0.5], [0.5, 0.2]], ["run", "twin"]))
        >>> [str(cell) for column in table.columns for cell in column.cells]
        ['0.5', 'run', 'twin', '1']
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    if tree.proved:
        table.add_column("proved", justify="right", no_wrap=True)
    table.add_column("height", justify="right", no_wrap=True)
    table.add_column("joins", overflow="fold")
    table.add_column("with", overflow="fold")
    table.add_column("components", justify="right")
    groups = {index: [name] for index, name in enumerate(tree.names)}
    for number, (merge, (floor, _)) in enumerate(zip(tree.merges, tree.intervals(), strict=True)):
        left, right = groups.pop(merge.left), groups.pop(merge.right)
        groups[len(tree.names) + number] = left + right
        heights = [f"{height:.4g}" for height in ((floor, merge.height) if tree.proved else (merge.height,))]
        table.add_row(*heights, _members(left), _members(right), str(tree.num_components(merge.height)))
    table.caption = "heights are upper bounds: what is apart here may be connected lower"
    table.caption_justify = "left"
    return table


def component_table(tree: MergeTree, level: float) -> Table:
    """One line a point: the number of its component at a level, its name and its loss.

    Args:
        tree: the points and the heights between them.
        level: the level u. Points with a larger loss, or none that is finite, come last, marked ``above u``.

    Returns:
        A table; the component of the lowest point comes first, losses have four significant digits.

    Example:
        >>> tree = MergeTree.from_heights([0.1, 0.2, 0.9], [[1, 1, 1]] * 3, ["run", "twin", "other"])
        >>> [list(column.cells) for column in component_table(tree, 0.5).columns]
        [['1', '2', 'above u'], ['run', 'twin', 'other'], ['0.1', '0.2', '0.9']]
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("component", justify="right")
    table.add_column("checkpoint", overflow="fold")
    table.add_column("loss", justify="right", no_wrap=True)
    losses = dict(zip(tree.names, tree.losses, strict=True))
    for number, group in enumerate(tree.components(level), start=1):
        for name in group:
            table.add_row(str(number), name, f"{losses.pop(name):.4g}")
    for name, loss in losses.items():
        table.add_row("above u", name, f"{loss:.4g}")
    return table


def _members(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
