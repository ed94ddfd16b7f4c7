"""The callback's share of a run's wall time, run and run beside each other."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytest_benchmark.fixture import BenchmarkFixture

from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.models import ImageClassifier
from scripts.benchmarks.conftest import MODELS, fit

EPOCHS = 60
EVERY = 20


@pytest.mark.parametrize("pairs", ["lagged", "twin"])
def test_share_of_wall_time(
    benchmark: BenchmarkFixture, digits: pl.LightningDataModule, tmp_path: Path, pairs: str
) -> None:
    def run(*callbacks: pl.Callback) -> float:
        pl.seed_everything(0, verbose=False)
        start = time.perf_counter()
        fit(ImageClassifier(**MODELS["lenet"]), digits, EPOCHS, *callbacks)
        return time.perf_counter() - start

    def attached() -> tuple[float, LevelSetConnectivity]:
        callback = LevelSetConnectivity(pairs=pairs, every_n_epochs=EVERY, dirpath=tmp_path)
        return run(callback), callback

    run()
    ratios, rows = [], []
    for _ in range(3):
        bare = run()
        seconds, callback = attached()
        ratios.append(seconds / bare)
        rows = callback.rows
    steps = EPOCHS * len(digits.train_dataloader())
    benchmark.extra_info["run with / without callback (median of 3)"] = sorted(ratios)[1]
    benchmark.extra_info["checks"] = len(rows)
    benchmark.extra_info["seconds a check, without figures"] = sum(row["seconds"] for row in rows) / len(rows)
    benchmark.extra_info["work of checks / training steps"] = sum(row["work"] for row in rows) / steps
    benchmark.pedantic(lambda: attached(), rounds=1)
