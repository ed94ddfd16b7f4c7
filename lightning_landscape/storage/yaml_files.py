"""A YAML file of settings as plain values, read as ``landscape fit`` reads it."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import yaml

from lightning_landscape.storage.atomic import CorruptFileError
from lightning_landscape.storage.plain_files import file_size, shown

_LARGEST = 1 << 24  # bytes
_MOST_VALUES = 1_000_000  # aliases inside aliases can make a small file larger than the memory
_DEEPEST = 100
_EXPONENT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Objects are never made, no key may stand twice, ``1e-3`` is a number, a date is text."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The values of a YAML file: mappings, lists, text, numbers, truth values and ``None``.

    Args:
        path: the file, UTF-8, of at most 16 MiB.

    Raises:
        OSError: if the file cannot be reached.
        CorruptFileError: if it is no YAML, has a key twice, or holds something else, such as an object of Python; the
            message begins with the path.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "recipe.yaml"
        >>> _ = path.write_text("rate: 1e-3\\nwidths: [4, 4]")
        >>> read_yaml(path)
        {'rate': 0.001, 'widths': [4, 4]}
    """
    file_size(path, most=_LARGEST)
    try:
        # Not through safe_load, which knows neither rule; this loader is no less safe.
        values = yaml.load(Path(path).read_text(encoding="utf-8-sig"), _Loader)
        _require_plain(values)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise CorruptFileError(f"{shown(path)} is no YAML file of plain values: {error}") from error
    return values


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes every text, so that none is read back as a number or a truth value."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def yaml_line(values: Any) -> str:
    """Plain values as one line of YAML, which unlike JSON has numbers that are not finite.

    Args:
        values: as :func:`read_yaml` gives them.

    Example:
        >>> yaml_line({"rate": float("inf"), "name": "1e-3"})
        '{"name": "1e-3", "rate": .inf}'
    """
    line: str = yaml.dump(values, Dumper=_Dumper, default_flow_style=True, width=math.inf)
    return line.removesuffix("...\n").strip()


def _require_plain(values: Any) -> None:
    waiting, count = [(values, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > _DEEPEST or count > _MOST_VALUES:
            raise ValueError("it holds itself by an alias, or is far too large: write its values out")
        if isinstance(value, dict):
            waiting += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list):
            waiting += [(part, depth + 1) for part in value]
        elif not isinstance(value, str | int | float | None):
            raise ValueError(f"{value!r} is neither a mapping, a list, text nor a number")
