"""Gradient steps and seconds to connect two networks, beside what training them took."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import pytorch_lightning as pl
from pytest_benchmark.fixture import BenchmarkFixture

from lightning_landscape.finders import DynamicStringSampling, LinearPath, PathFinder
from scripts.benchmarks.conftest import fit

EPOCHS = 12
FINDERS: dict[str, PathFinder] = {
    "linear": LinearPath(),
    "dss": DynamicStringSampling(shorten=0),
    "dss-shortened": DynamicStringSampling(),
}


@pytest.mark.parametrize("finder", FINDERS)
def test_connect_two_initialisations(
    benchmark: BenchmarkFixture,
    make_model: Callable,
    make_surface: Callable,
    digits: pl.LightningDataModule,
    finder: str,
) -> None:
    models, started = [], time.perf_counter()
    for seed in (0, 1):
        pl.seed_everything(seed, verbose=False)
        model = make_model()
        fit(model, digits, EPOCHS)
        models.append(model)
    training = time.perf_counter() - started
    surface = make_surface(models[0])
    ends = [surface.point(dict(model.named_parameters())) for model in models]
    found = benchmark.pedantic(lambda: FINDERS[finder].connect(surface, *ends, margin=0.05), rounds=3, warmup_rounds=1)
    steps = 2 * EPOCHS * len(digits.train_dataloader())
    benchmark.extra_info.update(
        {
            "verdict": str(found.verdict),
            "beads": found.num_beads,
            "normalised length": found.normalized_length,
            "gradient steps / training steps": found.gradient_steps / steps,
            "work / training steps": found.work / steps,
            "seconds / training seconds": found.seconds / training,
        }
    )
