"""``landscape sweep``: each value trains pairs, all are asked one level, and a sweep goes on where it stopped."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from lightning_landscape.cli import main
from lightning_landscape.report.sweep import summarised, sweep_answer

CLASSES = """
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset

class Swept(LightningModule):
    def __init__(self, width=4):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.05)

class SweptData(LightningDataModule):
    def loader(self, seed):
        x = torch.randn(64, 3, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(x, x[:, :1] * x[:, 1:2]), batch_size=32, shuffle=seed == 0)

    def train_dataloader(self):
        return self.loader(0)

    def val_dataloader(self):
        return self.loader(1)
"""


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["sweep", *arguments])
    return ended.value.code


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "swept_classes.py").write_text(CLASSES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


MADE = ("--model=swept_classes.Swept", "--data=swept_classes.SweptData", "--max_epochs=3", "--finder=LinearPath")


def test_pairs_at_each_value_are_asked_one_level_and_done_work_stays(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--over=model.init_args.width=1,8", "--seeds=2", *MADE)
    code = run(*asked)
    found = json.loads((project / "landscape" / "sweep" / "sweep.json").read_text())
    assert [row["value"] for row in found["table"]] == [1, 8]
    assert len(found["runs"]) == 8
    assert len(found["pairs"]) == 4
    assert {pair["level"] for pair in found["pairs"]} == {found["level"]}
    assert found["level"] == pytest.approx(1.05 * max(run["loss"] for run in found["runs"]))
    assert code == (0 if found["table"][-1]["connected"] == 2 else 3)
    assert len({run["loss"] for run in found["runs"]}) == 8  # each has an initialisation of its own
    assert all(run["steps"] in (2, 4, 6) for run in found["runs"])  # ends of epochs of two batches
    assert (project / "landscape" / "sweep" / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    assert found["conclusion"] in " ".join(capsys.readouterr().out.split())

    def never(*args: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(importlib.import_module("lightning_landscape.commands.sweep"), "trained", never)
    assert run(*asked) == code
    again = json.loads((project / "landscape" / "sweep" / "sweep.json").read_text())
    assert again["table"] == found["table"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--over=model.init_args.width=2", *MADE), "at least two values"),
        (("--over=width", *MADE), "KEY=V1,V2"),
        (("--over=model.init_args.width=1,2", "--seeds=0", *MADE), "seeds must be at least 1"),
        (("--over=model.init_args.width=1,2", "--level=.nan", *MADE), "level must be a finite number"),
    ],
)
def test_what_cannot_be_swept_is_said(
    project: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def row(value: int, connected: int, val_loss: float | None, spread: float = 0.01) -> dict:
    return {"value": value, "pairs": 3, "connected": connected, "val_loss": val_loss, "val_loss_std": spread}


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([row(2, 1, 0.9), row(4, 3, 0.5), row(8, 3, 0.4)], ("From width=4 on", "No overfitting is seen")),
        ([row(2, 3, 0.9), row(4, 2, 0.5), row(8, 3, 0.6)], ("From width=8 on", "Overfitting begins after width=4")),
        ([row(2, 3, 0.5), row(4, 2, 0.51)], ("were not all connected", "no more than its spread")),
        ([row(2, 3, None), row(4, 3, None)], ("from width=2 on: ask a lower --level", "no validation loss")),
    ],
)
def test_the_answer(rows: list[dict], parts: tuple[str, str]) -> None:
    said = sweep_answer("width", 0.4, rows)
    assert all(part in said for part in parts), said


def test_means_and_spreads_leave_out_what_is_not_known() -> None:
    runs = [
        {"value": 2, "loss": 1.0, "val_loss": None, "steps": None},
        {"value": 2, "loss": 2.0, "val_loss": 5.0, "steps": 7},
    ]
    pairs = [{"value": 2, "connected": True, "linear_barrier": None, "height": 3.0, "normalized_length": 1.0}]
    (found,) = summarised([2], runs, pairs)
    assert (found["loss"], found["loss_std"], found["gap"], found["steps"]) == (1.5, pytest.approx(0.5**0.5), 3.0, 7)
    assert (found["linear_barrier"], found["connected"], found["reached"]) == (None, 1, 1)
