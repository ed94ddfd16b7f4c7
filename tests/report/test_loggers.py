"""What a check leaves with TensorBoard, CSV, MLflow and loggers of the user's own."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities import rank_zero_only

from lightning_landscape.report.loggers import report
from tests.report.reported_checks import check, rng_states


def test_tensorboard_file_holds_scalars_and_figures(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path, prefix="fold1")
    before = rng_states()
    arguments = [check(1, height=math.nan), check(2)]
    for each in arguments:
        report(logger, **each)
    assert rng_states() == before
    logger.finalize("success")
    events = accumulator.EventAccumulator(logger.log_dir, size_guidance={"images": 0})
    events.Reload()
    heights = events.Scalars("fold1-landscape/height")
    assert [event.step for event in heights] == [10, 20]
    assert math.isnan(heights[0].value)
    assert heights[1].value == pytest.approx(0.2)
    assert [event.value for event in events.Scalars("fold1-landscape/check")] == [1, 2]
    for name, size in (("profile", (200, 100)), ("history", (300, 200))):
        images = events.Images(f"fold1-landscape/{name}")
        assert [(event.step, event.width, event.height) for event in images] == [(10, *size), (20, *size)]
    # The figures are whole for whoever is reported to next.
    arguments[-1]["figures"]["profile"].savefig(tmp_path / "again.png")


def test_csv_file_holds_scalars_and_leaves_out_nan(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=5)
    logger.save()
    report(logger, **check(1, height=math.nan))
    logger.save()
    report(logger, **check(2))
    logger.save()
    with open(Path(logger.log_dir) / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["landscape/check"], row["landscape/height"]) for row in rows] == [
        ("5", "", ""),
        ("10", "1.0", ""),
        ("20", "2.0", "0.2"),
    ]


class RecordedMLFlow(MLFlowLogger):
    """Lightning's class with the calls to the service, which is not installed here, written down."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self.metrics: list[tuple[dict[str, float], int | None]] = []
        self.artifacts: list[tuple[str, Figure, str]] = []

    @property
    def run_id(self) -> str:
        return "run7"

    @property
    def experiment(self) -> RecordedMLFlow:
        return self

    def log_figure(self, run_id: str, figure: Figure, artifact_file: str) -> None:
        self.artifacts.append((run_id, figure, artifact_file))

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.metrics.append((dict(metrics), step))


def test_mlflow_gets_scalars_and_a_figure_a_check() -> None:
    logger = RecordedMLFlow()
    first, second = check(1, height=math.inf), check(2)
    report(logger, **first)
    report(logger, **second)
    assert logger.metrics == [
        ({"landscape/check": 1.0, "landscape/connected": 1.0}, 10),
        ({"landscape/check": 2.0, "landscape/connected": 1.0, "landscape/height": 0.2}, 20),
    ]
    assert logger.artifacts == [
        ("run7", first["figures"]["profile"], "landscape/profile/00001.png"),
        ("run7", first["figures"]["history"], "landscape/history/00001.png"),
        ("run7", second["figures"]["profile"], "landscape/profile/00002.png"),
        ("run7", second["figures"]["history"], "landscape/history/00002.png"),
    ]


def test_mlflow_prefix_of_the_logger_is_kept() -> None:
    logger = RecordedMLFlow(prefix="fold1")
    report(logger, **check(1))
    assert logger.artifacts[0][2] == "fold1-landscape/profile/00001.png"


class OwnLogger(DummyLogger):
    """A logger class of a user's."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[dict[str, float], int | None]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.calls.append((dict(metrics), step))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_unknown_logger_gets_the_finite_scalars_alone(bad: float) -> None:
    logger = OwnLogger()
    report(logger, **check(3, height=bad))
    assert logger.calls == [({"landscape/check": 3.0, "landscape/connected": 1.0}, 30)]


def test_other_ranks_report_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    mlflow = RecordedMLFlow()
    for logger in (mlflow, CSVLogger(tmp_path), TensorBoardLogger(tmp_path), WandbLogger(save_dir=tmp_path)):
        report(logger, **check(1))
    assert mlflow.metrics == mlflow.artifacts == []
    assert wandb.run is None
    assert list(tmp_path.iterdir()) == []


class ReportEachEpoch(Callback):
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            report(logger, **check(trainer.current_epoch + 1))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_trainer_with_any_number_of_loggers(tmp_path: Path, count: int) -> None:
    loggers = [OwnLogger(), CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "tb")][3 - count :]
    trainer = Trainer(
        max_epochs=2,
        logger=loggers or False,
        limit_train_batches=1,
        limit_val_batches=0,
        callbacks=[ReportEachEpoch()],
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(BoringModel())
    for logger in loggers:
        if isinstance(logger, OwnLogger):
            assert [metrics["landscape/check"] for metrics, _ in logger.calls if metrics] == [1.0, 2.0]
        if isinstance(logger, CSVLogger):
            text = (Path(logger.log_dir) / "metrics.csv").read_text()
            assert [row["landscape/check"] for row in csv.DictReader(text.splitlines())] == ["1.0", "2.0"]
        if isinstance(logger, TensorBoardLogger):
            assert list(Path(logger.log_dir).glob("events.out.tfevents.*"))


def test_no_service_is_imported_before_it_is_used(tmp_path: Path) -> None:
    program = f"""
import sys
services = ("tensorboard", "tensorboardX", "mlflow", "wandb", "comet_ml", "neptune", "litlogger")
for service in services:
    sys.modules[service] = None  # importing it now raises ImportError
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers import CSVLogger
from lightning_landscape.report.loggers import report
logger = CSVLogger({str(tmp_path)!r})
report(logger, prefix="landscape", scalars={{"landscape/check": 1.0}}, rows=[], connection=None, figures={{}}, step=1)
logger.save()
assert all(sys.modules[service] is None for service in services)
print(logger.experiment.metrics_file_path)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert "landscape/check" in Path(done.stdout.strip()).read_text()
