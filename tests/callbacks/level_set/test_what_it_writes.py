"""Rows, summary and loggers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from level_set_runs import BATCHES, METRICS, Failing, Net, Validated, attached, rows_on_disk, trainer_of
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from lightning_landscape import Connection

pytestmark = pytest.mark.usefixtures("blank_figures")


def test_rows_are_plain_json_that_reads_back(tmp_path: Path) -> None:
    callback = attached(tmp_path)
    trainer_of(tmp_path, callback).fit(Net())
    lines = (tmp_path / "landscape" / "checks.jsonl").read_text().splitlines()
    assert len(lines) == 2
    for line, row in zip(lines, callback.rows, strict=True):
        assert not {"NaN", "Infinity"} & set(line.replace(",", " ").split())
        assert json.loads(line) == row
        connection = Connection.from_dict(json.loads(line))
        assert connection.to_dict() == {key: row[key] for key in connection.to_dict()}
        assert connection.profile.height == pytest.approx(connection.height)
        assert connection.profile.barrier == pytest.approx(connection.barrier)
        assert connection.linear_profile.height == pytest.approx(connection.linear_height)


def test_summary_fits_a_terminal(tmp_path: Path) -> None:
    callback = attached(tmp_path, finder=Failing(2))
    for rows in (0, 3):
        if rows:
            with pytest.warns(UserWarning, match="went wrong"):
                trainer_of(tmp_path, callback, epochs=4).fit(Net())
        console = Console(width=80, record=True, file=(tmp_path / "terminal").open("w"))
        console.print(callback.summary())
        text = console.export_text()
        assert all(len(line) <= 80 for line in text.splitlines())
        assert "epoch" in text
        assert len(callback.rows) == rows
    assert "undecided:" in text
    assert "landscape" in text


def test_csv_logger(tmp_path: Path) -> None:
    callback = attached(tmp_path, dirpath=None)
    logger = CSVLogger(tmp_path, name="run", version="v")
    trainer_of(tmp_path, callback, logger=logger, log_every_n_steps=1).fit(Validated())
    assert callback.folder == tmp_path / "run" / "v" / "landscape"
    lines = [line.split(",") for line in (tmp_path / "run" / "v" / "metrics.csv").read_text().splitlines()]
    table = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    checks = [row for row in table if row["landscape/check"]]
    assert [(float(row["landscape/check"]), int(row["step"])) for row in checks] == [(1, 8), (2, 12)]
    for row, check in zip(checks, callback.rows, strict=True):
        assert row.keys() >= METRICS
        assert float(row["landscape/height"]) == pytest.approx(check["height"])
        assert float(row["landscape/connected"]) == (check["verdict"] == "connected")
    assert sum(bool(row["landscape/height"]) for row in table) == 2


def test_tensorboard_logger(tmp_path: Path) -> None:
    callback = attached(tmp_path)
    logger = TensorBoardLogger(tmp_path, name="run", version="v")
    trainer_of(tmp_path, callback, logger=logger).fit(Net())
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0})
    events.Reload()
    assert METRICS | {"landscape/check"} <= set(events.Tags()["scalars"])
    assert [event.value for event in events.Scalars("landscape/check")] == [1, 2]
    heights = [(event.step, event.value) for event in events.Scalars("landscape/height")]
    assert heights == [(row["step"], pytest.approx(row["height"], rel=1e-6)) for row in callback.rows]
    assert {"landscape/profile", "landscape/history"} <= set(events.Tags()["images"])
    assert len(events.Images("landscape/profile")) == 2


def test_wandb_logger_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    from tests.report.wandb_file import WandbFile

    for kind in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{kind}_DIR", str(tmp_path / kind))
    callback = attached(tmp_path)
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    trainer_of(tmp_path, callback, logger=logger, log_every_n_steps=1).fit(Validated())
    wandb.finish()
    file = WandbFile(tmp_path)
    checks = [row for row in file.history if "landscape/check" in row]
    assert [row["landscape/check"] for row in checks] == [1, 2]
    for row, check in zip(checks, callback.rows, strict=True):
        assert row.keys() >= METRICS
        assert row["landscape/height"] == pytest.approx(check["height"])
    assert {(name, "landscape/check") for name in METRICS} <= set(file.step_metrics)
    table = file.table(checks[-1], "landscape/checks")
    assert len(table["data"]) == 2


def test_failing_logger_does_not_end_training(tmp_path: Path) -> None:
    class Broken(CSVLogger):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            if "landscape/check" in metrics:
                raise ConnectionError("service is down")
            super().log_metrics(metrics, step)

    callback = attached(tmp_path)
    trainer = trainer_of(tmp_path, callback, logger=Broken(tmp_path))
    with pytest.warns(UserWarning, match="could not be published: ConnectionError: service is down"):
        trainer.fit(Net())
    assert trainer.global_step == 3 * BATCHES
    assert len(rows_on_disk(tmp_path / "landscape")) == 2
