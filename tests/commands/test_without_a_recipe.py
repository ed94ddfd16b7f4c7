"""``landscape connect`` on checkpoints of anybody's Trainer, without a YAML."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightning_landscape.cli import main

CLASSES = """
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader

class Wide(LightningModule):
    def __init__(self, width):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, width)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

class Data(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(torch.ones(8, 2), batch_size=4)

def make():
    return Wide(3), DataLoader(torch.ones(8, 2), batch_size=4)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "wide_classes.py").write_text(CLASSES)
    for number, name in enumerate("abc", start=1):
        state = {"layer.weight": torch.full((3, 2), float(number)), "layer.bias": torch.zeros(3)}
        torch.save({"state_dict": state, "hyper_parameters": {"width": 3}}, tmp_path / f"{name}.ckpt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["connect", *arguments])
    return ended.value.code


@pytest.mark.parametrize(
    "source", [("--model", "wide_classes.Wide", "--data=wide_classes.Data"), ("--from", "wide_classes.py:make")]
)
def test_every_pair_has_its_folder_and_its_settings(project: Path, source: tuple[str, ...]) -> None:
    assert run("a.ckpt", "b.ckpt", *source) == 0
    assert run("a.ckpt", "c.ckpt", *source) == 0
    files = sorted((project / "landscape" / "connect").glob("*/connection.json"))
    assert len(files) == 2
    row = json.loads(files[0].read_text())
    assert row["loss_a"] == pytest.approx(4.0)
    assert row["settings"]["model"].endswith("Wide")
    assert row["settings"]["finder"][0] == "CurveThenBeads"
    assert "linearly connected" in row["conclusion"]


def test_nothing_to_build_a_model_from_is_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a.ckpt", "b.ckpt") == 2
    assert "--model my.Module" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["none.py:make", "wide_classes.py:other", "wide_classes.py:Data"])
def test_what_gives_no_model_is_said(project: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a.ckpt", "b.ckpt", "--from", source) == 2
    assert f"--from {source}" in capsys.readouterr().err
