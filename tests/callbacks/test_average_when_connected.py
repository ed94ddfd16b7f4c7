"""The running average of a run: when it begins, what it is, what it leaves alone, and that it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_landscape.callbacks import AverageWhenConnected
from lightning_landscape.storage.tensor_files import SnapshotError
from tests.callbacks.fingerprints import assert_same, train
from tests.callbacks.watched_cases import CASES

PATH = [(9.0, 9.0), (6.0, 6.0), (1.0, 0.2), (-1.0, 0.2), (0.0, -0.4)]  # of the weights, by epoch


QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def loaders() -> tuple[DataLoader, DataLoader]:
    return DataLoader(torch.zeros(1, 1)), DataLoader(torch.zeros(2, 1))


class Walk(LightningModule):
    """E(w) = 1 + |w|^2; the weights jump along a path that is given, as if they trained."""

    def __init__(self, path: list[tuple[float, float]]) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.path = path
        self.weight = torch.nn.Parameter(torch.zeros(2))

    def training_step(self, batch: Tensor) -> Tensor:
        return 1 + self.weight.square().sum() + 0 * batch.sum()

    def on_train_batch_end(self, *_: object) -> None:
        self.weight.data = torch.tensor(self.path[self.current_epoch])

    def validation_step(self, batch: Tensor) -> None:
        self.log("val_loss", self.training_step(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


def fit(
    folder: Path, epochs: int = len(PATH), module: LightningModule | None = None, **options
) -> AverageWhenConnected:
    callback = AverageWhenConnected(num_batches=1, on_error="raise", dirpath=folder / "average")
    checkpoints = ModelCheckpoint(folder / "checkpoints", save_last=True)
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[callback, checkpoints],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module or Walk(PATH), *loaders(), **options)
    callback.metrics_seen = dict(trainer.callback_metrics)
    return callback


def test_it_begins_where_snapshots_are_connected_and_the_past_helps(tmp_path: Path) -> None:
    callback = fit(tmp_path)
    # (6, 6) is better than its mean with (9, 9), and so is (1, 0.2); from there on each snapshot helps.
    row = callback.row
    assert row is not None
    assert row["steps"] == [3, 4, 5]
    assert row["loss"] == pytest.approx(1.0)
    assert row["last_loss"] == pytest.approx(1.16)
    assert row["metrics"]["val_loss"] == pytest.approx(1.0)
    assert row["last_metrics"]["val_loss"] == pytest.approx(1.16)
    assert "The average of 3 snapshots, of steps 3 to 5, has val_loss 1, the last weights 1.16" in str(
        callback.summary()
    )
    assert callback.metrics_seen["landscape/average/val_loss"] == pytest.approx(1.0)
    assert json.loads((tmp_path / "average" / "average.json").read_text())["count"] == 3


def test_the_file_is_a_checkpoint_beside_those_of_the_run(tmp_path: Path) -> None:
    fit(tmp_path)
    folder = tmp_path / "checkpoints"
    assert sorted(file.name for file in folder.iterdir() if file.name[0] != "e") == ["average.ckpt", "last.ckpt"]
    module = Walk.load_from_checkpoint(folder / "average.ckpt", weights_only=True)
    torch.testing.assert_close(module.weight.data, torch.zeros(2), atol=1e-6, rtol=0)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    (found,) = Trainer(**quiet).validate(
        Walk(PATH), DataLoader(torch.zeros(2, 1)), ckpt_path=folder / "average.ckpt", verbose=False
    )
    assert found["val_loss"] == pytest.approx(1.0)


def test_hills_between_snapshots_begin_it_anew(tmp_path: Path) -> None:
    class TwoValleys(Walk):
        def training_step(self, batch: Tensor) -> Tensor:
            return 1 + (self.weight[0].square() - 1).square() + self.weight[1].square() + 0 * batch.sum()

    callback = fit(tmp_path, module=TwoValleys([(1.0, 0.1), (1.0, -0.1), (-1.0, 0.1), (-1.0, -0.1), (-1.0, 0.0)]))
    assert callback.row is not None
    assert callback.row["steps"] == [3, 4, 5]


def test_a_run_that_goes_on_has_the_same_average(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole")
    fit(tmp_path / "parts", epochs=4)
    parts = fit(tmp_path / "parts", ckpt_path=tmp_path / "parts" / "checkpoints" / "last.ckpt", weights_only=True)
    assert whole.row is not None
    assert parts.row is not None
    assert parts.row["steps"] == whole.row["steps"]
    assert parts.row["loss"] == whole.row["loss"]


def test_an_average_that_is_lost_is_said(tmp_path: Path) -> None:
    fit(tmp_path, epochs=4)
    for file in (tmp_path / "average" / "running").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(SnapshotError, match="does not exist"):
        fit(tmp_path, ckpt_path=tmp_path / "checkpoints" / "last.ckpt", weights_only=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_run_that_goes_on_elsewhere_leaves_the_folder_it_comes_from(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole")
    fit(tmp_path / "first", epochs=4)
    before = contents(tmp_path / "first" / "average")
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    there = fit(tmp_path / "second", ckpt_path=last, weights_only=True)
    assert there.folder == tmp_path / "second" / "average"
    assert there.row is not None
    assert whole.row is not None
    assert there.row["steps"] == whole.row["steps"]
    assert there.row["loss"] == whole.row["loss"]
    assert contents(tmp_path / "first" / "average") == before
    assert (there.folder / "average.json").exists()


def test_no_run_touches_the_average_of_another(tmp_path: Path) -> None:
    fit(tmp_path, epochs=4)
    early = tmp_path / "early.ckpt"
    early.write_bytes((tmp_path / "checkpoints" / "last.ckpt").read_bytes())
    fit(tmp_path, ckpt_path=tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    before = contents(tmp_path / "average")
    beside = AverageWhenConnected(num_batches=1, dirpath=tmp_path / "average")
    trainer = Trainer(max_epochs=5, callbacks=[beside], **QUIET)
    with pytest.warns(UserWarning, match="came after the checkpoint"):
        trainer.fit(Walk(PATH), *loaders(), ckpt_path=early, weights_only=True)
    assert beside.folder == tmp_path / "average-2"
    assert contents(tmp_path / "average") == before

    fit(tmp_path, epochs=3)  # a new run moves what it finds aside
    assert {f"earlier-1/{name}" for name in before} <= contents(tmp_path / "average").keys()


def test_the_file_that_a_checkpoint_names_stays_until_the_next(tmp_path: Path) -> None:
    class Killed(Walk):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 5:
                raise KeyboardInterrupt

    whole = fit(tmp_path / "whole", epochs=6, module=Walk([*PATH, (0.0, 0.0)]))
    fit(tmp_path, epochs=4, module=Walk([*PATH, (0.0, 0.0)]))
    last = tmp_path / "checkpoints" / "last.ckpt"
    kept = tmp_path / "kept.ckpt"
    kept.write_bytes(last.read_bytes())
    callback = AverageWhenConnected(num_batches=1, on_error="raise", dirpath=tmp_path / "average")
    trainer = Trainer(max_epochs=6, callbacks=[callback], **QUIET)
    with pytest.raises(SystemExit):
        trainer.fit(Killed([*PATH, (0.0, 0.0)]), *loaders(), ckpt_path=kept, weights_only=True)
    again = fit(tmp_path, epochs=6, module=Walk([*PATH, (0.0, 0.0)]), ckpt_path=kept, weights_only=True)
    assert again.row is not None
    assert whole.row is not None
    assert again.row["steps"] == whole.row["steps"]


def test_one_snapshot_alone_averages_nothing(tmp_path: Path) -> None:
    callback = fit(tmp_path, epochs=2)
    assert callback.row is not None
    assert callback.row["count"] == 1
    assert "Nothing to average" in callback.row["conclusion"]


@pytest.mark.parametrize("name", ["digits", "torchmetrics"])
def test_training_stays_as_it_was(tmp_path: Path, name: str) -> None:
    plain = train(CASES[name], tmp_path / "plain")
    callback = AverageWhenConnected(
        num_batches=2, every_n_epochs=1, dirpath=tmp_path / "ours", on_error="raise", loss_fn=CASES[name].loss_fn
    )
    assert_same(train(CASES[name], tmp_path / "ours", callback), plain)
    assert callback.row is not None
