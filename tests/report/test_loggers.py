from __future__ import annotations

import csv
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from matplotlib.figure import Figure
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities import rank_zero_only

from lightning_landscape.connection import Connection, Verdict
from lightning_landscape.path import Profile
from lightning_landscape.report.loggers import report
from tests.report.wandb_file import WandbFile

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


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for offline W&B runs, and nothing of W&B left over afterwards."""
    settings = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CONSOLE": "off"}
    folders = {f"WANDB_{kind}_DIR": str(tmp_path / kind) for kind in ("DATA", "CACHE", "CONFIG", "ARTIFACT")}
    for name, value in (settings | folders).items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    wandb.teardown()


def test_wandb_file_holds_scalars_table_lines_and_images(offline: Path) -> None:
    logger = WandbLogger(save_dir=offline)
    logger.log_metrics({"loss": 1.0}, step=5)
    report(logger, **check(1, height=math.nan))
    logger.log_metrics({"loss": 0.5}, step=15)
    report(logger, **check(2))
    wandb.finish()
    file = WandbFile(offline)

    assert len(file.history) == 3
    _, first, second = file.history
    assert first["landscape/check"] == 1
    assert math.isnan(first["landscape/height"])
    assert second["landscape/check"] == 2
    assert second["landscape/height"] == 0.2
    assert second["landscape/connected"] == 1

    table = file.table(second, "landscape/checks")
    assert "profile" not in table["columns"]
    rows = [dict(zip(table["columns"], data, strict=True)) for data in table["data"]]
    expected = [{key: value for key, value in row.items() if "profile" not in key} for row in check(2)["rows"]]
    assert rows == expected

    lines = file.table(second, "landscape/profiles_table")
    points = [("straight line", t, loss) for t, loss in zip(*STRAIGHT, strict=True)]
    points += [("found path", 0.0, 0.1), ("found path", 0.25, 0.2), ("found path", 1.0, 0.1)]
    assert [(key, t, loss) for t, key, loss in lines["data"]] == points
    config = [item for record in file.of_kind("config") for item in record.update]
    charts = {item.nested_key[-1]: json.loads(item.value_json) for item in config if "visualize" in item.nested_key}
    assert charts["landscape/profiles"]["panel_config"]["panelDefId"] == "wandb/lineseries/v0"

    for name, size in (("profile", (200, 100)), ("history", (300, 200))):
        with Image.open(file.files / second[f"landscape/{name}.path"]) as image:
            assert image.size == size


def test_wandb_binds_each_metric_once_by_its_full_name(offline: Path) -> None:
    logger = WandbLogger(save_dir=offline)
    for number in (1, 2, 3):
        report(logger, **check(number))
    report(logger, **check(1, prefix="landscape/twin"))
    wandb.finish()
    ours = [pair for pair in WandbFile(offline).step_metrics if pair[0].startswith("landscape")]
    names = ("check", "connected", "height")
    expected = [(f"landscape/{name}", "landscape/check") for name in names]
    expected += [(f"landscape/twin/{name}", "landscape/twin/check") for name in names]
    assert sorted(ours) == sorted(expected)


def rows_of_the_user(folder: Path, with_checks: bool, **explicit: bool) -> list[tuple[Any, ...]]:
    run = WandbLogger(save_dir=folder).experiment
    logger = WandbLogger(experiment=run)
    for step in range(6):
        if explicit:
            run.log({"loss": float(step)}, step=3 * step)
            run.log({"accuracy": float(step)}, step=3 * step)
        else:
            run.log({"loss": float(step)}, commit=False)
            run.log({"accuracy": float(step)})
        if with_checks and step % 2:
            report(logger, **check(step))
    wandb.finish()
    history = WandbFile(folder).history
    if with_checks:
        assert [row["landscape/check"] for row in history if "landscape/height" in row] == [1, 3, 5]
    return [(row["_step"], row["loss"], row["accuracy"]) for row in history if "loss" in row]


@pytest.mark.parametrize("explicit", [{}, {"explicit": True}], ids=["own counter", "explicit step"])
def test_wandb_history_of_the_user_keeps_its_steps(offline: Path, explicit: dict[str, bool]) -> None:
    (offline / "with").mkdir()
    (offline / "without").mkdir()
    plain = rows_of_the_user(offline / "without", with_checks=False, **explicit)
    assert len(plain) == 6
    assert rows_of_the_user(offline / "with", with_checks=True, **explicit) == plain


def test_wandb_keeps_every_check_of_a_run_that_logs_nothing_else(offline: Path) -> None:
    logger = WandbLogger(save_dir=offline)
    for number in (1, 2, 3):
        report(logger, **check(number, height=float(number)))
        report(logger, **check(number, prefix="landscape/twin", height=-float(number)))
    wandb.finish()
    history = WandbFile(offline).history
    for prefix, sign in (("landscape", 1), ("landscape/twin", -1)):
        seen = [(row[f"{prefix}/check"], row[f"{prefix}/height"]) for row in history if f"{prefix}/height" in row]
        assert seen == [(number, sign * number) for number in (1, 2, 3)]


def test_wandb_run_stays_open_and_no_random_state_moves(offline: Path) -> None:
    logger = WandbLogger(save_dir=offline)
    run = logger.experiment
    before = rng_states()
    step = run.step
    report(logger, **check(1))
    assert rng_states() == before
    assert run.step == step
    assert wandb.run is run
    run.log({"after": 1.0})
    wandb.finish()
    assert [row["after"] for row in WandbFile(offline).history if "after" in row] == [1.0]


def test_wandb_prefix_of_the_logger_is_kept(offline: Path) -> None:
    logger = WandbLogger(save_dir=offline, prefix="fold1")
    report(logger, **check(1))
    wandb.finish()
    file = WandbFile(offline)
    assert ("fold1-landscape/height", "fold1-landscape/check") in file.step_metrics
    (row,) = file.history
    assert row["fold1-landscape/height"] == 0.2
    assert not [key for key in row if key.startswith("landscape")]


def test_wandb_failed_check_has_no_lines(offline: Path) -> None:
    logger = WandbLogger(save_dir=offline)
    report(logger, **(check(1) | {"connection": None, "figures": {}}))
    wandb.finish()
    (row,) = WandbFile(offline).history
    assert row["landscape/check"] == 1
    assert "landscape/checks.path" in row
    assert not [key for key in row if key.startswith("landscape/prof")]


def test_wandb_disabled_run_is_served(offline: Path) -> None:
    logger = WandbLogger(save_dir=offline, mode="disabled")
    for number in (1, 2):
        report(logger, **check(number))
    wandb.finish()


def rng_states() -> tuple[bytes, str, object]:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    return torch.random.get_rng_state().numpy().tobytes(), repr(numpy_state), random.getstate()


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
