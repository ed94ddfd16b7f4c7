"""A model and its data without a recipe: from a function in a Python file, or from what a checkpoint remembers."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import pkgutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_landscape.either_lightning import both

_SECTIONS = {"model": "hyper_parameters", "data": "datamodule_hyper_parameters"}


def objects_of(source: str) -> tuple[pl.LightningModule, Any]:
    """The model and the data that a name in a Python file stands for.

    Args:
        source: ``FILE.py:NAME``. NAME is a LightningModule, or a function without arguments that returns one, or a pair
            of one and its data, a LightningDataModule or a DataLoader.

    Returns:
        The module, and the data or ``None`` for a module that brings its own.

    Raises:
        ValueError: where there is no such file, no such name in it, or neither gives a module.
    """
    file, _, name = source.rpartition(":")
    if not file or not os.path.isfile(file):
        raise ValueError(f"--from {source}: give FILE.py:NAME, a Python file and a function in it that makes the model")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"--from {source}: {file} is no Python file")
    namespace = importlib.util.module_from_spec(spec)
    # Workers that read data unpickle the file's classes by the name of its module.
    sys.modules.setdefault(spec.name, namespace)
    spec.loader.exec_module(namespace)
    made = getattr(namespace, name, None)
    if made is None:
        raise ValueError(f"--from {source}: {file} has no {name}")
    if not isinstance(made, both(pl.LightningModule)) and callable(made):
        made = made()
    model, data = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, both(pl.LightningModule)):
        raise ValueError(
            f"--from {source}: {name} gives {type(model).__name__}: return a LightningModule, or (module, data)"
        )
    return model, data


def remembered(chosen: dict[str, str], files: Sequence[str]) -> dict[str, Any]:
    """Classes with the constructor's arguments that the first checkpoint holds (``save_hyperparameters``).

    Args:
        chosen: import names of classes by section, ``model`` and ``data``.
        files: arguments of a command line, of which the first that is a Lightning checkpoint is read.

    Returns:
        ``class_path`` and ``init_args`` by section. Values that are no plain data are left out.
    """
    checkpoint = _first_checkpoint(files)
    return {
        section: {"class_path": path, "init_args": _arguments(path, checkpoint.get(_SECTIONS[section]))}
        for section, path in chosen.items()
    }


def _first_checkpoint(files: Sequence[str]) -> dict[str, Any]:
    inside = [sorted(map(str, Path(f).glob("*.ckpt"))) if os.path.isdir(f) else [f] for f in files if f[:1] != "-"]
    for file in (file for group in inside for file in group if file.endswith(".ckpt")):
        # A file that cannot be read is reported where it is read for its weights.
        with suppress(Exception):
            found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            if isinstance(found, dict):
                return found
    return {}


def _arguments(path: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        return {}
    try:
        parameters = inspect.signature(pkgutil.resolve_name(path)).parameters
    except (ImportError, AttributeError, ValueError, TypeError):
        return {}  # the parser says it better
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {
        name: value
        for name, value in given.items()
        if isinstance(name, str) and name[:1] != "_" and (open_ended or name in parameters) and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
