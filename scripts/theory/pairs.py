"""Trained pairs of every kind of network that a theorem covers: the theorem's path beside those that finders find.

python -m scripts.theory.pairs docs/results/theory_pairs.json
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lightning_landscape import LossSurface
from lightning_landscape.datamodules import PlantedTeacherDataModule
from lightning_landscape.finders import (
    AutoNEB,
    BezierCurve,
    Budget,
    DynamicStringSampling,
    Ladder,
    LinearPath,
    PathFinder,
    PolygonalChain,
    SimplifiedString,
)
from lightning_landscape.models import DeepLinearNetwork, PolynomialNetwork, QuadraticNetwork, TwoLayerReLU
from lightning_landscape.path import Profile
from lightning_landscape.storage.atomic import replacing
from lightning_landscape.theory import (
    component,
    counterexample,
    deep_linear,
    intrinsic_dimension,
    measure_bound,
    quadratic,
    two_layer_relu,
)

EPOCHS = 60
SEEDS = (1, 2)
MARGINS = (0.0, 0.05)
WORK = 20_000  # training steps that a search may take
DRAWN = 300  # points of a profile that are kept
SHARE = 0.9  # of the separating height, above the minimum: the level of the negative control
CONTROLS = ((2, 3, 2), (2, 3, 1), (2, 5, 1), (2, 3, 3, 2), (2, 2, 3, 1), (2, 1, 1))
FINDERS: dict[str, Callable[[], PathFinder]] = {
    "LinearPath": LinearPath,
    "DynamicStringSampling": DynamicStringSampling,
    "PolygonalChain": PolygonalChain,
    "BezierCurve": BezierCurve,
    "AutoNEB": AutoNEB,
    "SimplifiedString": SimplifiedString,
    "Ladder": Ladder,
}

LINEAR = {"teacher": "linear", "num_inputs": 6, "num_outputs": 4, "teacher_units": 3}
SQUARES = {"teacher": "quadratic", "num_inputs": 3, "num_outputs": 1, "teacher_units": 4}
RELU = {"teacher": "relu", "num_inputs": 2, "num_outputs": 1, "teacher_units": 3}
KINDS: list[tuple[str, Callable[[], LightningModule], dict[str, Any], Any]] = [
    ("deep linear, 6-5-5-4", lambda: DeepLinearNetwork(6, 4, [5, 5]), LINEAR, deep_linear),
    ("linear with a ridge, 6-5-4", lambda: DeepLinearNetwork(6, 4, [5], ridge=0.01), LINEAR, deep_linear),
    ("quadratic, 3-27-1", lambda: QuadraticNetwork(3, 27, 1), SQUARES, quadratic),
    ("z^2 + z/2, 3-18-1", lambda: PolynomialNetwork(3, 18, 1, [1.0, 0.5, 0.0]), SQUARES, intrinsic_dimension),
    ("two-layer ReLU, l1, 2-8-1", lambda: TwoLayerReLU(2, 8, 1), RELU, two_layer_relu),
    ("two-layer ReLU, l1, 2-64-1", lambda: TwoLayerReLU(2, 64, 1), RELU, two_layer_relu),
]


def trained(make: Callable[[], LightningModule], data: PlantedTeacherDataModule, seed: int) -> Tensor:
    torch.manual_seed(seed)
    network = make()
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(network, datamodule=data)
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).double()


def pair(name: str, make: Callable[[], LightningModule], data: dict[str, Any], theorem: Any) -> dict[str, Any]:
    module = PlantedTeacherDataModule(**data)
    theta_a, theta_b = (trained(make, module, seed) for seed in SEEDS)
    network, batch = make().double(), tuple(part.double() for part in module.splits["train"].tensors)
    path = theorem.connecting_path(network, theta_a, theta_b, batch)
    bound = measure_bound(network, path, batch)
    row = {
        "network": name,
        "loss_a": bound.profile.loss[0],
        "loss_b": bound.profile.loss[-1],
        "height": bound.height,
        "excess": bound.excess,
        "length": path.normalized_length,
        "beads": path.num_beads,
        "profile": drawn(bound.profile),
        "searches": [],
    }
    if theorem is two_layer_relu:
        row["epsilon"] = theorem.construct(network, theta_a, theta_b, batch).epsilon
    surface = LossSurface(network, [batch])
    for margin in MARGINS:
        found = DynamicStringSampling().connect(surface, theta_a, theta_b, margin=margin, budget=Budget(WORK))
        row["linear_height"], row["linear_profile"] = found.linear_height, drawn(found.linear_profile)
        row["searches"].append({"margin": margin, **_outcome(found), "profile": drawn(found.profile)})
    return row


def control(widths: tuple[int, ...]) -> dict[str, Any]:
    example = counterexample(widths)
    surface = LossSurface(example.module, [example.batch])
    least, height = surface.loss(example.theta_a), example.separating_height
    level = least + SHARE * (height - least)
    row = {"widths": widths, "least": least, "separating_height": height, "level": level, "searches": []}
    for name, make in FINDERS.items():
        found = make().connect(surface, example.theta_a, example.theta_b, level, budget=Budget(WORK))
        assert found.path is not None
        labels = [component(example.module, theta) for theta in found.path.resample(401).beads]
        row["searches"].append(
            {"finder": name, **_outcome(found), "labels": len(set(labels) - {None}), "profile": drawn(found.profile)}
        )
    return row


def drawn(profile: Profile) -> dict[str, list[float]]:
    """Some hundred points of a profile, enough for a figure."""
    stride = max(1, len(profile.t) // DRAWN)
    return {name: [float(f"{value:.6g}") for value in values[::stride]] for name, values in profile._asdict().items()}


def _outcome(found: Any) -> dict[str, Any]:
    return {
        "verdict": str(found.verdict),
        "reason": found.reason and str(found.reason),
        "height": found.height,
        "length": found.normalized_length,
        "beads": found.num_beads,
        "steps": found.gradient_steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    start = time.perf_counter()
    pairs, controls = [], []
    for kind in KINDS:
        pairs.append(pair(*kind))
        print(f"{kind[0]}: {time.perf_counter() - start:.0f} s", flush=True)
    for widths in CONTROLS:
        controls.append(control(widths))
        print(f"{widths}: {time.perf_counter() - start:.0f} s", flush=True)
    settings = {"epochs": EPOCHS, "seeds": SEEDS, "work": WORK, "share": SHARE, "margins": MARGINS}
    result = {"settings": settings, "seconds": round(time.perf_counter() - start), "pairs": pairs, "controls": controls}
    with replacing(output) as file:
        file.write(json.dumps(result).encode())


if __name__ == "__main__":
    main()
