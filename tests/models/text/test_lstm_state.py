"""The carried state of the LSTM language model: over an epoch, in validation, and in what is logged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from lightning_landscape.datamodules import PennTreebankDataModule
from tests.models.text.lstm_runs import batches, cross_entropy, fit, losses, model, vector
from tests.models.text.lstm_runs import corpus as corpus


def test_training_carries_the_state_over_a_whole_epoch() -> None:
    data, carrying = batches(3), model()
    logits = carrying(torch.cat([tokens for tokens, _ in data], 1))[0].split(4, dim=1)
    expected = [float(cross_entropy(part, batch[1])) for part, batch in zip(logits, data, strict=True)]
    assert losses(carrying, data) == pytest.approx(expected, rel=1e-5)
    alone = [float(cross_entropy(carrying(tokens)[0], targets)) for tokens, targets in data]
    assert abs(alone[1] - expected[1]) > 0.01  # the state matters here
    assert losses(carrying, data) == pytest.approx(expected, rel=1e-5)  # the second epoch starts from zero again


def test_gradients_end_where_the_window_begins() -> None:
    data, carrying = batches(2), model()
    carrying.training_step(data[0], 0)
    state = tuple(part.clone() for part in carrying._carried)
    loss = carrying.training_step(data[1], 1)["loss"]
    twin = model()
    other = cross_entropy(twin(data[1][0], state)[0], data[1][1])
    for mine, theirs in zip(
        torch.autograd.grad(loss, list(carrying.parameters())),
        torch.autograd.grad(other, list(twin.parameters())),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, atol=1e-7)
    assert not any(part.requires_grad for part in carrying._carried)


def test_other_streams_in_an_epoch_are_refused() -> None:
    carrying = model()
    carrying.training_step(batches(1)[0], 0)
    with pytest.raises(ValueError, match="a batch of 3 streams follows one of 2"):
        carrying.training_step(batches(1, streams=3)[0], 1)
    carrying.training_step(batches(1, streams=3)[0], 0)


def test_validation_covers_the_whole_text_and_leaves_training_alone(corpus: PennTreebankDataModule) -> None:
    plain, watched = model(), model()
    fit(plain, corpus, limit_val_batches=0)
    trainer = fit(watched, corpus, val_check_interval=5)
    assert torch.equal(vector(watched), vector(plain))
    tokens, targets = (torch.cat(parts, 1) for parts in zip(*corpus.val_dataloader(), strict=True))
    assert tokens.shape == (2, corpus.splits["val"].streams.shape[1] - 1)
    final = trainer.validate(watched, datamodule=corpus, verbose=False)[0]
    expected = float(cross_entropy(watched.eval()(tokens)[0], targets))
    assert final["val/loss"] == pytest.approx(expected, rel=1e-5)
    assert final["val/perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)
    assert trainer.test(watched, datamodule=corpus, verbose=False)[0]["test/perplexity"] == pytest.approx(
        math.exp(expected), rel=1e-5
    )


def test_logged_training_perplexity_is_that_of_the_steps(corpus: PennTreebankDataModule) -> None:
    class Recorder(pl.Callback):
        losses: list[float]

        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.losses = []

        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
            self.losses.append(float(outputs["loss"]))

    recorder = Recorder()
    logged = fit(model(), corpus, recorder).callback_metrics
    assert logged["train/perplexity"] == pytest.approx(math.exp(np.mean(recorder.losses)), rel=1e-5)
