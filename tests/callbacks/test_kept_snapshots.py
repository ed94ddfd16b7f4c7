"""How many snapshots a run leaves on the disk, and that nothing is lost which somebody needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from resumable import Net, data, without_figures

from lightning_landscape.callbacks import (
    ForkStability,
    LevelSetConnectivity,
    MergeTree,
    SnapshotRecorder,
    level_set,
    merge_tree,
)
from lightning_landscape.callbacks.keeping import thinned
from lightning_landscape.finders import LinearPath
from lightning_landscape.storage import snapshots as module_under_test
from lightning_landscape.storage.snapshots import SnapshotStore, content_hash, module_state

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}
FAST: dict[str, Any] = {"finder": LinearPath(samples=1), "num_batches": 1, "on_error": "raise"}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, names in (
        (level_set, ("profile_figure", "history_figure", "save_figure")),
        (merge_tree, ("save_figure",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))  # so that they come back
            setattr(module, name, lambda *args: None)
    without_figures()


class Watch(pl.Callback):
    """The most files of snapshots there were, and the distinct weights at the ends of epochs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.most, self.hashes = folder, 0, set[str]()

    def look(self, *args: Any) -> None:
        self.most = max(self.most, len(files(self.folder)))

    on_train_batch_start = on_train_batch_end = on_validation_end = look

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.hashes.add(content_hash(module_state(pl_module)))
        self.look()


def files(folder: Path) -> set[int]:
    """The files of weights below a folder; several names of one file count once."""
    return {path.stat().st_ino for path in folder.rglob("*.safetensors")}


def fit(folder: Path, *callbacks: pl.Callback, epochs: int = 5, ckpt_path: Any = None, **options: Any) -> pl.Trainer:
    settings = QUIET | {"enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks)} | options
    trainer = pl.Trainer(default_root_dir=folder, max_epochs=epochs, callbacks=list(callbacks), **settings)
    trainer.fit(Net(), data(), data(), ckpt_path=ckpt_path)
    return trainer


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each file of weights that is written; what is on the disk is looked at as each appears."""
    sizes: list[int] = []
    write = module_under_test.write_safetensors

    def counted(path: Path, *args: Any) -> None:
        write(path, *args)
        sizes.append(path.stat().st_size)

    monkeypatch.setattr(module_under_test, "write_safetensors", counted)
    return sizes


@pytest.mark.parametrize(("pairs", "most", "left"), [("lagged", 3, 2), ("first", 2, 2), ("twin", 2, 2)])
@pytest.mark.parametrize("every", [1, 3])
def test_at_most_three_snapshots_are_on_the_disk(
    tmp_path: Path, pairs: str, most: int, left: int, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, save = Watch(tmp_path), SnapshotStore.save

    def watched(*args: Any, **options: Any) -> Any:
        saved = save(*args, **options)
        watch.look()
        return saved

    monkeypatch.setattr(SnapshotStore, "save", watched)
    callback = LevelSetConnectivity(pairs, dirpath=tmp_path / "x", **FAST)
    fit(tmp_path, callback, watch, ModelCheckpoint(tmp_path / "ckpt", every_n_epochs=every), epochs=8)
    assert len(callback.rows) == 8 - (pairs != "twin")
    assert watch.most <= most
    assert left <= len(files(tmp_path)) <= left + 1  # what the latest checkpoint needs, too
    assert [row["snapshot"] for row in callback.rows][-1] in callback._store


@pytest.mark.slow
def test_three_hundred_checks_keep_three_snapshots_and_write_each_once(tmp_path: Path, written: list[int]) -> None:
    watch = Watch(tmp_path)
    callback = LevelSetConnectivity(dirpath=tmp_path / "x", **FAST)
    recorder = SnapshotRecorder(tmp_path / "y", every_n_epochs=1, keep=1)
    fit(tmp_path, callback, recorder, watch, epochs=300, limit_train_batches=1, limit_val_batches=0)
    assert len(callback.rows) == 299
    assert watch.most <= 3
    assert len(watch.hashes) == 300
    assert sum(written) <= 1.1 * 300 * min(written)


def loss(module: Any, batch: Any) -> Any:
    return module.training_step(batch, 0)


def test_callbacks_store_the_weights_of_one_moment_once(tmp_path: Path, written: list[int]) -> None:
    callbacks = (
        SnapshotRecorder(tmp_path / "thresholds", monitor="loss", thresholds=[100.0]),
        LevelSetConnectivity(dirpath=tmp_path / "x", keep="all", **FAST),
        MergeTree(dirpath=tmp_path / "tree", **FAST),
        SnapshotRecorder(tmp_path / "y", every_n_epochs=1, name="mine"),
        ForkStability([4, 8], num_steps=1, num_batches=1, error_fn=loss, dirpath=tmp_path / "fork", on_error="raise"),
    )
    fit(tmp_path, *callbacks, epochs=3)
    assert len(written) == len(files(tmp_path)) == 4  # ends of three epochs, and the first step
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1 + 3 + 3 + 3 + 2
    (passed,) = callbacks[0].snapshots
    assert passed.metadata["thresholds"] == [100.0]
    for path in tmp_path.rglob("*.safetensors"):
        assert SnapshotStore(path.parent).load(path.stem)


def test_weights_that_stand_still_are_stored_once(tmp_path: Path, written: list[int]) -> None:
    class Still(Net):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.net[0].parameters(), lr=0.0)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.net[1].eval()
            return super().training_step(batch, batch_idx)

    recorder = SnapshotRecorder(tmp_path, every_n_steps=1)
    trainer = pl.Trainer(
        max_epochs=2, callbacks=[recorder], enable_checkpointing=False, default_root_dir=tmp_path, **QUIET
    )
    trainer.fit(Still(), data())
    assert len(written) == 1
    assert [(s.step, s.epoch) for s in recorder.snapshots] == [(step, (step - 1) // 4) for step in range(1, 9)]


@pytest.mark.parametrize(
    ("keep", "epochs"), [("all", [0, 1, 2, 3, 4]), (3, [2, 3, 4]), (2, [3, 4]), (1, [3, 4]), ("needed", [3, 4])]
)
def test_rule_of_what_is_kept(tmp_path: Path, keep: Any, epochs: list[int]) -> None:
    callback = LevelSetConnectivity(dirpath=tmp_path, keep=keep, **FAST)
    fit(tmp_path, callback)
    assert [snapshot.epoch for snapshot in callback._store] == epochs
    assert {row["keep"] for row in callback.rows} == {keep}


def test_what_one_callback_keeps_no_other_removes(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(tmp_path / "y", every_n_epochs=1)
    fit(tmp_path, LevelSetConnectivity(dirpath=tmp_path / "x", **FAST), recorder)
    assert [snapshot.epoch for snapshot in recorder.snapshots] == [0, 1, 2, 3, 4]
    assert all(snapshot.load() for snapshot in recorder.snapshots)


def test_a_tree_has_its_points_and_those_of_a_twin(tmp_path: Path) -> None:
    tree = MergeTree(dirpath=tmp_path / "tree", max_points=2, **FAST)
    twin = LevelSetConnectivity("twin", dirpath=tmp_path / "x", **FAST)
    fit(tmp_path, twin, tree, epochs=9)
    assert [s.epoch for s in tree._store] == [0, 4, 8]
    assert len(twin._store) <= 1 + 6
    assert tree.tree is not None
    assert [name.partition("-step")[0] for name in tree.tree.names] == [
        *("epoch=000", "epoch=008"),
        *("twin-epoch=000", "twin-epoch=008"),
    ]
    last = MergeTree(dirpath=tmp_path / "last", keep=2, **FAST)
    fit(tmp_path, last)
    assert last.tree is not None
    assert [name.partition("-step")[0] for name in last.tree.names] == ["epoch=003", "epoch=004"]


@pytest.mark.parametrize("most", [2, 3, 4, 7])
def test_thinned_names_are_few_even_and_never_asked_for_again(most: int) -> None:
    before: set[str] = set()
    for count in range(60):
        names = [str(number) for number in range(count)]
        kept = thinned(names, most)
        assert len(kept) <= most + 1
        assert kept[:1] + kept[-1:] == names[:1] + names[-1:]
        assert set(kept) <= before | set(names[-1:])
        before = set(kept)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_losses_of_a_stored_point_are_those_of_the_rounded_weights(tmp_path: Path, dtype: Any) -> None:
    batches = [next(iter(data()))]
    callback = LevelSetConnectivity(dirpath=tmp_path, keep="all", dtype=dtype, **FAST | {"batches": batches})
    module = Net()
    trainer = pl.Trainer(
        max_epochs=3, callbacks=[callback], enable_checkpointing=False, default_root_dir=tmp_path, **QUIET
    )
    trainer.fit(module, data())
    first = next(iter(callback._store)).load()
    assert torch.equal(first["net.0.weight"], first["net.0.weight"].to(getattr(torch, dtype)).float())
    assert callback.rows[0]["dtype"] == dtype
    surface = callback._over(module, batches, None)
    assert callback.rows[0]["loss_a"] == surface.loss(surface.point(first))


@pytest.mark.parametrize("kill", ["after the snapshot", "after the row"])
def test_a_killed_run_loses_nothing_and_leaves_no_orphan(
    tmp_path: Path, kill: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def callbacks(folder: Path) -> list[Any]:
        return [
            LevelSetConnectivity(dirpath=folder / "x", **FAST),
            MergeTree(dirpath=folder / "tree", max_points=2, **FAST),
            SnapshotRecorder(folder / "y", every_n_epochs=1),
            ModelCheckpoint(folder / "ckpt", "{epoch}", every_n_epochs=2),
        ]

    whole = callbacks(tmp_path / "whole")
    fit(tmp_path / "whole", *whole, epochs=8)
    target = "partner" if kill == "after the snapshot" else "prune"
    owner: Any = type(whole[0]._pairing) if target == "partner" else LevelSetConnectivity
    real, calls = getattr(owner, target), []

    def deadly(self: Any, *args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, target, deadly)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            fit(tmp_path / "parts", *callbacks(tmp_path / "parts"), epochs=8)
    (checkpoint,) = (tmp_path / "parts" / "ckpt").iterdir()
    again = callbacks(tmp_path / "parts")
    fit(tmp_path / "parts", *again, epochs=8, ckpt_path=checkpoint)
    timeless = [[{k: v for k, v in row.items() if k != "seconds"} for row in c[0].rows] for c in (whole, again)]
    assert timeless[0] == timeless[1]
    assert [s.content_hash for s in again[2].snapshots] == [s.content_hash for s in whole[2].snapshots]
    assert again[1].tree.names == whole[1].tree.names
    names = [
        sorted(str(p.relative_to(f)) for p in f.rglob("*.safetensors"))
        for f in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert names[0] == names[1]
    assert not list(tmp_path.rglob("*.tmp"))


def test_snapshots_of_a_run_that_knew_no_rule_stay(tmp_path: Path) -> None:
    old = LevelSetConnectivity(dirpath=tmp_path / "x", keep="all", **FAST)
    trainer = fit(tmp_path, old, epochs=4)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    saved = torch.load(tmp_path / "run.ckpt", weights_only=False)
    del saved["callbacks"][old.state_key]["held"]
    torch.save(saved, tmp_path / "run.ckpt")
    new = LevelSetConnectivity(dirpath=tmp_path / "x", **FAST)
    fit(tmp_path, new, epochs=7, ckpt_path=tmp_path / "run.ckpt")
    assert [snapshot.epoch for snapshot in new._store] == [0, 1, 2, 3, 5, 6]
    assert [row["reason"] for row in new.rows if row["reason"] == "error"] == []


@pytest.mark.parametrize("keep", ["some", 0, -1, 1.5, True])
def test_a_rule_that_is_none_is_refused(keep: Any) -> None:
    for kind in (LevelSetConnectivity, MergeTree):
        with pytest.raises(ValueError, match="keep must be"):
            kind(keep=keep)
        with pytest.raises(ValueError, match="dtype must be one of 'float32', 'bfloat16', 'float16', got 'int8'"):
            kind(dtype="int8")
