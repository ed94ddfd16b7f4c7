"""What a check leaves in the files of W&B, and that the history of the user keeps its steps."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from PIL import Image
from pytorch_lightning.loggers import WandbLogger

from lightning_landscape.report.loggers import report
from tests.report.reported_checks import STRAIGHT, check, rng_states
from tests.report.wandb_file import WandbFile


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
    expected = [{key: value for key, value in row.items() if not isinstance(value, dict)} for row in check(2)["rows"]]
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
