"""Which finder searches where none is named."""

from __future__ import annotations

from lightning_landscape.finders.curve_then_beads import CurveThenBeads


def default_finder() -> CurveThenBeads:
    """The finder of callbacks, commands and merge trees: of all, it joins most pairs for the least work.

    The comparison stands in docs/results/finders.md.

    Example:
        >>> type(default_finder()).__name__
        'CurveThenBeads'
    """
    return CurveThenBeads()
