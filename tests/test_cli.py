"""The command line: a user's own classes, every subcommand, what it saves, and its answers to mistakes."""

from __future__ import annotations

import ast
import importlib
import json
import os
import runpy
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, PackageNotFoundError
from pathlib import Path

import pytest
import wandb
import yaml

import lightning_landscape
from lightning_landscape.cli import main

# A model that knows nothing of this package, in a module that lies only in the working directory.
OWN_MODULE = """
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset

class Line(LightningModule):
    def __init__(self, slope: float):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor([slope]))

    def training_step(self, batch, batch_idx):
        return (self.slope * batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("slope", self.slope.detach())

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return self.slope * batch[0]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

class Ones(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=2)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader
"""
CONFIG = """
seed_everything: 1
model: {class_path: own_classes.Line, init_args: {slope: 2.0}}
data: own_classes.Ones
trainer:
  max_epochs: 1
  accelerator: cpu
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a user: own_classes.py and config.yaml."""
    (tmp_path / "own_classes.py").write_text(OWN_MODULE)
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    # What main adds to the path, and what it imports from there, ends with the test.
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["landscape"])
    monkeypatch.delitem(sys.modules, "own_classes", raising=False)
    return tmp_path


def python(*arguments: str, cwd: Path, repository: Path) -> subprocess.CompletedProcess[str]:
    """A new interpreter that finds the package, installed or not."""
    environment = os.environ | {"PYTHONPATH": str(repository)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_fit_trains_own_classes_and_saves_what_it_ran(project: Path) -> None:
    main(["fit", "--config", "config.yaml"])
    assert len(list(project.glob("checkpoints/*.ckpt"))) == 1
    resolved = yaml.safe_load((project / "resolved_fit.yaml").read_text())
    assert resolved["seed_everything"] == 1
    assert resolved["model"] == {"class_path": "own_classes.Line", "init_args": {"slope": 2.0}}
    assert resolved["trainer"]["max_epochs"] == 1


def test_saved_configuration_runs_again_and_is_saved_again(project: Path) -> None:
    main(["fit", "--config", "config.yaml", "--model.slope", "3.0"])
    first = (project / "resolved_fit.yaml").read_text()
    main(["fit", "--config", "resolved_fit.yaml"])
    assert (project / "resolved_fit.yaml").read_text() == first
    assert yaml.safe_load(first)["model"]["init_args"]["slope"] == 3.0


def test_no_run_touches_the_configuration_of_the_user(project: Path) -> None:
    main(["fit", "--config", "config.yaml"])
    assert (project / "config.yaml").read_text() == CONFIG


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_evaluation_reads_the_checkpoint_and_leaves_the_record_of_fit(
    subcommand: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", "--config", "config.yaml"])
    fitted = (project / "resolved_fit.yaml").read_text()
    (checkpoint,) = project.glob("checkpoints/*.ckpt")
    capsys.readouterr()
    main([subcommand, "--config", "config.yaml", "--trainer.max_epochs", "7", "--ckpt_path", str(checkpoint)])
    # Two steps down the square of the slope at rate 0.1 leave 2 * 0.8 ** 2 = 1.28, in float32.
    assert "1.27999" in capsys.readouterr().out
    assert (project / "resolved_fit.yaml").read_text() == fitted
    assert yaml.safe_load((project / f"resolved_{subcommand}.yaml").read_text())["trainer"]["max_epochs"] == 7


def test_predict_runs(project: Path) -> None:
    main(["predict", "--config", "config.yaml"])
    assert (project / "resolved_predict.yaml").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--config", "config.yaml", "--model", "own_classes.Curve"], "'own_classes' has no attribute 'Curve'"),
        (["fit", "--config", "config.yaml", "--model", "nowhere.Line"], "No module named 'nowhere'"),
        (["fit", "--config", "config.yaml", "--model", "own_classes.Ones"], "own_classes.Ones"),
        (["fit", "--config", "config.yaml", "--model.slope", "steep"], "steep"),
        (["fit", "--config", "config.yaml", "--trainer.epochs", "3"], "--trainer.epochs"),
        (["fit", "--config", "config.yaml", "--trainer.callbacks", "Unheard"], "Unheard"),
        (["fit", "--config", "missing.yaml"], "missing.yaml"),
        (["fit"], "model"),
        (["train"], "train"),
        ([], "subcommand"),
    ],
)
def test_a_mistake_ends_with_code_2_and_names_it(
    arguments: list[str], message: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: landscape ")
    assert message in error.partition("\nerror: ")[2]
    assert not (project / "resolved_fit.yaml").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [("optimiser: adam", "optimiser"), ("trainer: {max_epoch: 1}", "max_epoch"), ("model: [", "config")],
)
def test_a_mistake_in_the_file_ends_with_code_2_and_names_it(
    line: str, message: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "wrong.yaml").write_text(line)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", "config.yaml", "--config", "wrong.yaml"])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.partition("\nerror: ")[2]


@pytest.mark.parametrize("prog", ["landscape", "python -m lightning_landscape"])
@pytest.mark.parametrize(
    ("typed", "meant"),
    [("conect", "connect"), ("componets", "components"), ("fitt", "fit"), ("vallidate", "validate"), ("tset", "test")],
)
def test_a_mistyped_command_is_answered_with_the_nearest(
    typed: str, meant: str, prog: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([typed, "--config", "config.yaml"], prog=prog)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"usage: {prog} ")
    assert f"no command '{typed}': did you mean '{meant}'?" in error


def test_a_command_like_no_other_is_answered_with_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["xyz"])
    assert "give one of fit, validate, test, predict, connect, average, components" in capsys.readouterr().err


def test_the_version_is_that_of_pyproject(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declared = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"]
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"lightning_landscape {declared}\n"
    assert lightning_landscape.__version__ == declared


@pytest.mark.parametrize("arguments", [["--version"], ["conect"]], ids=" ".join)
def test_what_needs_no_torch_does_not_wait_for_it(arguments: list[str], tmp_path: Path, repository: Path) -> None:
    code = (
        "import atexit, sys\nfrom lightning_landscape.cli import main\n"
        "atexit.register(lambda: print(*sorted({'torch', 'numpy', 'pytorch_lightning'} & sys.modules.keys())))\n"
        f"main({arguments})"
    )
    ended = python("-c", code, cwd=tmp_path, repository=repository)
    assert ended.stdout.splitlines()[-1] == ""
    assert (ended.returncode, ended.stderr[:5]) in {(0, ""), (2, "usage")}


def test_names_of_the_package_are_those_that_a_type_checker_sees(repository: Path) -> None:
    text = (repository / "lightning_landscape" / "__init__.py").read_text()
    (block,) = [node for node in ast.parse(text).body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    seen = {
        name.name: getattr(importlib.import_module(str(node.module)), name.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert sorted(seen) == lightning_landscape.__all__
    assert all(getattr(lightning_landscape, name) is value for name, value in seen.items())
    assert set(seen) <= set(dir(lightning_landscape))
    for module in (lightning_landscape, importlib.import_module("lightning_landscape.cli")):
        with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'Nothing'"):
            _ = module.Nothing


def test_the_version_of_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(lightning_landscape, "version", not_installed)
    assert lightning_landscape._version() == lightning_landscape.__version__


@pytest.mark.slow
def test_module_finds_classes_of_the_working_directory(project: Path, repository: Path) -> None:
    done = python("-m", "lightning_landscape", "fit", "--config", "config.yaml", cwd=project, repository=repository)
    assert done.returncode == 0, done.stderr
    assert (project / "resolved_fit.yaml").is_file()


def test_module_names_itself_in_usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning_landscape", "--help"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("lightning_landscape", run_name="__main__")
    assert not stopped.value.code
    printed = capsys.readouterr().out
    assert printed.startswith("usage: python -m lightning_landscape ")
    assert "{fit,validate,test,predict}" in printed


@pytest.mark.slow
@pytest.mark.parametrize("safe_path", [False, True])
def test_installed_script_finds_classes_of_the_working_directory_unless_python_is_told_not_to(
    safe_path: bool, project: Path, repository: Path
) -> None:
    scripts = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["scripts"]
    assert EntryPoint("landscape", scripts["landscape"], "console_scripts").load() is main
    script = project / "bin" / "landscape"
    script.parent.mkdir()
    script.write_text("import sys\nfrom lightning_landscape.cli import main\nsys.exit(main())\n")
    options = ["-P"] if safe_path else []
    done = python(*options, str(script), "fit", "--config", "config.yaml", cwd=project, repository=repository)
    assert done.returncode == (2 if safe_path else 0), done.stderr
    assert (project / "resolved_fit.yaml").is_file() != safe_path
    assert ("No module named 'own_classes'" in done.stderr) == safe_path


@pytest.mark.slow
def test_digits_recipe_runs_twice_into_the_same_folders(
    project: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = yaml.safe_load((repository / "configs" / "digits.yaml").read_text())
    recipe["trainer"] |= {
        "max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "enable_progress_bar": False
    }  # fmt: skip
    for callback in recipe["trainer"]["callbacks"]:
        callback["init_args"] |= {"every_n_epochs": 1}
    (project / "short.yaml").write_text(yaml.safe_dump(recipe))
    for runs in (1, 2):
        main(["fit", "--config", "short.yaml"])
        wandb.finish()
        closing = capsys.readouterr().out
        assert all(word in closing for word in ("epoch", "level", "height", "verdict", "beads", "seconds"))
        assert str(project / "runs" / "digits" / "landscape") in closing.replace("\n", "")
        # Every offline run is kept; the check log is that of the last run.
        kept = {str(file.parent) for file in project.glob("runs/digits/wandb/offline-run-*/run-*.wandb")}
        assert len(kept) == runs
        assert closing.rpartition("W&B run: ")[2].strip() in kept
        (row,) = (project / "runs/digits/landscape/checks.jsonl").read_text().splitlines()
        assert json.loads(row)["epoch"] == 0
    assert list(project.glob("runs/digits/landscape/*.png"))
    for pattern in ("snapshots/*.safetensors", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "resolved_fit.yaml"):
        assert list((project / "runs" / "digits").glob(pattern))
