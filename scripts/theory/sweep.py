"""Measures how the excess of the two-layer ReLU construction falls with the width, for n = 1, 2 and 3 inputs.

For each n, width m and seed: data of a planted ReLU teacher, two first layers drawn uniformly from the unit sphere,
and on each the best second layer, so that the level lambda is as low as these first layers allow. Recorded are

- the rise max(0, epsilon - max(E_a, E_b)), by which the path rises above its ends;
- the gap epsilon - e, where e is the least E over a dense first layer: how far above what no width can beat the level
  lies from which on all is connected.

    python -m scripts.theory.sweep docs/results/theory_sweep.json
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso
from torch import Tensor

from lightning_landscape.datamodules import PlantedTeacherDataModule
from lightning_landscape.models import TwoLayerReLU
from lightning_landscape.storage.atomic import replacing
from lightning_landscape.theory.exponents import fitted_exponent
from lightning_landscape.theory.two_layer_relu import construct

L1 = 1e-3
TEACHER = 30
EXAMPLES = 400
DENSE = 512  # random units in the first layer that stands for any width
SEEDS = 8
INPUTS = (1, 2, 3)
WIDTHS = (4, 6, 8, 12, 16, 24, 32, 48, 64)
FLOOR = 1e-5  # excess below which the accuracy of the Lasso shows, and no exponent is fitted


def sphere(count: int, inputs: int, generator: torch.Generator) -> Tensor:
    rows = torch.randn(count, inputs, generator=generator, dtype=torch.float64)
    return rows / rows.norm(dim=1, keepdim=True)


def best(x: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, float]:
    """The network with these rows and the best second layer, and its E."""
    features = torch.relu(x @ rows.T)
    lasso = Lasso(alpha=L1 / 2, fit_intercept=False, tol=1e-7, max_iter=20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        lasso.fit(features.numpy(), y.numpy())
    readout = torch.from_numpy(np.atleast_2d(lasso.coef_))
    loss = (features @ readout.T - y).square().sum(1).mean() + L1 * readout.abs().sum()
    return torch.cat([rows.flatten(), readout.flatten()]), float(loss)


def measure(inputs: int, width: int, seed: int, data: PlantedTeacherDataModule, least: float) -> dict[str, Any]:
    x, y = (part.double() for part in data.splits["train"].tensors)
    generator = torch.Generator().manual_seed(10_000 * inputs + 100 * width + seed)
    (start, loss_a), (end, loss_b) = (best(x, y, sphere(width, inputs, generator)) for _ in range(2))
    found = construct(TwoLayerReLU(inputs, width, 1, L1), start, end, (x, y))
    level = max(loss_a, loss_b)
    return {
        "inputs": inputs,
        "width": width,
        "seed": seed,
        "level": level,
        "epsilon": found.epsilon,
        "oracle_units": found.oracle_units,
        "rise": max(0.0, found.epsilon - level),
        "gap": max(0.0, found.epsilon - least),
    }


def exponent(rows: list[dict[str, Any]], inputs: int, excess: str) -> float | None:
    """The slope of log(mean excess) over log m, where the mean is above the floor; ``None`` below 3 such widths."""
    widths = sorted({row["width"] for row in rows})
    chosen = [row for row in rows if row["inputs"] == inputs]
    means = [fmean([row[excess] for row in chosen if row["width"] == width]) for width in widths]
    return fitted_exponent(widths, means, FLOOR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    output = parser.parse_args()
    torch.set_num_threads(1)
    start, rows = time.perf_counter(), []
    for inputs in INPUTS:
        for seed in range(output.seeds):
            data = PlantedTeacherDataModule(
                "relu", inputs, 1, teacher_units=TEACHER, noise=0.0, num_examples=EXAMPLES, seed=seed
            )
            data.setup()
            x, y = (part.double() for part in data.splits["train"].tensors)
            dense = sphere(DENSE, inputs, torch.Generator().manual_seed(seed))
            least = best(x, y, torch.cat([dense, data.inner.double()]))[1]
            rows += [measure(inputs, width, seed, data, least) for width in WIDTHS]
            print(f"n = {inputs}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    result = {
        "settings": {"l1": L1, "teacher_units": TEACHER, "examples": EXAMPLES, "dense": DENSE, "seeds": output.seeds},
        "floor": FLOOR,
        "seconds": round(time.perf_counter() - start),
        "exponents": [
            {"inputs": n, "bound": -1 / n, "rise": exponent(rows, n, "rise"), "gap": exponent(rows, n, "gap")}
            for n in INPUTS
        ],
        "rows": rows,
    }
    with replacing(output.output) as file:
        file.write(json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
