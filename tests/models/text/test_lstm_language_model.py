"""The network of the LSTM language model: its size, its start, and the arguments it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lightning_landscape.models import LSTMLanguageModel
from tests.models.text.lstm_runs import SMALL, WORDS, batches, losses, model


def test_zarembas_small_model_has_its_size() -> None:
    """V e + V (h + 1) + 2 layers of 4h (e + h + 2), the second bias being PyTorch's own."""
    small = LSTMLanguageModel()
    assert sum(p.numel() for p in small.parameters()) == 10_000 * 200 + 10_000 * 201 + 2 * 800 * 402
    tied = LSTMLanguageModel(tied=True)
    assert tied.softmax_weight is tied.embedding.weight
    assert sum(p.numel() for p in tied.parameters()) == 10_000 * 200 + 10_000 + 2 * 800 * 402


def test_parameters_start_uniform() -> None:
    for parameter in LSTMLanguageModel(vocabulary_size=200).parameters():
        assert parameter.abs().max() <= 0.1
        assert float(parameter.detach().std()) == pytest.approx(0.1 / math.sqrt(3), rel=0.15)


def test_a_model_of_zeros_has_the_perplexity_of_its_vocabulary() -> None:
    assert losses(model(spread=0.0), batches(1))[0] == pytest.approx(math.log(WORDS))


def test_dropout_acts_in_train_mode_alone() -> None:
    dropping, plain = model(dropout=0.5), model()
    tokens = batches(1)[0][0]
    assert torch.equal(dropping.eval()(tokens)[0], plain.eval()(tokens)[0])
    dropping.train()
    assert not torch.equal(dropping(tokens)[0], dropping(tokens)[0])
    dropping.dropout.eval()
    assert not torch.equal(dropping(tokens)[0], dropping(tokens)[0])  # between the layers
    assert model(dropout=0.5, num_layers=1).lstm.dropout == 0.0


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("vocabulary_size", 1),
        ("embedding_size", 0),
        ("hidden_size", 2.5),
        ("num_layers", True),
        ("halve_after", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("clip_norm", -1.0),
        ("clip_norm", math.inf),
        ("dropout", 1.0),
    ],
)
def test_arguments_out_of_range_are_named(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{argument} must .* got {value!r}"):
        LSTMLanguageModel(**SMALL | {argument: value})


def test_tied_weights_need_equal_sizes() -> None:
    with pytest.raises(ValueError, match="tied=True needs embedding_size = hidden_size, got 5 and 6"):
        LSTMLanguageModel(**SMALL | {"hidden_size": 6, "tied": True})


@pytest.mark.parametrize("place", [0, 1])
def test_a_word_beyond_the_vocabulary_is_named(place: int) -> None:
    batch = batches(1)[0]
    batch[place][1, 2] = 11
    with pytest.raises(ValueError, match=r"holds word 11 and vocabulary_size=7"):
        model().training_step(batch, 0)
