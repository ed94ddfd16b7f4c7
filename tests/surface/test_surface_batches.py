"""What the loss surface takes as batches, losses and training batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_landscape import LossSurface
from lightning_landscape.surface.work import Work
from tests.cases.surfaces import (
    Pair,
    around,
    mlp,
    mse,
    pairs,
)


def test_dictionaries_as_batches_and_as_losses() -> None:
    data = [{"x": x, "meta": {"y": y, "name": "text"}} for x, y in pairs()]
    surface = LossSurface(
        mlp(), data, lambda module, batch: {"loss": mse(module, (batch["x"], batch["meta"]["y"])), "more": 1}
    )
    tuples = LossSurface(mlp(), pairs(), mse)
    theta = around(tuples, 3)
    torch.testing.assert_close(surface.losses(theta), tuples.losses(theta))
    torch.testing.assert_close(surface.gradients(theta, data[0]), tuples.gradients(theta, pairs()[0]))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_data_loader_defines_the_same_surface_as_its_batches(shuffle: bool) -> None:
    x, y = pairs(size=8, count=1)[0]
    loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=shuffle)
    surface = LossSurface(mlp(), loader, mse)
    whole = LossSurface(mlp(), [(x, y)], mse)
    theta = around(whole, 1)[0]
    assert surface.loss(theta) == pytest.approx(whole.loss(theta), rel=1e-6)


class Endless(IterableDataset[Pair]):
    def __iter__(self) -> Iterator[Pair]:
        return iter([(torch.zeros(4), torch.zeros(2)), (torch.ones(4), torch.ones(2))])


def test_training_batches_may_have_no_length() -> None:
    surface = LossSurface(mlp(), pairs(), mse, training_batches=DataLoader(Endless(), batch_size=2))
    seen = list(itertools.islice(surface.training_stream(), 3))
    assert [float(batch[1].sum()) for batch in seen] == [2.0, 2.0, 2.0]


def error_rate(module: nn.Module, batch: Any) -> Tensor:
    return (module(batch[0]).argmax(-1) != batch[1].argmax(-1)).float().mean()


@pytest.mark.parametrize("vectorize", [False, True, None])
def test_a_metric_without_gradients_is_measured_while_beads_descend_the_training_loss(vectorize: bool | None) -> None:
    module, batches = mlp(), pairs(size=32)
    by_metric = LossSurface(module, batches, error_rate, vectorize=vectorize, training_loss_fn=mse)
    by_loss = LossSurface(module, batches, mse, vectorize=False)
    thetas = around(by_metric)
    measured = by_metric.losses(thetas)
    assert measured.tolist() == [by_metric.loss(theta) for theta in thetas]
    assert set((measured * 64).tolist()) <= set(map(float, range(65)))  # counts of 64 examples
    for found, expected in zip(
        by_metric.gradients(thetas, batches[0]), by_loss.gradients(thetas, batches[0]), strict=True
    ):
        torch.testing.assert_close(found, expected)
    assert by_metric.work == Work(gradient_steps=4, forward_passes=16, loss_evaluations=8)


def test_the_training_loss_goes_along_to_another_module() -> None:
    batch = pairs()[0]
    surface = LossSurface(mlp(), [batch], error_rate, training_loss_fn=mse).with_module(mlp())
    expected = LossSurface(mlp(), [batch], mse).gradients(surface.point()[None], batch)
    assert torch.equal(surface.gradients(surface.point()[None], batch)[1], expected[1])


def test_the_training_loss_may_draw_random_numbers() -> None:
    def noisy(module: nn.Module, batch: Any) -> Tensor:
        return mse(module, batch) * torch.rand(())

    surface = LossSurface(mlp(), pairs(), mse, training_loss_fn=noisy)
    first, second = (surface.gradients(surface.point()[None], pairs()[0])[0] for _ in range(2))
    assert first != second


@pytest.mark.parametrize("count", [1, 3])
def test_gradients_of_a_metric_without_any_are_refused(count: int) -> None:
    surface = LossSurface(mlp(), pairs(), error_rate)
    with pytest.raises(ValueError, match=r"has no gradient .* pass training_loss_fn"):
        surface.gradients(around(surface, count), pairs()[0])


def test_the_training_stream_repeats_the_probe_set_without_training_batches() -> None:
    surface = LossSurface(mlp(), pairs(count=2), mse)
    stream = surface.training_stream()
    first, second, third = (next(stream) for _ in range(3))
    assert torch.equal(first[0], third[0])
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize("vectorize", [None, False])
def test_a_loss_that_changes_its_batches_gets_them_as_they_were(vectorize: bool | None) -> None:
    def halves(module: nn.Module, batch: list[Tensor]) -> Tensor:
        return mse(module, (batch[0].mul_(0.5), batch.pop()))

    given, halved = [list(pair) for pair in pairs()], [(x / 2, y) for x, y in pairs()]
    surface = LossSurface(mlp(), given, halves, vectorize=vectorize)
    expected = LossSurface(mlp(), halved, mse, vectorize=False)
    thetas = around(surface, 5)
    torch.testing.assert_close(surface.losses(thetas), expected.losses(thetas))
    torch.testing.assert_close(surface.gradients(thetas, given[0])[1], expected.gradients(thetas, halved[0])[1])
    assert all(torch.equal(batch[0], x) and len(batch) == 2 for batch, (x, _) in zip(given, pairs(), strict=True))
