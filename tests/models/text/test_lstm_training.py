"""The optimisation of the LSTM language model: Zaremba's steps and schedule, and that it learns."""

from __future__ import annotations

import math

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from lightning_landscape.datamodules import PennTreebankDataModule
from tests.models.text.lstm_runs import corpus as corpus
from tests.models.text.lstm_runs import fit, model, vector


@pytest.mark.parametrize("clip", [0.05, 1e6], ids=["clipped", "free"])
@pytest.mark.parametrize("by", ["module", "trainer"])
def test_a_step_is_zarembas(corpus: PennTreebankDataModule, clip: float, by: str) -> None:
    """theta - lr clip(grad sum_t mean_b -log p), the state carried and cut."""
    trained = model(clip_norm=clip if by == "module" else 123.0, learning_rate=0.5)
    fit(trained, corpus, max_epochs=1, limit_val_batches=0, gradient_clip_val=clip if by == "trainer" else None)
    expected, state = model(), None
    for tokens, targets in corpus.train_dataloader():
        logits, state = expected(tokens, state)
        state = tuple(part.detach() for part in state)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / len(tokens)
        expected.zero_grad()
        loss.backward()
        clip_grad_norm_(expected.parameters(), clip)
        with torch.no_grad():
            for parameter in expected.parameters():
                parameter -= 0.5 * parameter.grad
    assert (vector(trained) - vector(expected)).norm() < 1e-5 * (vector(expected) - vector(model())).norm()


def test_the_learning_rate_halves_after_the_fourth_epoch(corpus: PennTreebankDataModule) -> None:
    class Rates(pl.Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    rates = Rates()
    fit(model(), corpus, rates, max_epochs=6, limit_train_batches=1, limit_val_batches=0)
    assert rates.seen == [1.0, 1.0, 1.0, 1.0, 0.5, 0.25]


def test_learns_a_text_that_repeats_itself(corpus: PennTreebankDataModule) -> None:
    module = model(hidden_size=16, halve_after=15)
    trainer = fit(module, corpus, max_epochs=15)
    assert trainer.callback_metrics["val/perplexity"] < 1.3


def test_half_precision_carries_its_state(corpus: PennTreebankDataModule) -> None:
    try:
        with torch.autocast("cpu", torch.bfloat16):
            torch.nn.LSTM(4, 4)(torch.zeros(2, 1, 4))
    except RuntimeError as error:  # on processors without AVX512, under torch 2.14
        pytest.skip(f"torch has no LSTM in bfloat16 for this processor: {error}")
    trainer = fit(model(), corpus, precision="bf16-mixed")
    assert math.isfinite(trainer.callback_metrics["val/perplexity"])
