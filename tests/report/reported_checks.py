"""A check as it is reported to loggers."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from lightning_landscape.connection import Connection, Verdict
from lightning_landscape.path import Profile

STRAIGHT = Profile((0.0, 0.5, 1.0), (0.1, 2.0, 0.1))
FOUND = Profile((0.0, 0.25, 0.5, 1.0), (0.1, 0.2, math.nan, 0.1))


def check(number: int, prefix: str = "landscape", height: float = 0.2) -> dict[str, Any]:
    """The arguments of one report, the number-th check of a run."""
    connection = Connection(
        verdict=Verdict.CONNECTED,
        reason=None,
        path=None,
        level=0.3,
        loss_a=0.1,
        loss_b=0.1,
        linear_height=2.0,
        linear_barrier=1.9,
        height=height,
        barrier=0.1,
        length=2.0,
        normalized_length=1.25,
        num_beads=2,
        gradient_steps=10,
        loss_evaluations=7,
        work=12.5,
        seconds=0.5,
        profile=FOUND,
        linear_profile=STRAIGHT,
    )
    rows = [
        json.loads(json.dumps(connection.to_dict() | {"check": index, "epoch": index - 1, "step": 10 * index}))
        for index in range(1, number + 1)
    ]
    figures = {"profile": Figure(figsize=(2, 1), dpi=100), "history": Figure(figsize=(3, 2), dpi=100)}
    scalars = {f"{prefix}/check": float(number), f"{prefix}/height": height, f"{prefix}/connected": 1.0}
    return {
        "prefix": prefix,
        "scalars": scalars,
        "rows": rows,
        "connection": connection,
        "figures": figures,
        "step": 10 * number,
    }


def rng_states() -> tuple[bytes, str, object]:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    return torch.random.get_rng_state().numpy().tobytes(), repr(numpy_state), random.getstate()
