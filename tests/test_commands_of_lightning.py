"""The command line of ``lightning`` with our callbacks, and ours with modules of ``lightning``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.cli import main
from lightning_landscape.finders import LinearPath

pytest.importorskip("lightning.pytorch", reason="the package lightning is not installed: pip install lightning")

OWN_MODULE = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader

class Ring(LightningModule):
    def __init__(self, radius: float = 1.0):
        super().__init__()
        self.radius = radius
        self.layer = torch.nn.Linear(2, 1, bias=False)

    def training_step(self, batch, batch_idx):
        return (self.layer.weight.square().sum() - self.radius) ** 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)

class Ones(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(torch.ones(8, 2), batch_size=4)
"""
RECIPE = """
model: {class_path: ring_of_lightning.Ring, init_args: {radius: 1e0}}
data: ring_of_lightning.Ones
trainer:
  max_epochs: 2
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  logger: {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: .}}
  callbacks:
    - class_path: lightning_landscape.callbacks.LevelSetConnectivity
      init_args: {num_batches: 2, finder: {class_path: lightning_landscape.finders.LinearPath}, dirpath: checks}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {dirpath: ., filename: last}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a user who has only imports of ``lightning``."""
    (tmp_path / "ring_of_lightning.py").write_text(OWN_MODULE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "argv", ["landscape"])
    monkeypatch.delitem(sys.modules, "ring_of_lightning", raising=False)
    return tmp_path


def test_command_line_of_lightning_takes_a_callback_by_class_path(project: Path) -> None:
    from lightning.pytorch.cli import LightningCLI

    cli = LightningCLI(run=False, args=["--config", "recipe.yaml"], save_config_callback=None)
    cli.trainer.fit(cli.model, cli.datamodule)
    [callback] = [c for c in cli.trainer.callbacks if isinstance(c, LevelSetConnectivity)]
    assert isinstance(callback.finder, LinearPath)
    assert len(callback.rows) == 1


def test_landscape_fit_then_connect_and_components(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--config", "recipe.yaml"])
    assert len((project / "checks" / "checks.jsonl").read_text().splitlines()) == 1
    assert "not_found" in (printed := capsys.readouterr().out) or "connected" in printed
    for name, weight in {"a": [-1.0, 0.0], "b": [1.0, 0.0]}.items():
        torch.save({"state_dict": {"layer.weight": torch.tensor([weight])}}, f"{name}.ckpt")
    [recipe] = project.glob("**/resolved_fit.yaml")
    for command in ("connect", "components"):
        with pytest.raises(SystemExit) as ended:
            main([command, "a.ckpt", "b.ckpt", "--config", str(recipe), "--level=0.1"])
        assert ended.value.code == 0, capsys.readouterr().err
    (file,) = (project / "landscape" / "connect").glob("*/connection.json")
    found = json.loads(file.read_text())
    assert found["verdict"] == "connected"
    assert found["linear_height"] == pytest.approx(1.0, rel=1e-3)


def test_a_model_and_data_of_two_packages_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"layer.weight": torch.ones(1, 2)}}, "a.ckpt")
    data = "--data=lightning_landscape.datamodules.DigitsDataModule"
    with pytest.raises(SystemExit) as ended:
        main(["connect", "a.ckpt", "a.ckpt", "--config", "recipe.yaml", data])
    assert ended.value.code == 2
    assert "take both from one package" in capsys.readouterr().err
