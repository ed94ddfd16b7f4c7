"""When LevelSetConnectivity checks, and which snapshots it pairs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from level_set_runs import BATCHES, Net, Validated, attached, examples, other_weights, rows_on_disk, trainer_of
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_landscape import SnapshotStore

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.mark.parametrize(
    ("pairs", "every_n_epochs", "epochs"),
    [
        ("lagged", 1, [1, 2, 3, 4]),
        ("lagged", 2, [3]),
        ("first", 2, [3]),
        ("first", 3, []),
        ("reference", 2, [1, 3]),
        ("twin", 2, [1, 3]),
        ("lagged", 9, []),
    ],
)
def test_epochs_of_checks(pairs: Any, every_n_epochs: int, epochs: list[int], tmp_path: Path) -> None:
    reference = other_weights(tmp_path, Net()) if pairs == "reference" else None
    callback = attached(tmp_path, pairs=pairs, every_n_epochs=every_n_epochs, reference=reference, keep="all")
    trainer_of(tmp_path, callback, epochs=5).fit(Net())
    rows = callback.rows
    assert [row["epoch"] for row in rows] == epochs
    assert [row["step"] for row in rows] == [(epoch + 1) * BATCHES for epoch in epochs]
    assert {row["pair"] for row in rows} <= {pairs}
    assert [row["check"] for row in rows] == list(range(1, len(epochs) + 1))
    assert (tmp_path / "landscape" / "checks.jsonl").exists() == bool(epochs)
    snapshots = {snapshot.epoch for snapshot in SnapshotStore(tmp_path / "landscape" / "snapshots")}
    assert snapshots == {epoch for epoch in range(5) if (epoch + 1) % every_n_epochs == 0}


def test_partners_are_the_snapshots_they_are_said_to_be(tmp_path: Path) -> None:
    lagged, first = (
        attached(tmp_path, pairs=pairs, name=pairs, dirpath=None, keep="all") for pairs in ("lagged", "first")
    )
    batches = list(DataLoader(examples(), batch_size=16))
    lagged.batches = first.batches = batches
    module = Net()
    trainer_of(tmp_path, lagged, first, epochs=4).fit(module)

    def loss(folder: Path, epoch: int) -> float:
        (snapshot,) = [found for found in SnapshotStore(folder / "snapshots") if found.epoch == epoch]
        module.load_state_dict(snapshot.state_dict())
        with torch.no_grad():
            return float(torch.stack([module.training_step(batch, 0) for batch in batches]).mean())

    for callback, partners in ((lagged, [0, 1, 2]), (first, [0, 0, 0])):
        folder = tmp_path / "landscape" / str(callback.name)
        assert folder == callback.folder
        for row, partner in zip(rows_on_disk(folder), partners, strict=True):
            assert row["loss_a"] == pytest.approx(loss(folder, partner), rel=1e-6)
            assert row["loss_b"] == pytest.approx(loss(folder, row["epoch"]), rel=1e-6)


def test_snapshots_hold_the_weights_of_their_epoch(tmp_path: Path) -> None:
    class Keeper(Callback):
        def __init__(self) -> None:
            self.weights: list[dict[str, Tensor]] = []

        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.weights.append(copy.deepcopy(pl_module.state_dict()))

    keeper = Keeper()
    trainer_of(tmp_path, keeper, attached(tmp_path, keep="all")).fit(Net())
    snapshots = list(SnapshotStore(tmp_path / "landscape" / "snapshots"))
    assert [(s.epoch, s.step) for s in snapshots] == [(0, 4), (1, 8), (2, 12)]
    for snapshot, weights in zip(snapshots, keeper.weights, strict=True):
        module = Net()
        module.load_state_dict(snapshot.state_dict())
        assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


def test_twin_is_saved_beside_the_module(tmp_path: Path) -> None:
    trainer_of(tmp_path, attached(tmp_path, pairs="twin"), epochs=1).fit(Net())
    store = SnapshotStore(tmp_path / "landscape" / "snapshots")
    mine, twin = (store.load(name) for name in ("epoch=000-step=000004", "twin-epoch=000-step=000004"))
    assert mine.keys() == twin.keys()
    assert not any(torch.equal(mine[name], twin[name]) for name in mine)


def test_fast_dev_run_does_nothing(tmp_path: Path) -> None:
    callback = attached(tmp_path, pairs="twin")
    trainer_of(tmp_path, callback, fast_dev_run=True).fit(Validated())
    assert callback.rows == []
    assert callback.state_dict() == {}
    assert not (tmp_path / "landscape").exists()


@pytest.mark.parametrize("run", ["validate", "test", "predict"])
def test_other_loops_alone_do_nothing(run: str, tmp_path: Path) -> None:
    callback = attached(tmp_path)
    trainer = trainer_of(tmp_path, callback)
    getattr(trainer, run)(Validated(), DataLoader(examples(), batch_size=32))
    assert callback.rows == []
    assert callback.folder is None
    assert not any(name.startswith("landscape") for name in trainer.callback_metrics)
    assert not (tmp_path / "landscape").exists()


def test_sanity_check_triggers_nothing(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Watch(Callback):
        def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.append((list(callback.rows), list(tmp_path.rglob("*"))))

    callback = attached(tmp_path)
    trainer_of(tmp_path, callback, Watch(), num_sanity_val_steps=2).fit(Validated())
    assert seen == [([], [])]
    assert [row["epoch"] for row in callback.rows] == [1, 2]


def test_second_fit_goes_on(tmp_path: Path) -> None:
    callback = attached(tmp_path)
    trainer = trainer_of(tmp_path, callback)
    module = Net()
    trainer.fit(module)
    trainer.fit_loop.max_epochs = 5
    trainer.fit(module)
    assert [row["epoch"] for row in callback.rows] == [1, 2, 3, 4]
    assert rows_on_disk(tmp_path / "landscape") == callback.rows
    assert [row["check"] for row in callback.rows] == [1, 2, 3, 4]
    # The lagged pair spans the break.
    assert callback.rows[2]["loss_a"] == pytest.approx(callback.rows[1]["loss_b"], rel=1e-6)


def test_validating_an_earlier_checkpoint_between_two_fits_loses_no_row(tmp_path: Path) -> None:
    callback = attached(tmp_path)
    keep_all = ModelCheckpoint(dirpath=tmp_path, filename="{epoch}", save_top_k=-1)
    trainer = trainer_of(tmp_path, callback, keep_all)
    module = Validated()
    trainer.fit(module)
    trainer.validate(module, ckpt_path=tmp_path / "epoch=1.ckpt", verbose=False)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module)
    assert [row["epoch"] for row in callback.rows] == [1, 2, 3]


def test_new_run_in_the_same_folder_keeps_the_old_record(tmp_path: Path) -> None:
    for _ in range(3):
        trainer_of(tmp_path, attached(tmp_path), epochs=2).fit(Net())
    folders = [tmp_path / "landscape" / name for name in ("", "earlier-1", "earlier-2")]
    assert sorted(tmp_path.rglob("checks.jsonl")) == [folder / "checks.jsonl" for folder in folders]
    for folder in folders:
        assert [row["epoch"] for row in rows_on_disk(folder)] == [1]
        assert len(list((folder / "snapshots").iterdir())) == 2


def test_callback_used_by_a_second_trainer_starts_anew(tmp_path: Path) -> None:
    callback = attached(tmp_path)
    for _ in range(2):
        trainer_of(tmp_path, callback).fit(Net())
        assert [row["epoch"] for row in callback.rows] == [1, 2]
        assert [row["check"] for row in callback.rows] == [1, 2]
