"""How every figure looks, and how one is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_landscape.storage.atomic import replacing

# Okabe and Ito's blue and vermilion, told apart with every common colour blindness; dashes and markers differ too.
PATH, LINEAR, LEVEL, NOT_FOUND = "#0072B2", "#D55E00", "#303030", "#882255"
LINEAR_DASHES = (4, 1.2)
LOG_DECADES = 1.5

# On top of matplotlib's own defaults, so that a figure is the same whatever the user's session has set.
STYLE: list[str | dict[str, Any]] = [
    "default",
    {
        "font.size": 12,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#E6E6E6",
        "lines.linewidth": 2.6,
        "figure.dpi": 150,
    },
]

Array = NDArray[np.float64]


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write ``figure`` as a PNG that is whole or absent, whenever the process dies.

    Args:
        figure: any matplotlib figure.
        path: the file; its folder is made if need be and an older file of that name is replaced.
    """
    with replacing(Path(path)) as file, style.context(STYLE):
        figure.savefig(file, format="png")
