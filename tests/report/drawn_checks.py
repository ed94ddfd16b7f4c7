"""Checks to draw, and what can be read from the figures."""

from __future__ import annotations

import math
import random
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from lightning_landscape.connection import Connection, Reason, Verdict
from lightning_landscape.path import Path, Profile

T = tuple(float(t) for t in np.linspace(0, 1, 41))


def connection(
    found: tuple[float, ...] | None = None,
    straight: tuple[float, ...] | None = None,
    level: float = 0.11,
    beads: int = 3,
) -> Connection:
    """A pair whose straight line rises to 2.3 and whose path stays below 0.108."""
    straight = straight or tuple(0.1 + 2.2 * math.exp(-(((t - 0.5) / 0.18) ** 2)) for t in T)
    found = found or tuple(0.09 + 0.018 * math.sin(3 * math.pi * t) ** 2 for t in T)
    below, line = Profile(T[: len(found)], found), Profile(T[: len(straight)], straight)
    connected = below.height <= level
    beads_at = torch.cumsum(torch.rand(beads + 2, 7, generator=torch.Generator().manual_seed(0)), 0)
    return Connection(
        verdict=Verdict.CONNECTED if connected else Verdict.NOT_FOUND,
        reason=None if connected else Reason.BUDGET,
        path=Path(beads_at),
        level=level,
        loss_a=found[0],
        loss_b=found[-1],
        linear_height=line.height,
        linear_barrier=line.barrier,
        height=below.height,
        barrier=below.barrier,
        length=2.0,
        normalized_length=1.32,
        num_beads=beads,
        gradient_steps=100,
        loss_evaluations=82,
        work=130.0,
        seconds=12.3,
        profile=below,
        linear_profile=line,
    )


def check_row(check: int, **changes: Any) -> dict[str, Any]:
    row = connection().to_dict() | {"check": check, "epoch": check - 1, "step": 10 * check, "pair": "twin"}
    return row | {"level": 1 / check, "linear_height": 2.0, "height": 0.9 / check} | changes


def failed(check: int, **changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("level", "linear_height", "height", "normalized_length"))
    return check_row(check, **nothing, verdict="not_found", reason="error", num_beads=0, message="boom", **changes)


def line_of(axes: Axes, color: str, markers: bool = False) -> Line2D:
    """The one line, or set of markers without a line, of that colour."""
    (line,) = [
        line
        for line in axes.get_lines()
        if line.get_color() == color and (line.get_linestyle() == "None") == markers and len(line.get_xdata()) != 0
    ]
    return line


def xy(line: Line2D) -> np.ndarray:
    return np.stack([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)], axis=1)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def pixels(path: FilePath) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def verdict_line(figure: Figure) -> str:
    return figure.axes[0].get_title(loc="left")


def rng_states() -> tuple[bytes, str, object]:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    return torch.random.get_rng_state().numpy().tobytes(), repr(numpy_state), random.getstate()
