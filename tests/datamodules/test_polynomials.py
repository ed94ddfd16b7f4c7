from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lightning_landscape.datamodules import PolynomialDataModule


@pytest.mark.parametrize(
    ("coefficients", "polynomial"),
    [
        ("quadratic", [0.5, 0.25, 0.1]),
        ("cubic", [8, -10, 3, 0]),
        ([2.0], [2]),
        (np.array([1.0, 0.0, -1.0]), [1, 0, -1]),
        ((0, 0, 3, 1), [3, 1]),
    ],
)
def test_the_targets_are_the_polynomial(coefficients: Any, polynomial: list[float]) -> None:
    data = PolynomialDataModule(coefficients, num_examples=100)
    data.setup()
    for split in data.splits.values():
        x, y = split.tensors
        assert (x.shape, y.shape, x.dtype, y.dtype) == ((100, 1), (100, 1), torch.float32, torch.float32)
        expected = np.polyval(polynomial, x.numpy().astype(np.float64)).astype(np.float32)
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_the_cubic_has_the_extrema_of_the_paper_s() -> None:
    # p' = 24 x^2 - 20 x + 3 vanishes at (5 -+ sqrt 7) / 12: p rises to 0.264, falls to -0.208... and ends at 1.
    data = PolynomialDataModule("cubic", num_examples=20_000)
    data.setup("fit")
    x, y = (part.squeeze(1) for part in data.splits["train"].tensors)
    low, high = (5 - 7**0.5) / 12, (5 + 7**0.5) / 12
    assert x[y.argmin()].item() == pytest.approx(high, abs=0.02)
    assert x[x < 0.5][y[x < 0.5].argmax()].item() == pytest.approx(low, abs=0.02)
    assert y.max().item() == pytest.approx(1, abs=0.01)


def test_inputs_are_uniform_and_splits_independent() -> None:
    data = PolynomialDataModule(num_examples=5000)
    data.setup()
    parts = [split.tensors[0].squeeze(1) for split in data.splits.values()]
    for x in parts:
        assert x.min() >= 0
        assert x.max() < 1
        # The largest deviation of the distribution function (Kolmogorov) exceeds 1.95 / sqrt(n) once in a thousand.
        steps = torch.arange(1, 5001) / 5000
        assert (x.sort().values - steps).abs().max() < 1.95 / 5000**0.5 + 1 / 5000
    assert abs(torch.corrcoef(torch.stack(parts))[0, 1:]).max() < 0.05


def test_the_seed_alone_decides_the_points() -> None:
    points = []
    for seed in (0, 0, 1):
        torch.rand(1)
        data = PolynomialDataModule(num_examples=8, seed=seed)
        state = torch.get_rng_state()
        data.setup("fit")
        assert torch.equal(torch.get_rng_state(), state)
        points.append(data.splits["train"].tensors[0])
    assert torch.equal(points[0], points[1])
    assert not torch.equal(points[0], points[2])


def test_serves_batches_and_draws_once() -> None:
    data = PolynomialDataModule(num_examples=10, batch_size=4)
    data.setup("fit")
    train = data.splits["train"]
    data.setup("test")
    assert data.splits["train"] is train
    assert [len(x) for x, _ in data.train_dataloader()] == [4, 4, 2]
    assert torch.equal(torch.cat(list(data.predict_dataloader())), data.splits["test"].tensors[0])
    one = PolynomialDataModule(num_examples=1)
    one.setup()
    assert next(iter(one.train_dataloader()))[0].shape == (1, 1)


def test_hyperparameters_are_plain() -> None:
    assert PolynomialDataModule(np.array([1.0, 2.0])).hparams["coefficients"] == [1.0, 2.0]
    assert PolynomialDataModule("cubic").hparams["coefficients"] == "cubic"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"coefficients": "quartic"},
            r"coefficients must be numbers or one of \['quadratic', 'cubic'\], got 'quartic'",
        ),
        ({"coefficients": []}, r"coefficients must be finite numbers, at least one, got \[\]"),
        ({"coefficients": [1, float("nan")]}, "coefficients must be finite numbers"),
        ({"num_examples": 0}, "num_examples must be an integer of at least 1, got 0"),
        ({"num_examples": 10.0}, "num_examples must be an integer of at least 1, got 10.0"),
        ({"batch_size": 0}, "batch_size .* got 0"),
        ({"seed": -1}, "seed .* got -1"),
    ],
)
def test_refuses_bad_arguments_at_construction(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolynomialDataModule(**arguments)
