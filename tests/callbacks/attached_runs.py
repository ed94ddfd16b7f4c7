"""Runs with LevelSetConnectivity attached, and what holds of every check in them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer

from lightning_landscape.callbacks import LevelSetConnectivity


def fit(folder: Path, module: LightningModule, data: Any, epochs: int = 3, **options: Any) -> LevelSetConnectivity:
    callbacks = options.pop("beside", [])
    callback = LevelSetConnectivity(**{"num_batches": 2, "dirpath": folder / "landscape", **options})
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[callback, *callbacks],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, data)
    return callback


def assert_sound(callback: LevelSetConnectivity, epochs: list[int]) -> None:
    assert callback.folder is not None
    rows = [json.loads(line) for line in (callback.folder / "checks.jsonl").read_text().splitlines()]
    assert rows == callback.rows
    assert [row["epoch"] for row in rows] == epochs
    for row in rows:
        assert row["message"] is None
        assert row["reason"] in (None, "budget", "bead", "depth")
        assert row["verdict"] == ("connected" if row["height"] <= row["level"] else "not_found")
        assert (row["reason"] is None) == (row["verdict"] == "connected")
        assert max(row["loss_a"], row["loss_b"]) <= row["height"] <= row["linear_height"]
        assert row["normalized_length"] >= 1
        assert all(map(math.isfinite, row["profile"]["loss"]))
