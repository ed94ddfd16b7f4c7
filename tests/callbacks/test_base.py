"""The life that all landscape callbacks share, where it is not tested with one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.demos.boring_classes import BoringModel

from lightning_landscape.attach.copies import TrainedCopy
from lightning_landscape.callbacks import ForkStability, LevelSetConnectivity, MergeTree, SnapshotRecorder
from lightning_landscape.callbacks.pairings import PAIRINGS, PairChoice, Pairing, Twin
from lightning_landscape.finders import LinearPath
from lightning_landscape.storage.snapshots import SnapshotStore

FULL = OSError(28, "No space left on device")


def fit(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    settings: dict[str, Any] = {"max_epochs": 2, "limit_train_batches": 3, "limit_val_batches": 1} | options
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **settings,
    )
    trainer.fit(BoringModel())
    return trainer


def full_disk(store: SnapshotStore, *args: Any, **options: Any) -> None:
    raise FULL


def test_a_recorder_on_a_full_disk_warns_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SnapshotStore, "save", full_disk)
    recorder = SnapshotRecorder(every_n_epochs=1)
    with pytest.warns(UserWarning, match=r"SnapshotRecorder could not save epoch=000-step=000003: OSError: .*No space"):
        trainer = fit(tmp_path, recorder)
    assert trainer.global_step == 6
    assert recorder.snapshots == []


def test_a_recorder_on_a_full_disk_ends_training_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SnapshotStore, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        fit(tmp_path, SnapshotRecorder(every_n_epochs=1, on_error="raise"))


def test_a_threshold_counts_as_passed_when_its_snapshot_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = SnapshotStore.save, []

    def full_once(store: SnapshotStore, *args: Any, **options: Any) -> Any:
        calls.append(options["name"])
        if len(calls) == 1:
            raise FULL
        return save(store, *args, **options)

    class Logging(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
            pl_module.log("metric", torch.tensor(0.5 / trainer.global_step))

    monkeypatch.setattr(SnapshotStore, "save", full_once)
    recorder = SnapshotRecorder(monitor="metric", thresholds=[1.0])
    with pytest.warns(UserWarning, match="could not save"):
        fit(tmp_path, Logging(), recorder, max_epochs=1)
    assert len(calls) == 2
    assert [snapshot.name for snapshot in recorder.snapshots] == [calls[1]]


def test_callbacks_of_two_classes_do_not_share_a_place(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="would both log under landscape/tree: give one another name="):
        fit(tmp_path, LevelSetConnectivity(name="tree"), MergeTree())
    pair = (LevelSetConnectivity(dirpath=tmp_path / "x"), ForkStability(dirpath=tmp_path / "x"))
    with pytest.raises(MisconfigurationException, match=r"would write into .*/x: give each its own dirpath="):
        fit(tmp_path, *pair)


def test_every_pairing_of_the_table_can_be_asked_for() -> None:
    assert tuple(PAIRINGS) == get_args(PairChoice) == ("lagged", "first", "reference", "twin")
    assert all(issubclass(pairing, Pairing) for pairing in PAIRINGS.values())


def test_a_pairing_is_one_class_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The word that the class enters is taken out again.
    monkeypatch.setitem(PAIRINGS, "origin", Pairing)
    monkeypatch.delitem(PAIRINGS, "origin")

    class Origin(Pairing, word="origin"):
        """Compares with the point whose weights are all zero."""

        def setup(self, trainer: pl.Trainer, module: pl.LightningModule, state: Any) -> None:
            self.zeros = {name: torch.zeros_like(value) for name, value in module.named_parameters()}

        def partner(self, store: SnapshotStore) -> dict[str, torch.Tensor]:
            return self.zeros

    callback = LevelSetConnectivity("origin", finder=LinearPath(), num_batches=1)
    fit(tmp_path, callback)
    assert [(row["pair"], row["reason"] != "error") for row in callback.rows] == [("origin", True)] * 2
    distance = sum(
        float(value.double().square().sum())
        for value in SnapshotStore(tmp_path / "landscape" / "snapshots").load("epoch=001-step=000006").values()
    )
    assert callback.rows[-1]["length"] == pytest.approx(distance**0.5, rel=1e-5)


def test_a_word_belongs_to_one_pairing() -> None:
    with pytest.raises(TypeError, match="pairs='twin' is Twin already: give Another another word"):
        type("Another", (Pairing,), {}, word="twin")
    assert PAIRINGS["twin"] is Twin


def test_a_copy_cannot_follow_groups_that_it_does_not_have(tmp_path: Path) -> None:
    class Trained(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.copy = TrainedCopy(trainer, pl_module, lambda twin: None)
            self.copy.backward(torch.ones(2, 32), 0, 1)

    trained = Trained()
    fit(tmp_path, trained, max_epochs=1)
    with pytest.raises(MisconfigurationException, match="has 2 parameter groups and its copy's 1"):
        trained.copy.step([{"lr": 0.1}, {"lr": 0.2}])
    before = [parameter.detach().clone() for parameter in trained.copy.module.parameters()]
    trained.copy.step([{"lr": 0.5}])
    assert trained.copy.optimizer.param_groups[0]["lr"] == 0.5
    assert not all(map(torch.equal, before, trained.copy.module.parameters()))


def test_a_recorder_goes_on_from_a_checkpoint_that_calls_its_folder_dirpath(tmp_path: Path) -> None:
    first = SnapshotRecorder(every_n_epochs=1)
    fit(tmp_path, first, max_epochs=1).save_checkpoint(tmp_path / "old.ckpt")
    checkpoint = torch.load(tmp_path / "old.ckpt", weights_only=False)
    state = checkpoint["callbacks"][first.state_key]
    state["dirpath"] = state.pop("folder")
    torch.save(checkpoint, tmp_path / "old.ckpt")
    resumed = SnapshotRecorder(every_n_epochs=1)
    trainer = pl.Trainer(
        default_root_dir=tmp_path / "other",
        accelerator="cpu",
        logger=False,
        max_epochs=2,
        limit_train_batches=3,
        limit_val_batches=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[resumed],
    )
    trainer.fit(BoringModel(), ckpt_path=tmp_path / "old.ckpt", weights_only=False)
    assert resumed.folder == first.folder
    assert [snapshot.name for snapshot in resumed.snapshots] == ["epoch=000-step=000003", "epoch=001-step=000006"]
