"""What community networks share: they train as without our callbacks, bit for bit, and after a validation too."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch_geometric.data import Batch

from lightning_landscape.callbacks import LevelSetConnectivity, level_set
from lightning_landscape.community import community_graph, permutation_loss
from lightning_landscape.datamodules import SBMDataModule
from lightning_landscape.finders import DynamicStringSampling
from lightning_landscape.metrics.overlap import chance_overlap
from lightning_landscape.models import CommunityGNN, LineGraphGNN, PyGCommunityModel
from lightning_landscape.models.graphs.community_classifier import CommunityClassifier

MODELS: dict[str, Callable[[], CommunityClassifier]] = {
    "gnn": lambda: CommunityGNN(2, 2, 4, clipped=True),
    "lgnn": lambda: LineGraphGNN(2, 2, 4),
    "gcn": lambda: PyGCommunityModel("gcn", num_layers=2, num_features=4),
    "gat": lambda: PyGCommunityModel("gat", num_layers=2, num_features=4),
}


def graphs() -> SBMDataModule:
    return SBMDataModule(24, 2, 3.0, (1.0, 2.0), batch_size=3, steps_per_epoch=4, val_size=4)


def trainer(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, callbacks=list(callbacks), enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **{"max_epochs": 2} | options,
    )  # fmt: skip


@pytest.mark.parametrize("pairs", ["lagged", "twin"])
@pytest.mark.parametrize("name", MODELS)
def test_training_on_batches_of_graphs_is_the_same_under_level_set_connectivity(
    name: str, pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for figure in ("profile_figure", "history_figure", "save_figure"):
        monkeypatch.setattr(level_set, figure, lambda *arguments: None)
    finder = DynamicStringSampling(max_depth=1, max_bead_steps=2, shorten=1, samples=3)
    callback = LevelSetConnectivity(
        pairs, finder=finder, num_batches=2, margin=0.0, overhead=None, dirpath=tmp_path / "checks", on_error="raise"
    )
    found = []
    for callbacks in ([], [callback]):
        pl.seed_everything(1, verbose=False)
        model, run = MODELS[name](), trainer(tmp_path, *callbacks)
        run.fit(model, graphs())
        logged = {key: value for key, value in run.callback_metrics.items() if not key.startswith("landscape/")}
        assert {"train/loss", "val/loss", "val/overlap", "val/chance"} <= logged.keys()
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        found.append((model.state_dict(), logged, run.optimizers[0].state_dict()["state"], states))
    (weights, logged, moments, states), (our_weights, our_logged, our_moments, our_states) = found
    torch.testing.assert_close((our_weights, our_logged, our_moments), (weights, logged, moments), rtol=0, atol=0)
    assert torch.equal(our_states[0], states[0])
    assert our_states[1:] == states[1:]
    assert len(callback.rows) == (2 if pairs == "twin" else 1)
    assert all(row["reason"] != "error" and row["height"] > 0 for row in callback.rows)


def test_validates_first_and_trains_then(tmp_path: Path) -> None:
    permutation_loss._permutations.cache_clear()
    model, run = MODELS["gnn"](), trainer(tmp_path, max_epochs=1)
    run.validate(model, graphs(), verbose=False)
    run.fit(model, graphs())
    assert run.state.finished


def test_logs_the_chance_of_its_own_graphs_over_all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    model, logged = CommunityGNN(2, 1, 2), {}
    monkeypatch.setattr(model, "log", lambda name, value, **options: logged.update({name: (value, options)}))
    sizes = ((3, 5), (4, 4), (2, 1))
    parts = [community_graph(torch.tensor([[0], [1]]), a + b, torch.tensor([0] * a + [1] * b)) for a, b in sizes]
    model.validation_step(Batch.from_data_list(parts), 0)
    model.on_validation_epoch_end()
    value, options = logged["val/chance"]
    assert value.item() == pytest.approx(sum(chance_overlap(*pair) for pair in sizes) / 3)
    assert options["sync_dist"]
    assert logged["val/loss"][1]["batch_size"] == 3
