"""What merge trees of a run may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from resumable import Net, data

from lightning_landscape.callbacks import MergeTree, merge_tree

BATCHES = 4  # an epoch
EPOCHS = 14


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_tree, "save_figure", lambda *args: None)
    monkeypatch.setattr("lightning_landscape.callbacks.account._SHORT", 0)


def fit(folder: Path, *callbacks: pl.Callback, epochs: int = EPOCHS, ckpt_path: Path | None = None) -> None:
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(3)
    trainer.fit(Net(), data(), ckpt_path=ckpt_path)
    assert trainer.num_training_batches == BATCHES


def tree(folder: Path, **options: Any) -> MergeTree:
    return MergeTree(dirpath=folder, num_batches=2, on_error="raise", **options)


@pytest.mark.parametrize("overhead", [0.5, 2.0, 20.0])
@pytest.mark.parametrize("every_n_snapshots", [None, 1, 3])
def test_overhead_bounds_lines_and_searches(overhead: float, every_n_snapshots: int | None, tmp_path: Path) -> None:
    callback = tree(tmp_path, overhead=overhead, every_n_snapshots=every_n_snapshots)
    fit(tmp_path, callback)
    assert callback.rows[-1]["epoch"] == EPOCHS - 1
    earlier = 0.0
    start = callback.rows[0]["overhead"] * BATCHES * (callback.rows[0]["epoch"] + 1) - callback.rows[0]["spent"]
    for row in callback.rows:
        batches = BATCHES * (row["epoch"] + 1)
        spent = row["overhead"] * batches
        assert spent >= earlier + row["spent"] - 1e-9
        assert spent <= overhead * batches + (row["minimum"] + start + earlier if row["minimum"] else 1e-2)
        assert not row["minimum"] or row in (callback.rows[0], callback.rows[-1])
        earlier = spent
    lines = len((tmp_path / "lines.jsonl").read_text().splitlines())
    names = {name for row in callback.rows for name in row["tree"]["names"]}
    assert lines <= len(names) * (len(names) - 1) // 2
    if overhead == 20.0 and every_n_snapshots is None:
        assert callback.rows[-1]["num_points"] == 12


def test_a_resumed_run_has_paid_for_the_same(tmp_path: Path) -> None:
    def callbacks(folder: Path) -> list[Any]:
        return [
            tree(folder / "tree", overhead=4.0, every_n_snapshots=2),
            ModelCheckpoint(folder / "ckpt", "{epoch}", save_top_k=-1),
        ]

    whole, *rest = callbacks(tmp_path / "whole")
    fit(tmp_path, whole, *rest)
    killed, *rest = callbacks(tmp_path / "parts")
    fit(tmp_path, killed, *rest, epochs=10)
    again, *rest = callbacks(tmp_path / "parts")
    fit(tmp_path, again, *rest, ckpt_path=tmp_path / "parts" / "ckpt" / "epoch=6.ckpt")
    keys = ("epoch", "num_points", "num_components", "gradient_steps", "spent", "overhead", "minimum")
    rows = [[{key: row[key] for key in keys} for row in callback.rows] for callback in (whole, again)]
    assert len(rows[0]) > 2
    assert rows[0] == rows[1]
