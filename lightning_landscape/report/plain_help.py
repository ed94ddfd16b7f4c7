"""Help texts for a terminal: what docstrings say, without their markup."""

from __future__ import annotations

import re
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter
from pytorch_lightning.cli import LightningArgumentParser

_TITLED = re.compile(r"(?::[a-z:]+:)?`([^`<>]+?)\s*<[^`<>]*>`_{0,2}")
_ROLE = re.compile(r":[a-z:]+:`([^`~]+)`")
_SHORTENED_ROLE = re.compile(r":[a-z:]+:`~(?:[^`]*\.)?\s*([^`.]+)`")


def without_markup(text: str) -> str:
    """A text without the markup of reStructuredText: roles, links and backticks.

    Args:
        text: part of a docstring.

    Returns:
        The words that a rendered page would show.

    Example:
        >>> without_markup("``None`` as in :class:`~lightning_landscape.surface.LossSurface`, see :meth:`load`")
        'None as in LossSurface, see load'
        >>> without_markup("the `manual <https://example.org>`_ and ``a`` or `b`")
        'the manual and a or b'
    """
    text = _TITLED.sub(r"\1", text)
    text = _SHORTENED_ROLE.sub(r"\1", text)
    return _ROLE.sub(r"\1", text).replace("`", "")


class PlainHelpFormatter(DefaultHelpFormatter):
    """Types, defaults and descriptions of arguments as jsonargparse shows them, without the markup of docstrings."""

    def start_section(self, heading: str | None) -> None:
        """Begins a group of arguments, which has the first line of a class docstring as its heading.

        Args:
            heading: the heading of the group.
        """
        super().start_section(heading if heading is None else without_markup(heading))

    def _split_lines(self, text: str, width: int) -> list[str]:
        return super()._split_lines(without_markup(text), width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return super()._fill_text(without_markup(text), width, indent)


class PlainArgumentParser(ArgumentParser):
    """An argument parser with plain help, also for ``--NAME.help=CLASS``, for which jsonargparse makes another one.

    Args:
        args: positional arguments of ``jsonargparse.ArgumentParser``.
        formatter_class: class that lays the help out.
        kwargs: keyword arguments of ``jsonargparse.ArgumentParser``.
    """

    def __init__(
        self, *args: Any, formatter_class: type[DefaultHelpFormatter] = PlainHelpFormatter, **kwargs: Any
    ) -> None:
        super().__init__(*args, formatter_class=formatter_class, **kwargs)


class PlainLightningParser(PlainArgumentParser, LightningArgumentParser):
    """The parser of ``landscape fit`` and its like, with plain help."""
