"""``landscape components``: counts, resumed and shared work, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_landscape.cli import main

# E has wells at -2, 0 and 2 of loss 0.1, hills of height 0.1 + 4 between them.
WAVES = """
import torch
from pytorch_lightning import LightningModule
from torch.utils.data import DataLoader

class Waves(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1, bias=False)

    def training_step(self, batch, batch_idx):
        return 0.1 + 4 * (self.layer.weight * torch.pi / 2).sin().square().sum()

    def train_dataloader(self):
        return DataLoader(torch.ones(8, 2), batch_size=4)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: a model, a recipe, and a folder of four checkpoints, two of them in one well."""
    (tmp_path / "wave_classes.py").write_text(WAVES)
    (tmp_path / "recipe.yaml").write_text("model: wave_classes.Waves")
    (tmp_path / "runs").mkdir()
    for weight in (-2.0, 0.0, 0.05, 2.0):
        torch.save({"state_dict": {"layer.weight": torch.tensor([[weight]])}}, tmp_path / "runs" / f"{weight}.ckpt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["components", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "components.json").read_text())
    return found


@pytest.mark.parametrize(("pairs", "searches"), [("tree", 3), ("all", 6)])
def test_wells_are_counted(project: Path, pairs: str, searches: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("runs", "--config=recipe.yaml", "--level=0.2", f"--pairs={pairs}", "--budget=50") == 3
    found = report(project / "landscape" / "components")
    assert found["num_components"] == 3
    assert len(found["searches"]) == searches
    heights = sorted(merge["height"] for merge in found["merges"])
    assert heights[0] < 0.2
    assert heights[1:] == pytest.approx([4.1, 4.1], rel=1e-2)
    assert "N_u = 3" in capsys.readouterr().out
    assert (project / "landscape" / "components" / "components.png").stat().st_size > 5000


def test_one_component_is_exit_code_0(project: Path) -> None:
    assert run("runs/0.0.ckpt", "runs/0.05.ckpt", "--config=recipe.yaml") == 0
    assert run("runs", "--config=recipe.yaml", "--level=5", "--budget=0") == 0
    assert run("runs/0.0.ckpt", "--config=recipe.yaml") == 0


def test_paths_are_searched_at_the_level_asked_for(project: Path) -> None:
    assert run("runs/0.0.ckpt", "runs/0.05.ckpt", "--config=recipe.yaml", "--level=0.15", "--finder=LinearPath") == 0
    assert [search["level"] for search in report(project / "landscape" / "components")["searches"]] == [0.15]


def test_a_second_call_finds_its_searches(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["runs", "--config=recipe.yaml", "--budget=20", "--vectorize=false"]
    run(*arguments)
    first = report(project / "landscape" / "components")

    def searched(*arguments: object, **options: object) -> None:
        raise AssertionError("was done before")

    monkeypatch.setattr("lightning_landscape.finders.DynamicStringSampling.connect", searched)
    run(*arguments)
    assert report(project / "landscape" / "components") == first


@pytest.mark.slow
def test_processes_share_the_searches_and_agree(project: Path, repository: Path) -> None:
    arguments = ["runs", "--config=recipe.yaml", "--pairs=all", "--budget=20", "--vectorize=false", "--level=5"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    command += ["-m", "lightning_landscape", "components", *arguments, "--out=shared"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(repository), str(project)])}
    ended = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert run(*arguments, "--out=alone") == 0
    alone, shared = (report(project / name) for name in ("alone", "shared"))
    for search in (*alone["searches"], *shared["searches"]):
        del search["seconds"]
    assert shared == alone
    assert len(list((project / "shared").glob("pairs*.jsonl"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=recipe.yaml"], "required"),
        (["empty", "--config=recipe.yaml"], "holds no .ckpt or .safetensors"),
        (["none.ckpt", "--config=recipe.yaml"], "none.ckpt does not exist"),
        (["runs", "--config=recipe.yaml", "--pairs=some"], "pairs must be one of tree, all"),
        (["runs", "--config=recipe.yaml", "--margin=-1"], "margin must be"),
        (["runs", "--config=recipe.yaml", "--level=.nan"], "level must be a finite number"),
    ],
)
def test_what_cannot_be_used_is_exit_code_2(
    project: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "empty").mkdir()
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err
