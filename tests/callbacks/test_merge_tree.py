"""The merge tree of a run: its points, its numbers, and a training that does not notice."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import FSDPStrategy
from resumable import Net, data

from lightning_landscape.callbacks import LevelSetConnectivity, MergeTree, SnapshotRecorder, merge_tree
from lightning_landscape.components import merge_tree as components
from lightning_landscape.finders import DynamicStringSampling, LinearPath
from lightning_landscape.storage.snapshots import SnapshotStore
from tests.callbacks.fingerprints import assert_same, train
from tests.callbacks.watched_cases import CASES

FAST = {"num_batches": 2, "on_error": "raise"}


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest."""
    monkeypatch.setattr(merge_tree, "save_figure", lambda *args: None)


def finder() -> DynamicStringSampling:
    return DynamicStringSampling(max_depth=1, max_bead_steps=4, shorten=0, samples=3)


def fit(folder: Path, *callbacks: pl.Callback, epochs: int = 4, module: Any = None, **options: Any) -> pl.Trainer:
    ckpt_path = options.pop("ckpt_path", None)
    settings = {"logger": False, "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks)}
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings | options,
    )
    torch.manual_seed(3)
    trainer.fit(module or Net(), data(), data(), ckpt_path=ckpt_path)
    return trainer


def test_leaves_training_as_it_was_and_says_what_it_found(tmp_path: Path) -> None:
    case = CASES["digits"]
    plain = train(case, tmp_path / "plain")
    callback = MergeTree(finder=finder(), dirpath=tmp_path / "tree", every_n_snapshots=2, **FAST)
    ours = train(case, tmp_path / "ours", callback)
    for content in ours.checkpoints.values():
        [key] = [key for key in content["callbacks"] if key.startswith("MergeTree")]
        del content["callbacks"][key]
    assert_same(ours, plain)
    folder = tmp_path / "tree"
    rows = [json.loads(line) for line in (folder / "trees.jsonl").read_text().splitlines()]
    assert rows == callback.rows
    assert [(row["check"], row["epoch"], row["num_points"]) for row in rows] == [(1, 1, 2), (2, 2, 3)]
    tree = components.MergeTree.from_dict(rows[-1]["tree"])
    assert tree.names == tuple(snapshot.name for snapshot in SnapshotStore(folder / "snapshots"))
    assert rows[-1]["level"] == pytest.approx(1.05 * tree.losses.max())
    assert rows[-1]["num_components"] == tree.num_components(rows[-1]["level"])
    assert rows[-1]["max_components"] == tree.num_components(tree.levels()).max()
    assert rows[-1]["top_merge"] == tree.merges[-1].height
    assert (folder / "tree-0002.png").read_bytes()[:4] == b"\x89PNG"
    assert len((folder / "pairs.jsonl").read_text().splitlines()) >= 2


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    "name",
    [
        "gan",
        pytest.param("torchmetrics", marks=pytest.mark.slow),
        pytest.param("own generator", marks=pytest.mark.slow),
        pytest.param("schedule", marks=pytest.mark.slow),
    ],
)
def test_leaves_other_kinds_of_training_as_they_were(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    plain = train(case, tmp_path / "plain")
    callback = MergeTree(finder=finder(), dirpath=tmp_path / "tree", loss_fn=case.loss_fn, **FAST)
    ours = train(case, tmp_path / "ours", callback)
    assert_same((ours.weights, ours.logged, ours.batches, ours.random_states),
                (plain.weights, plain.logged, plain.batches, plain.random_states))  # fmt: skip
    assert callback.rows[-1]["num_points"] == 3


@pytest.mark.usefixtures("without_figures")
def test_metrics_are_there_after_the_fit_and_in_loggers(tmp_path: Path) -> None:
    callback = MergeTree(finder=LinearPath(samples=2), name="runs", every_n_epochs=3, **FAST)
    logger = pl.loggers.CSVLogger(tmp_path, name="csv", version="v")
    trainer = fit(tmp_path, callback, logger=logger)
    values = {key.rpartition("/")[2]: float(value) for key, value in trainer.callback_metrics.items() if "tree" in key}
    assert set(values) == set(MergeTree.metrics)
    assert all(key.startswith("landscape/tree/runs/") for key in trainer.callback_metrics if "tree" in key)
    assert values["num_points"] == 2  # after the third epoch, and at the end
    assert callback.folder == tmp_path / "csv" / "v" / "landscape" / "tree" / "runs"
    assert "landscape/tree/runs/num_components" in (tmp_path / "csv" / "v" / "metrics.csv").read_text()


@pytest.mark.usefixtures("without_figures")
def test_twin_and_references_are_points_too(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "other")
    other = Net()
    torch.nn.init.normal_(other.net[0].weight, generator=torch.Generator().manual_seed(5))
    file = str(store.save(other, step=0, epoch=0).path)
    twin = LevelSetConnectivity("twin", 2, LinearPath(samples=1), dirpath=tmp_path / "twin", num_batches=2)
    callback = MergeTree(2, references=[file], finder=LinearPath(samples=1), dirpath=tmp_path / "tree", **FAST)
    fit(tmp_path, twin, callback)
    assert callback.tree is not None
    names = callback.tree.names
    assert names[:2] == tuple(name.removeprefix("twin-") for name in names[2:4])
    assert [name.startswith("twin-") for name in names] == [False, False, True, True, False]
    assert names[4] == file
    assert len(set(callback.tree.losses)) == 5


@pytest.mark.usefixtures("without_figures")
def test_many_snapshots_are_thinned_out_and_the_last_weights_are_a_point(tmp_path: Path) -> None:
    callback = MergeTree(max_points=3, finder=LinearPath(samples=1), dirpath=tmp_path, **FAST)
    module = Net()
    fit(tmp_path, callback, epochs=6, module=module)
    assert callback.tree is not None
    assert [name.partition("-")[0] for name in callback.tree.names] == ["epoch=000", "epoch=002", "epoch=005"]
    final = SnapshotStore(tmp_path / "snapshots").latest()
    assert final is not None
    assert torch.equal(final.load()["net.0.weight"], module.net[0].weight)


@pytest.mark.usefixtures("without_figures")
def test_resumed_run_has_the_tree_of_one_that_was_not_interrupted(tmp_path: Path) -> None:
    def callbacks(folder: Path) -> list[pl.Callback]:
        tree = MergeTree(finder=finder(), dirpath=folder / "tree", every_n_snapshots=2, overhead=None, **FAST)
        return [tree, ModelCheckpoint(folder / "ckpt", "{epoch}", save_top_k=-1)]

    whole, *rest = callbacks(tmp_path / "whole")
    fit(tmp_path, whole, *rest)
    first, *rest = callbacks(tmp_path / "parts")
    fit(tmp_path, first, *rest)  # went on to the end, and what it wrote after the checkpoint is written again
    again, *rest = callbacks(tmp_path / "parts")
    fit(tmp_path, again, *rest, ckpt_path=tmp_path / "parts" / "ckpt" / "epoch=2.ckpt")
    assert [(row["check"], row["epoch"]) for row in again.rows] == [(1, 1), (2, 3)]
    assert again.tree is not None
    assert whole.tree is not None
    assert again.tree.names == whole.tree.names
    np.testing.assert_allclose(again.tree.heights, whole.tree.heights, rtol=1e-5)
    for mine, other in zip(again.rows, whole.rows, strict=True):
        for key in MergeTree.metrics:
            assert key == "seconds" or mine[key] == pytest.approx(other[key], rel=1e-5)


@pytest.mark.usefixtures("without_figures")
def test_failing_tree_is_a_warning_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["digits"]
    plain = train(case, tmp_path / "plain")

    def broken(*args: Any, **kwargs: Any) -> None:
        torch.rand(3)
        raise OSError("no tree today")

    monkeypatch.setattr(merge_tree, "search_heights", broken)
    callback = MergeTree(dirpath=tmp_path / "tree", num_batches=2)
    with pytest.warns(UserWarning, match="MergeTree failed after epoch 2: OSError: no tree today"):
        ours = train(case, tmp_path / "ours", callback)
    assert_same((ours.weights, ours.random_states), (plain.weights, plain.random_states))
    callback = MergeTree(dirpath=tmp_path / "raises", **FAST)
    with pytest.raises(OSError, match="no tree today"):
        train(case, tmp_path / "raising", callback)
    assert callback._surface is None


@pytest.mark.usefixtures("without_figures")
def test_rehearsal_writes_nothing(tmp_path: Path) -> None:
    callback = MergeTree(dirpath=tmp_path / "tree", **FAST)
    fit(tmp_path, callback, fast_dev_run=True)
    assert not (tmp_path / "tree").exists()
    assert callback.state_dict() == {}


def test_reference_of_another_architecture_is_refused_at_the_start(tmp_path: Path) -> None:
    file = SnapshotStore(tmp_path).save(torch.nn.Linear(2, 2), step=0, epoch=0).path
    with pytest.raises(ValueError, match="missing"):
        fit(tmp_path, MergeTree(references=[file], dirpath=tmp_path / "tree", **FAST))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs must be an integer from 1, got 0"),
        ({"max_points": 1}, "max_points must be an integer from 2, got 1"),
        ({"every_n_snapshots": -1}, "every_n_snapshots"),
        ({"references": "a.ckpt"}, r"references must be a list of files.*\['a.ckpt'\]"),
        ({"pairs": "some"}, "pairs must be one of 'tree', 'all'"),
        ({"finder": "dss"}, "finder must be a PathFinder"),
        ({"batches": iter([])}, "batches must be a list"),
        ({"margin": -0.1}, "margin"),
        ({"overhead": math.nan}, "overhead"),
        ({"level": math.nan}, "level is NaN"),
        ({"on_error": "ignore"}, "on_error"),
        ({"seed": -1}, "seed"),
        ({"name": "a/b"}, "name must be a plain file name"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MergeTree(**options)


def test_bad_set_ups_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"MergeTree needs the whole weights.*FSDP"):
        MergeTree().setup(SimpleNamespace(strategy=FSDPStrategy.__new__(FSDPStrategy)), Net(), "fit")
    with pytest.raises(MisconfigurationException, match="two MergeTree callbacks are named None"):
        fit(tmp_path, MergeTree(every_n_epochs=1), MergeTree(every_n_epochs=2))
    pair = [MergeTree(name=name, every_n_epochs=n, dirpath=tmp_path) for n, name in ((1, "a"), (2, "b"))]
    with pytest.raises(
        MisconfigurationException, match=r"two MergeTree callbacks would write into .*: give each its own dirpath="
    ):
        fit(tmp_path, *pair)


@pytest.mark.usefixtures("without_figures")
def test_goes_with_the_other_callbacks(tmp_path: Path) -> None:
    callback = MergeTree(finder=LinearPath(samples=1), **FAST)
    others = LevelSetConnectivity(finder=LinearPath(samples=1), num_batches=2), SnapshotRecorder(every_n_epochs=1)
    trainer = fit(tmp_path, callback, *others)
    assert {"landscape/height", "landscape/tree/num_components"} <= set(trainer.callback_metrics)
    assert callback.folder == tmp_path / "landscape" / "tree"
