"""Signals with noise, and dictionaries that are ill conditioned."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lightning_landscape.datamodules import SparseCodingDataModule


def test_noise_and_condition_are_those_asked_for() -> None:
    plain = SparseCodingDataModule("supervised", batch_size=200, steps_per_epoch=1, val_size=1, test_size=1)
    hard = SparseCodingDataModule(
        "supervised", snr=20.0, condition=50.0, batch_size=200, steps_per_epoch=1, val_size=1, test_size=1
    )
    batch = next(iter(hard.train_dataloader()))
    clean = batch.code @ hard.dictionary.T
    ratios = 20 * (clean.norm(dim=1) / (batch.x - clean).norm(dim=1)).log10()
    assert ratios.mean().item() == pytest.approx(20, abs=0.2)
    values = [torch.linalg.svdvals(data.dictionary.double()) for data in (plain, hard)]
    assert float(values[0][0] / values[0][-1]) < 7
    assert 25 < float(values[1][0] / values[1][-1]) < 50  # unit columns cost some of it
    torch.testing.assert_close(hard.dictionary.norm(dim=0), torch.ones(500))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"snr": 30.0}, "snr=30.0, condition=None are for 'supervised', leave them out for 'digits'"),
        ({"dataset": "supervised", "snr": math.inf}, "snr must be finite"),
        ({"dataset": "supervised", "condition": 0.5}, "condition must be finite and at least 1"),
    ],
)
def test_refuses_what_is_no_noise_and_no_condition(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseCodingDataModule(**options)
