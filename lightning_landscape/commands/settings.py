"""What defines a command's result: written beside it, so that it can be made again."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lightning_landscape.finders import PathFinder
from lightning_landscape.recipes import Recipe


def settings(recipe: Recipe, finder: PathFinder, **further: Any) -> dict[str, Any]:
    """Loss surface, search and versions behind a result, as plain values.

    Args:
        recipe: of the loss surface.
        finder: of the path.
        **further: plain values that the command adds, such as ``margin`` and ``budget``.
    """
    return {
        "model": _class_of(recipe.model),
        "data": None if recipe.data is None else _class_of(recipe.data),
        "num_batches": recipe.num_batches,
        "batch_norm": recipe.batch_norm,
        "seed": recipe.seed,
        "vectorize": recipe.vectorize,
        "device": str(recipe.device),
        "finder": finder.describe(),
        **further,
        "versions": {
            "lightning_landscape": version("lightning_landscape"),
            "torch": torch.__version__,
            "pytorch_lightning": version("pytorch_lightning"),
            "python": platform.python_version(),
        },
    }


def own_folder(command: str, files: Sequence[str]) -> Path:
    """The folder of a command's results on certain files, one for each set of files.

    Example:
        >>> own_folder("connect", ["a.ckpt", "b.ckpt"]) == own_folder("connect", ["a.ckpt", "c.ckpt"])
        False
    """
    places = "\n".join(os.path.realpath(file) for file in files)
    names = [re.sub(r"[^\w.=-]", "_", Path(file).stem)[:40] for file in files[:2]]
    return Path("landscape") / command / "-".join([*names, hashlib.sha256(places.encode()).hexdigest()[:8]])


def _class_of(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
