"""``landscape average``: what it advises, what it writes, and that Lightning takes the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from safetensors.torch import save_file

from lightning_landscape.cli import main

CLASSES = """
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset

def data(seed, size):
    x = torch.randn(size, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, torch.tanh(x[:, :1] - x[:, 1:2]))

class Net(LightningModule):
    def __init__(self, width=6, norm=True):
        super().__init__()
        self.save_hyperparameters()
        norm = torch.nn.BatchNorm1d(width) if norm else torch.nn.Identity()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, width), norm, torch.nn.Tanh(), torch.nn.Linear(width, 1))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.mse_loss(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))
        self.log("val_score", -self.training_step(batch, batch_idx))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.02)

class Data(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(data(0, 256), batch_size=32, shuffle=True)

    def val_dataloader(self):
        return DataLoader(data(1, 64), batch_size=64)

    test_dataloader = val_dataloader

def alone():
    net = Net(norm=False)
    net.validation_step = None
    return Net(norm=False), Data().train_dataloader()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three late checkpoints of run a, the last of run b, and of run c, which has no batch norm."""
    folder = tmp_path_factory.mktemp("averages")
    (folder / "averaged_classes.py").write_text(CLASSES)
    return folder


@pytest.fixture
def project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    if not (folder / "b.ckpt").exists():
        import averaged_classes

        for name, seed, ends in (("a", 1, (8, 9, 10)), ("b", 2, (10,)), ("c", 3, (10,))):
            torch.manual_seed(seed)
            module, data = averaged_classes.Net(norm=name != "c"), averaged_classes.Data()
            for epochs in ends:
                trainer = Trainer(
                    max_epochs=epochs,
                    logger=False,
                    enable_checkpointing=False,
                    enable_progress_bar=False,
                    enable_model_summary=False,
                )
                trainer.fit(module, datamodule=data)
                trainer.save_checkpoint(f"{name}{epochs if epochs < 10 else ''}.ckpt")
    return folder


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["average", *arguments])
    return ended.value.code


MADE = ("--model=averaged_classes.Net", "--data=averaged_classes.Data")


def record(name: str) -> dict:
    row: dict = json.loads(Path(f"{name}.json").read_text())
    return row


def test_late_checkpoints_become_a_checkpoint_that_lightning_takes(project: Path) -> None:
    files = ["a8.ckpt", "a9.ckpt", "a.ckpt"]
    assert run(*files, *MADE, "--out=avg.ckpt", "--method=uniform") == 0
    import averaged_classes

    row = record("avg")
    module = averaged_classes.Net.load_from_checkpoint("avg.ckpt", weights_only=True)
    assert module.hparams.width == 6
    states = [torch.load(file, weights_only=True)["state_dict"] for file in files]
    for name, value in module.named_parameters():
        torch.testing.assert_close(value.detach(), torch.stack([state[name] for state in states]).mean(0))
    # Statistics are those of the average on training data, and not of any end.
    assert all(not torch.equal(module.layers[1].running_var, state["layers.1.running_var"]) for state in states)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    (tested,) = Trainer(**quiet).test(
        averaged_classes.Net(), datamodule=averaged_classes.Data(), ckpt_path="avg.ckpt", verbose=False
    )
    models = {model["name"]: model for model in row["models"]}
    assert tested["test_loss"] == pytest.approx(models["uniform average of 3 of 3"]["metrics"]["val_loss"], rel=1e-5)
    # An end is measured as it was saved.
    (own,) = Trainer(**quiet).test(
        averaged_classes.Net(), datamodule=averaged_classes.Data(), ckpt_path="a.ckpt", verbose=False
    )
    assert own["test_loss"] == pytest.approx(models["a.ckpt"]["metrics"]["val_loss"], rel=1e-5)
    written = torch.load("avg.ckpt", weights_only=True)
    assert not {"optimizer_states", "lr_schedulers", "callbacks"} & written.keys()
    assert written["landscape_average"]["files"] == files
    assert row["conclusion"] == written["landscape_average"]["conclusion"]


def test_two_seeds_are_advised_against_unless_forced_or_aligned(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["a.ckpt", "b.ckpt"]
    assert run(*files, *MADE, "--out=no.ckpt") == 3
    assert "Do not average: val_loss" in capsys.readouterr().out
    assert not Path("no.ckpt").exists()
    row = record("no")
    assert (row["written"], row["advice"]) == (None, "against")
    assert run(*files, *MADE, "--out=no.ckpt", "--force") == 3
    assert Path("no.ckpt").exists()


def test_a_permuted_copy_averages_to_itself_once_it_is_aligned(project: Path) -> None:
    state = torch.load("c.ckpt", weights_only=True)["state_dict"]
    order = torch.randperm(6)
    for name in [name for name in state if name.startswith("layers.0")]:
        state[name] = state[name][order]
    state["layers.3.weight"] = state["layers.3.weight"][:, order]
    save_file({name: value.contiguous() for name, value in state.items()}, "copy.safetensors")
    assert run("c.ckpt", "copy.safetensors", *MADE, "--out=copy.ckpt") == 3
    assert run("c.ckpt", "copy.safetensors", *MADE, "--out=copy.ckpt", "--align") == 0
    found, own = (torch.load(file, weights_only=True)["state_dict"] for file in ("copy.ckpt", "c.ckpt"))
    torch.testing.assert_close(found["layers.0.weight"], own["layers.0.weight"])
    # Of two files without more than weights comes a checkpoint too.
    save_file({name: value.contiguous() for name, value in own.items()}, "plain.safetensors")
    plain = (*MADE, "--model.init_args.norm=false")
    assert run("plain.safetensors", "copy.safetensors", *plain, "--out=third.ckpt", "--align", "--repair") == 0
    import averaged_classes

    assert averaged_classes.Net.load_from_checkpoint("third.ckpt", weights_only=True, norm=False).global_step == 0


def test_a_metric_that_should_be_large_and_the_best_point_of_a_path(project: Path) -> None:
    files = ["a8.ckpt", "a.ckpt"]
    assert run(*files, *MADE, "--out=path.ckpt", "--method=path", "--monitor=val_score", "--mode=max") == 0
    row = record("path")
    assert row["measure"] == "val_score"
    assert 0 < row["t"] < 1
    assert row["path"]["verdict"] == "connected"


def test_without_validation_the_training_loss_decides(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = {name: torch.zeros(shape) for name, shape in (("layers.0.weight", (6, 4)), ("layers.0.bias", (6,)))}
    plain |= {"layers.3.weight": torch.zeros(1, 6), "layers.3.bias": torch.zeros(1)}
    for name, bias in (("zero", 0.0), ("one", 0.1), ("nan", float("nan"))):
        torch.save({"state_dict": plain | {"layers.3.bias": torch.full((1,), bias)}}, f"{name}.ckpt")
    source = ("--from", "averaged_classes.py:alone")
    assert run("zero.ckpt", "one.ckpt", *source, "--out=sum.ckpt") == 0
    assert record("sum")["measure"] == "E"
    assert run("zero.ckpt", "nan.ckpt", *source, "--out=bad.ckpt") == 3
    assert "E of nan.ckpt is no finite number" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.ckpt", "--out=x.ckpt"), "at least two checkpoints"),
        (("a.ckpt", "b.ckpt", "--out=a.ckpt"), "is one of the checkpoints"),
        (("a.ckpt", "b.ckpt", "--out=x.pt"), "FILE.ckpt"),
        (("a.ckpt", "b.ckpt", "--out=x.ckpt", "--method=median"), "method must be one of"),
        (("a.ckpt", "b.ckpt", "a8.ckpt", "--out=x.ckpt", "--method=path"), "needs two checkpoints"),
        (("a.ckpt", "b.ckpt", "--out=x.ckpt", "--monitor=nothing"), "the validation logs val_loss, val_score"),
    ],
)
def test_what_cannot_be_done_is_said(
    project: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, *MADE) == 2
    assert message in capsys.readouterr().err
