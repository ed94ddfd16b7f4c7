"""``landscape connect``: verdicts and exit codes, the probe set of a run, files, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer

from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.cli import main
from lightning_landscape.datamodules import DigitsDataModule
from lightning_landscape.models import ImageClassifier

RING = """
import torch
from pytorch_lightning import LightningModule
from torch.utils.data import DataLoader

class Ring(LightningModule):
    def __init__(self, radius: float = 1.0):
        super().__init__()
        self.radius = radius
        self.layer = torch.nn.Linear(2, 1, bias=False)
        self.register_buffer("shift", torch.zeros(()))

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        return (self.layer.weight.square().sum() - self.radius) ** 2 + self.shift

    def train_dataloader(self):
        return DataLoader(torch.ones(8, 2), batch_size=4)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
"""
RECIPE = """
seed_everything: 3
model: {class_path: ring_classes.Ring, init_args: {radius: 1e0}}
trainer: {max_epochs: 7, callbacks: [{class_path: no.such.Callback}]}
optimizer: unknown
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: a model, a recipe, and three checkpoints a, b, far."""
    (tmp_path / "ring_classes.py").write_text(RING)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for name, weight in {"a": [-1.0, 0.0], "b": [1.0, 0.0], "far": [3.0, 0.0]}.items():
        state = {"layer.weight": torch.tensor([weight]), "shift": torch.zeros(())}
        torch.save({"state_dict": state}, tmp_path / f"{name}.ckpt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["connect", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def row(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "connection.json").read_text())
    return found


def only_folder(project: Path) -> Path:
    """The folder of the one pair that was examined."""
    (folder,) = (project / "landscape" / "connect").iterdir()
    return folder


def test_certify_says_what_is_proved_or_why_not(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a.ckpt", "b.ckpt", "--config", "recipe.yaml", "--level=0.1", "--certify", "--out=proof") == 0
    proof = json.loads((project / "proof" / "certificate.json").read_text())
    assert proof["certified"] == (proof["reason"] is None)
    assert "ertified: " in capsys.readouterr().out


def test_connected_pair(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a.ckpt", "b.ckpt", "--config", "recipe.yaml", "--level=0.1", "--slice=9") == 0
    found = row(only_folder(project))
    assert found["verdict"] == "connected"
    assert found["linear_height"] == pytest.approx(1.0, rel=1e-3)
    assert found["height"] <= 0.1  # type: ignore[operator]
    assert (found["a"], found["b"], found["align"]) == ("a.ckpt", "b.ckpt", False)
    assert "connected" in capsys.readouterr().out
    assert {"profile.png", "slice.png"} <= {file.name for file in only_folder(project).iterdir()}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--finder=LinearPath"], "depth"),
        (["--budget=0"], "budget"),
        (["--finder=DynamicStringSampling", "--finder.max_bead_steps=1", "--finder.shorten=0"], "bead"),
    ],
)
def test_not_found_is_exit_code_3(project: Path, arguments: list[str], reason: str) -> None:
    assert run("a.ckpt", "b.ckpt", "--config=recipe.yaml", "--level=0.0001", "--out=here", *arguments) == 3
    assert (row(project / "here")["verdict"], row(project / "here")["reason"]) == ("not_found", reason)


def test_level_below_an_endpoint_is_said(project: Path) -> None:
    assert run("a.ckpt", "far.ckpt", "--config=recipe.yaml", "--level=0.1") == 3
    assert row(only_folder(project))["reason"] == "endpoint"


def test_command_line_overrides_the_recipe(project: Path) -> None:
    assert run("a.ckpt", "b.ckpt", "--config=recipe.yaml", "--model.radius=4", "--level=20") == 0
    assert row(only_folder(project))["loss_a"] == pytest.approx(9.0)


def test_an_optimizer_of_the_recipe_is_not_missed(project: Path) -> None:
    own = RING + "    configure_optimizers = LightningModule.configure_optimizers\n"
    (project / "bare_classes.py").write_text(own)
    (project / "bare.yaml").write_text("model: bare_classes.Ring\noptimizer: torch.optim.SGD")
    assert run("a.ckpt", "b.ckpt", "--config=bare.yaml", "--finder=LinearPath") == 3
    assert row(only_folder(project))["loss_a"] == 0.0


def test_callbacks_of_the_model_write_nothing(project: Path) -> None:
    own = RING + (
        "    def configure_callbacks(self):\n"
        "        from pytorch_lightning.callbacks import ModelCheckpoint\n"
        "        return ModelCheckpoint(dirpath='mine', save_last=True)\n"
    )
    (project / "saving_classes.py").write_text(own)
    (project / "saving.yaml").write_text("model: saving_classes.Ring")
    assert run("a.ckpt", "b.ckpt", "--config=saving.yaml", "--finder=LinearPath") == 3
    assert not (project / "mine").exists()


def test_buffers_of_a_model_that_is_built_late_are_those_of_the_first_state(project: Path) -> None:
    own = RING.replace('        self.register_buffer("shift", torch.zeros(()))\n', "") + (
        "    def configure_model(self):\n        self.register_buffer('shift', torch.zeros(()))\n"
    )
    (project / "late_classes.py").write_text(own)
    (project / "late.yaml").write_text("model: late_classes.Ring")
    for name in ("a", "b"):
        shifted = torch.load(project / f"{name}.ckpt", weights_only=True)
        shifted["state_dict"]["shift"] = torch.tensor(0.5)
        torch.save(shifted, project / f"shifted-{name}.ckpt")
    assert run("shifted-a.ckpt", "b.ckpt", "--config=late.yaml", "--finder=LinearPath") == 2  # buffers differ
    assert run("shifted-a.ckpt", "shifted-b.ckpt", "--config=late.yaml", "--finder=LinearPath") == 3
    assert row(only_folder(project))["loss_a"] == 0.5


def test_an_end_without_a_loss_is_not_found_and_has_no_slice(project: Path) -> None:
    state = {"layer.weight": torch.full((1, 2), float("nan")), "shift": torch.zeros(())}
    torch.save({"state_dict": state}, project / "nan.ckpt")
    assert run("nan.ckpt", "b.ckpt", "--config=recipe.yaml", "--slice=3") == 3
    assert row(only_folder(project))["reason"] == "diverged"
    assert not list(only_folder(project).glob("slice*"))


def test_a_slice_that_fails_leaves_the_verdict(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["a.ckpt", "b.ckpt", "--config=recipe.yaml", "--finder=LinearPath", "--slice=2"]
    assert run(*arguments) == 3
    for file in only_folder(project).glob("slice*.safetensors"):
        file.write_bytes(b"damaged")
    (only_folder(project) / "connection.json").unlink()
    assert run(*arguments) == 2
    assert "slice" in capsys.readouterr().err
    assert row(only_folder(project))["verdict"] == "not_found"


def test_an_aligned_row_says_that_it_ends_in_a_copy(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a.ckpt", "b.ckpt", "--config=recipe.yaml", "--align", "--finder=LinearPath") == 3
    assert row(only_folder(project))["aligned"] is True
    assert "the permuted copy of B, not B itself" in capsys.readouterr().out


def test_corrupt_data_are_exit_code_2(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "valid", "test"):
        (project / f"ptb.{name}.txt").write_text("no treebank")
    data = "{class_path: lightning_landscape.datamodules.PennTreebankDataModule, init_args: {source: .}}"
    (project / "corrupt.yaml").write_text(f"model: ring_classes.Ring\ndata: {data}")
    assert run("a.ckpt", "b.ckpt", "--config=corrupt.yaml") == 2
    assert "is not the published file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.ckpt", "none.ckpt"], "none.ckpt does not exist"),
        (["a.ckpt", "recipe.yaml"], "recipe.yaml"),
        (["a.ckpt"], "required"),
        (["a.ckpt", "b.ckpt", "--finder=NoFinder"], "NoFinder"),
        (["a.ckpt", "b.ckpt", "--level=.nan"], "level is NaN"),
        (["a.ckpt", "b.ckpt", "--margin=-1"], "margin must be"),
        (["a.ckpt", "b.ckpt", "--budget=-1"], "work must be"),
        (["a.ckpt", "b.ckpt", "--num_batches=0"], "num_batches must be"),
        (["a.ckpt", "b.ckpt", "--slice=-2"], "slice must be"),
        (["a.ckpt", "b.ckpt", "--batch_norm=no"], "batch_norm must be"),
        (["a.ckpt", "b.ckpt", "--device=tpu9"], "device"),
        (["a.ckpt", "small.ckpt"], "shape"),
        (["small.ckpt", "b.ckpt"], "does not fit the recipe's model"),
        (["a.ckpt", "extra.ckpt"], "1 tensors that it lacks: more.weight"),
        (["extra.ckpt", "b.ckpt"], "1 tensors that it lacks: more.weight"),
        (["a.ckpt", "empty.ckpt"], "missing"),
        (["empty.ckpt", "b.ckpt"], "missing"),
        (["a.ckpt", "b.ckpt", "--config"], "expected one argument"),
        (["a.ckpt", "b.ckpt", "--config=none.yaml"], "none.yaml"),
        (["a.ckpt", "b.ckpt", "--config=broken.yaml"], "broken.yaml"),
        (["a.ckpt", "b.ckpt", "--config=modelless.yaml"], "no section 'model'"),
    ],
)
def test_what_cannot_be_used_is_exit_code_2(
    project: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": {"layer.weight": torch.zeros(1, 3)}}, project / "small.ckpt")
    torch.save({"state_dict": {}}, project / "empty.ckpt")
    state = {"layer.weight": torch.zeros(1, 2), "shift": torch.zeros(()), "more.weight": torch.zeros(2)}
    torch.save({"state_dict": state}, project / "extra.ckpt")
    (project / "broken.yaml").write_text("model: [")
    (project / "modelless.yaml").write_text("trainer: {}")
    config = [] if any(argument.startswith("--config") for argument in arguments) else ["--config=recipe.yaml"]
    assert run(*arguments, *config) == 2
    assert message in capsys.readouterr().err
    assert not (project / "landscape").exists()


def test_frozen_weights_must_agree(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = RING + "\nclass Frozen(Ring):\n    def __init__(self):\n        super().__init__()\n"
    own += "        self.base = torch.nn.Parameter(torch.zeros(2), requires_grad=False)\n"
    (project / "frozen_classes.py").write_text(own)
    (project / "frozen.yaml").write_text("model: frozen_classes.Frozen")
    for name, base in (("c", 0.0), ("d", 1.0)):
        state = {"layer.weight": torch.ones(1, 2), "shift": torch.zeros(()), "base": torch.full((2,), base)}
        torch.save({"state_dict": state}, project / f"{name}.ckpt")
    assert run("c.ckpt", "d.ckpt", "--config=frozen.yaml") == 2
    assert "frozen parameters differ" in capsys.readouterr().err


def test_the_surface_is_that_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses of a check made in training come out again from its snapshots: same probe set, same measure."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(5)
    callback = LevelSetConnectivity(dirpath="run", overhead=1.0)
    Trainer(
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    ).fit(ImageClassifier("mlp", image_size=8), datamodule=DigitsDataModule())
    (tmp_path / "recipe.yaml").write_text(
        "model:\n  class_path: lightning_landscape.models.ImageClassifier\n"
        "  init_args: {architecture: mlp, image_size: 8}\n"
        "data: lightning_landscape.datamodules.DigitsDataModule\n"
    )
    files = sorted(str(file) for file in Path("run/snapshots").glob("*.safetensors"))
    assert run(*files, "--config=recipe.yaml", "--finder=LinearPath") in (0, 3)
    found, check = row(only_folder(tmp_path)), callback.rows[0]
    for key in ("loss_a", "loss_b", "linear_height", "level"):
        assert found[key] == pytest.approx(check[key], rel=1e-6), key
