"""The LSTM language model in a run: with connectivity checks, twins, checkpoints and resumes."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_landscape.callbacks import LevelSetConnectivity, level_set
from lightning_landscape.callbacks.pairings import twin as twins
from lightning_landscape.datamodules import PennTreebankDataModule
from lightning_landscape.finders import DynamicStringSampling
from lightning_landscape.models import LSTMLanguageModel
from tests.models.text.lstm_runs import corpus as corpus
from tests.models.text.lstm_runs import fit, model, vector


def checks(folder: Path, pairs: str, **options: Any) -> LevelSetConnectivity:
    finder = DynamicStringSampling(max_depth=2, max_bead_steps=3, shorten=1, samples=3)
    return LevelSetConnectivity(
        pairs, finder=finder, dirpath=folder / pairs, num_batches=3, overhead=None, margin=0.0, on_error="raise",
        **options,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("profile_figure", "history_figure", "save_figure"):
        monkeypatch.setattr(level_set, name, lambda *args: None)


@pytest.mark.parametrize("pairs", ["lagged", "twin"])
def test_a_connectivity_check_leaves_training_bit_identical(
    corpus: PennTreebankDataModule, tmp_path: Path, pairs: str
) -> None:
    def run(folder: Path, *callbacks: pl.Callback) -> list[Any]:
        pl.seed_everything(1, verbose=False)
        module = model(dropout=0.3)
        every = ModelCheckpoint(folder, "{step}", every_n_train_steps=5, save_top_k=-1)
        trainer = fit(module, corpus, every, *callbacks, max_epochs=3)
        saved = [torch.load(path, weights_only=True) for path in sorted(folder.glob("*.ckpt"))]
        return [
            list(module.state_dict().values()),
            {k: v for k, v in trainer.callback_metrics.items() if not k.startswith("landscape/")},
            list(module._carried),
            [(content["carried_state"], content["state_dict"], content["loops"]) for content in saved],
            [torch.get_rng_state(), random.getstate(), np.random.get_state()],  # noqa: NPY002
        ]

    plain = run(tmp_path / "plain")
    callback = checks(tmp_path / "ours", pairs)
    watched = run(tmp_path / "watched", callback)
    torch.testing.assert_close(watched[:4], plain[:4], rtol=0, atol=0)
    assert str(watched[4]) == str(plain[4])
    assert len(plain[3]) > 3
    assert [row["reason"] for row in callback.rows].count("error") == 0
    assert len(callback.rows) == (3 if pairs == "twin" else 2)
    assert all(math.isfinite(row["height"]) for row in callback.rows)


def test_a_twin_is_trained_as_the_model_is(
    corpus: PennTreebankDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two biases of an LSTM are one to the function: shifted against each other they train alike."""

    def shift(module: pl.LightningModule) -> None:
        with torch.no_grad():
            module.lstm.bias_ih_l0.add_(0.25)
            module.lstm.bias_hh_l0.sub_(0.25)

    monkeypatch.setattr(twins, "require_fresh", lambda *models: None)  # most of its weights are kept on purpose
    callback = checks(tmp_path, "twin", reinitialize=shift)
    start, module = model(), model()
    fit(module, corpus, callback, precision="64-true")
    twin = callback._pairing.module
    shift(module)
    assert (vector(module) - vector(start)).norm() > 1
    assert torch.allclose(vector(twin), vector(module), atol=1e-9)


def test_a_twin_starts_uniform_too(corpus: PennTreebankDataModule, tmp_path: Path) -> None:
    callback = checks(tmp_path, "twin")
    fit(model(learning_rate=1e-9), corpus, callback, max_epochs=1)
    parameters = vector(callback._pairing.module)
    assert parameters.abs().max() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("step", [7, 12, 17, 24, 31])
def test_resumes_in_the_middle_of_an_epoch(corpus: PennTreebankDataModule, tmp_path: Path, step: int) -> None:
    straight, resumed = model(), model()
    keep = ModelCheckpoint(tmp_path / "kept", "{step}", every_n_train_steps=step, save_top_k=-1)
    fit(straight, corpus, keep, max_epochs=3)
    corpus.splits.clear()
    trainer = fit(resumed, corpus, max_epochs=3, ckpt=tmp_path / "kept" / f"step={step}.ckpt")
    assert trainer.global_step == 3 * len(corpus.train_dataloader())
    assert torch.equal(vector(resumed), vector(straight))
    torch.testing.assert_close(resumed._carried, straight._carried, rtol=0, atol=0)


def test_a_checkpoint_loads_by_itself(corpus: PennTreebankDataModule, tmp_path: Path) -> None:
    module = model(tied=True)
    fit(module, corpus, max_epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    loaded = LSTMLanguageModel.load_from_checkpoint(tmp_path / "last.ckpt")
    assert loaded.softmax_weight is loaded.embedding.weight
    assert torch.equal(vector(loaded), vector(module))
