"""Checks of the options that callbacks have in common; each error names the argument, the value and what is right."""

from __future__ import annotations

import math
from typing import Any, get_args

from lightning_landscape.storage.snapshots import StoredDtype


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Refuses what is no integer from ``least``.

    Raises:
        ValueError: naming the argument.

    Example:
        >>> check_count("num_batches", 0)
        Traceback (most recent call last):
        ...
        ValueError: num_batches must be an integer from 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer from {least}, got {value!r}")


def check_share(name: str, value: float | None, *, optional: bool = True) -> None:
    """Refuses what is no finite number of at least 0, nor ``None`` where that stands for no limit.

    Raises:
        ValueError: naming the argument.
    """
    if value is None and optional:
        return
    if value is None or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")


def check_level(level: float | None) -> None:
    """Refuses a level that nothing can be compared with.

    Raises:
        ValueError: for NaN.
    """
    if level is not None and math.isnan(level):
        raise ValueError("level is NaN: give a number, or None to derive it from the losses that are compared")


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Refuses what is none of the choices.

    Raises:
        ValueError: naming the argument and the choices.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_batches(batches: Any) -> None:
    """Refuses batches that are no list: an iterator could be read once alone.

    Raises:
        ValueError: saying to pass a list.
    """
    if batches is not None and not isinstance(batches, list | tuple):
        raise ValueError(f"batches must be a list of batches, got {type(batches).__name__}: pass list(...)")


def check_seed(seed: int) -> None:
    """Refuses a seed that the generators of torch, NumPy and Python do not all take.

    Raises:
        ValueError: naming the range.
    """
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed must lie in [0, 2**31), got {seed}")


def check_names(name: str, names: Any) -> None:
    """Refuses names that are no list of strings: one string alone would be read letter by letter.

    Raises:
        ValueError: saying to pass a list.
    """
    if isinstance(names, str) or not all(isinstance(entry, str) for entry in names):
        raise ValueError(f"{name} must be a list of names, got {names!r}: pass [{names!r}]")


def check_dtype(dtype: StoredDtype | None) -> None:
    """Raises a ``ValueError`` for what no snapshot is stored in."""
    if dtype is not None:
        check_choice("dtype", dtype, get_args(StoredDtype))
