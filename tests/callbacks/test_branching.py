"""A run that goes on from another's checkpoint leaves every file of that one as it is, and starts with its record."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from resumable import Net, data, rugged

from lightning_landscape.callbacks import ForkStability, LevelSetConnectivity, MergeTree, SnapshotRecorder
from lightning_landscape.finders import LinearPath
from lightning_landscape.storage.claims import Claim

pytestmark = pytest.mark.filterwarnings("ignore")

EPOCHS = 5
QUIET: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
FAST: dict[str, Any] = {"num_batches": 1, "loss_fn": rugged, "on_error": "raise"}


class Other(Net):
    """Trains with another learning rate."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Stop(pl.Callback):
    """Ends the process's run as ctrl-C does, at the end of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


class Run:
    """A fit with every callback that writes files."""

    def __init__(
        self, root: Path, place: Path | None = None, logger: Any = False, keep: Any = "all", pairs: str = "lagged"
    ) -> None:
        self.root = root

        def where(name: str) -> Path | None:
            return None if place is None else place / name

        finder = LinearPath(samples=1)
        self.check = LevelSetConnectivity(pairs, finder=finder, dirpath=where("landscape"), keep=keep, **FAST)
        self.tree = MergeTree(finder=finder, dirpath=where("tree"), max_points=3, keep=keep, **FAST)
        self.recorder = SnapshotRecorder(where("snapshots"), every_n_epochs=1, on_error="raise")
        self.fork = ForkStability([2, 10], num_steps=1, dirpath=where("fork"), error_fn=rugged, **FAST)
        self.callbacks: list[Any] = [self.check, self.tree, self.recorder, self.fork]
        self.logger = logger

    def fit(self, module: Net | None = None, ckpt_path: Any = None, epochs: int = EPOCHS, *more: pl.Callback) -> Run:
        checkpoints = ModelCheckpoint(self.root / "checkpoints", "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        trainer = pl.Trainer(
            default_root_dir=self.root,
            max_epochs=epochs,
            logger=self.logger,
            callbacks=[*self.callbacks, *more, checkpoints],
            **QUIET,
        )
        trainer.fit(module or Net(), data(), ckpt_path=ckpt_path)
        return self

    @property
    def folders(self) -> list[Path]:
        return [callback.folder for callback in self.callbacks]

    def result(self) -> dict[str, Any]:
        """What came of it, but for times and places."""
        assert self.tree.tree is not None
        return {
            "rows": [timeless(row) for row in self.check.rows],
            "file": [timeless(json.loads(line)) for line in (self.check.folder / "checks.jsonl").open()],
            "tree": self.tree.tree.to_dict(),
            "list": [(snapshot.name, snapshot.content_hash) for snapshot in self.recorder.snapshots],
            "forks": [timeless(row) for row in self.fork.rows],
        }


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "seconds"}


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """The bytes of every file below a folder, and when it was written."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".ckpt" and path.name not in ("metrics.csv", "hparams.yaml")
    }


def stop(run: Run, epoch: int) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run.fit(None, None, EPOCHS, Stop(epoch))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    return Run(folder, folder).fit().result()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "keep"), [("same", "all"), ("other", "needed"), ("default", 2), ("versions", "all"), ("same", "needed")]
)
def test_an_early_checkpoint_branches(tmp_path: Path, place: str, keep: Any, whole: dict[str, Any]) -> None:
    def run() -> Run:
        logger = CSVLogger(tmp_path, name="run") if place == "versions" else False
        folder = {"same": tmp_path / "a", "other": tmp_path / "b"}.get(place)
        return Run(tmp_path, folder, logger, keep)

    first = Run(tmp_path, tmp_path / "a", False, keep) if place == "other" else run()
    first.fit()
    before = contents(tmp_path)
    second = run().fit(ckpt_path=tmp_path / "checkpoints" / "epoch=1.ckpt")
    after = contents(tmp_path)
    assert {name: after.get(name) for name in before} == before
    assert not set(first.folders) & set(second.folders)
    expected, found = whole, second.result()
    if keep != "all":  # the tree thins what it joins, and rows name the rule
        assert first.result()["rows"] == found["rows"]
        for name in ("rows", "file", "tree"):
            found[name], expected = None, expected | {name: None}
    assert found == expected
    assert first.check.rows[:1] == second.check.rows[:1]  # with its time: it is A's row and was not made again
    third = run().fit(ckpt_path=tmp_path / "checkpoints" / "epoch=1.ckpt")
    again = contents(tmp_path)
    assert {name: again.get(name) for name in after} == after
    assert len({*first.folders, *second.folders, *third.folders}) == 12


@pytest.mark.parametrize("keep", ["all", "needed"])
def test_a_run_that_differs_from_the_killed_one_leaves_its_files(tmp_path: Path, keep: Any) -> None:
    first = Run(tmp_path, tmp_path, False, keep)
    stop(first, 4)
    before = contents(tmp_path)
    assert len(first.check.rows) == 3
    second = Run(tmp_path, tmp_path, False, keep)
    # The schedule of the checkpoint is not there: Other has none.
    checkpoint = torch.load(tmp_path / "checkpoints" / "epoch=1.ckpt", weights_only=False)
    checkpoint["lr_schedulers"] = []
    checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] = 0.05
    torch.save(checkpoint, tmp_path / "other.ckpt")
    second.fit(Other(), tmp_path / "other.ckpt")
    after = contents(tmp_path)
    assert {name: after.get(name) for name in before} == before
    assert not {first.check.folder, first.tree.folder, first.recorder.folder} & set(second.folders)
    assert second.check.rows[0] == first.check.rows[0]
    assert timeless(second.check.rows[1]) != timeless(first.check.rows[1])
    assert [row["check"] for row in second.check.rows] == [1, 2, 3, 4]
    assert [snapshot.epoch for snapshot in second.recorder.snapshots] == [0, 1, 2, 3, 4]
    assert second.recorder.snapshots[1].content_hash == first.recorder.snapshots[1].content_hash


def test_a_stopped_run_goes_on_in_its_folder(tmp_path: Path, whole: dict[str, Any]) -> None:
    stop(Run(tmp_path, tmp_path), 3)
    again = Run(tmp_path, tmp_path).fit(ckpt_path=tmp_path / "checkpoints" / "epoch=0.ckpt")
    assert again.result() == whole
    assert again.folders == [tmp_path / name for name in ("landscape", "tree", "snapshots", "fork")]
    assert not list(tmp_path.rglob("running.lock"))


def test_rows_snapshots_and_figures_move_aside_together(tmp_path: Path, whole: dict[str, Any]) -> None:
    first = Run(tmp_path, tmp_path).fit()
    written = contents(tmp_path)
    Run(tmp_path, tmp_path).fit(Other())
    after = contents(tmp_path)
    for name in written:
        folder, _, rest = name.partition("/")
        assert after[f"{folder}/earlier-1/{rest}"] == written[name]
    assert not {name for name in after if "earlier" in name} - {
        f"{name.partition('/')[0]}/earlier-1/{name.partition('/')[2]}" for name in written
    }
    assert any(name.endswith("earlier-1/history.png") for name in after)
    assert timeless(first.check.rows[0]) == whole["rows"][0]


def test_a_checkpoint_finds_its_record_where_it_moved_aside(tmp_path: Path, whole: dict[str, Any]) -> None:
    Run(tmp_path / "one", tmp_path / "x").fit()
    Run(tmp_path / "two", tmp_path / "x").fit(Other())
    before = contents(tmp_path / "x")
    branch = Run(tmp_path / "three", tmp_path / "x").fit(ckpt_path=tmp_path / "one" / "checkpoints" / "epoch=1.ckpt")
    after = contents(tmp_path / "x")
    assert {name: after.get(name) for name in before} == before
    assert branch.result() == whole


def test_where_another_process_writes_nobody_else_does(tmp_path: Path, whole: dict[str, Any]) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()

    def hold() -> None:
        claims = [Claim.take(tmp_path / name, object()) for name in ("landscape", "tree", "snapshots", "fork")]
        ready.set()
        done.wait(300)
        del claims

    child = context.Process(target=hold)
    child.start()
    try:
        assert ready.wait(60)
        run = Run(tmp_path, tmp_path).fit()
    finally:
        done.set()
        child.join()
    assert run.folders == [tmp_path / f"{name}-2" for name in ("landscape", "tree", "snapshots", "fork")]
    assert run.result() == whole
