"""Measured tables, and their places in the pages of docs/results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_landscape.storage.atomic import replacing


class PageError(ValueError):
    """A page has no place for a table."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, a line for each row.

    Example:
        >>> print(table(["a", "b"], [["1", "2"]]), end="")
        | a | b |
        | --- | --- |
        | 1 | 2 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def fill(page: Path, parts: Mapping[str, str]) -> None:
    """Write the text of each part between ``<!-- part -->`` and the next ``<!-- end -->`` of a page.

    Raises:
        PageError: if a mark is missing; the page stays as it was.
    """
    text = page.read_text()
    for name, part in parts.items():
        before, mark, after = text.partition(f"<!-- {name} -->\n")
        _, end, rest = after.partition("<!-- end -->")
        if not mark or not end:
            raise PageError(f"{page} has no lines `<!-- {name} -->` and `<!-- end -->` to write between: add them")
        text = before + mark + part + end + rest
    with replacing(page) as file:
        file.write(text.encode())
