"""Batch norm on the loss surface: recalibrated, of each batch, frozen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_landscape import LossSurface
from lightning_landscape.finders import LinearPath
from tests.cases.running import data, trained
from tests.cases.running import mse as mean_squares
from tests.cases.surfaces import (
    Pair,
    around,
    mlp,
    mse,
    pairs,
)


def statistics(module: nn.Sequential, data: list[Pair]) -> Pair:
    inputs = [module[0](batch[0]).detach() for batch in data]
    mean = torch.stack([x.mean(0) for x in inputs]).mean(0)
    return mean, torch.stack([x.var(0) for x in inputs]).mean(0)  # unbiased, as torch keeps it


@pytest.mark.parametrize("vectorize", [False, True])
def test_recalibrated_batch_norm_uses_the_cumulative_average_over_the_probe_set(vectorize: bool) -> None:
    module, data = mlp(nn.BatchNorm1d(3)), pairs(count=3)
    surface = LossSurface(module, data, mse, vectorize=vectorize)
    values = surface.losses(around(surface)).tolist()
    for theta, value in zip(around(surface), values, strict=True):
        module.load_state_dict(surface.state(theta), strict=False)
        module[1].running_mean, module[1].running_var = statistics(module, data)
        module.eval()
        assert value == pytest.approx(sum(mse(module, batch).item() for batch in data) / 3, rel=1e-5)


@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize("mode", ["frozen", "batch"])
def test_batch_norm_by_the_modules_statistics_and_by_those_of_each_batch(mode: Any, vectorize: bool) -> None:
    module, data = mlp(nn.BatchNorm1d(3)), pairs()
    module[1].running_mean.uniform_(-1, 1)
    module[1].running_var.uniform_(0.5, 2)
    surface = LossSurface(module, data, mse, batch_norm=mode, vectorize=vectorize)
    theta = around(surface)
    values = surface.losses(theta)
    frozen = module.train(mode == "batch")
    module.load_state_dict(surface.state(theta[1]), strict=False)
    expected = sum(mse(frozen, batch).item() for batch in data) / 2
    assert values[1].item() == pytest.approx(expected, rel=1e-5)
    assert surface.evaluation_passes == 2


@pytest.mark.parametrize("mode", ["recalibrate", "batch", "frozen"])
def test_gradients_normalise_by_the_batch_unless_frozen(mode: Any) -> None:
    module, data = mlp(nn.BatchNorm1d(3)), pairs()
    surface = LossSurface(module, data, mse, batch_norm=mode)
    _, gradients = surface.gradients(surface.point()[None], data[0])
    module.train(mode != "frozen")
    mse(module, data[0]).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in module.parameters()])
    torch.testing.assert_close(gradients[0], expected)


@pytest.mark.parametrize("wrap", ["plain", "compiled", "compiled inside"])
def test_a_batch_norm_layer_that_its_owner_froze_keeps_its_statistics(wrap: str) -> None:
    inner = mlp(nn.BatchNorm1d(3))
    inner[1].running_mean.fill_(0.7)
    inner[1].eval()
    module: nn.Module = inner if wrap == "plain" else torch.compile(inner, backend="eager")
    module = nn.Sequential(module) if wrap == "compiled inside" else module
    surface = LossSurface(module, pairs(), mse)
    assert surface.evaluation_passes == 2
    inner.eval()
    expected = sum(mse(inner, batch).item() for batch in pairs()) / 2
    assert surface.loss(surface.point()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("vectorize", [False, True])
def test_statistics_of_a_point_that_diverged_do_not_reach_the_next(vectorize: bool) -> None:
    module = mlp(nn.BatchNorm1d(3))
    module[1].running_mean.fill_(torch.nan)  # a run that diverged, whose weights were put back
    surface = LossSurface(module, pairs(), mse, vectorize=vectorize)
    theta = surface.point()
    before = surface.losses(theta.repeat(2, 1))
    assert before.isfinite().all()
    assert surface.losses((theta * torch.nan).repeat(2, 1)).isnan().all()
    torch.testing.assert_close(surface.losses(theta.repeat(2, 1)), before)
    assert surface.losses(torch.stack([theta, theta * torch.nan, theta])).isnan().tolist() == [False, True, False]
    surface.loss(theta * torch.nan)
    torch.testing.assert_close(surface.losses(theta.repeat(2, 1)), before)


def test_one_example_under_batch_norm_says_what_to_do() -> None:
    one = pairs(size=1, count=1)
    with pytest.raises(ValueError, match="batches of at least two examples"):
        LossSurface(mlp(nn.BatchNorm1d(3)), one, mse)
    frozen = LossSurface(mlp(nn.BatchNorm1d(3)), one, mse, batch_norm="frozen")
    assert frozen.loss(frozen.point()) > 0
    without = LossSurface(mlp(), one, mse)
    assert without.loss(without.point()) > 0


def test_the_end_of_a_path_can_be_loaded_and_has_the_accuracy_of_the_checkpoint() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 3))

    def accuracy(module: nn.Module) -> float:
        module.eval()
        hits = [(module(x).argmax(1) == y.argmax(1)).float() for x, y in data()]
        return float(torch.cat(hits).mean())

    a, b = (trained(make, seed) for seed in (1, 2))
    surface = LossSurface(a, data(), mean_squares)
    found = LinearPath().connect(surface, surface.point(), surface.point(b.state_dict()))
    loaded = make()
    loaded.load_state_dict(surface.state(found.path(1.0)))
    assert accuracy(loaded) == pytest.approx(accuracy(b), abs=0.01)
    stale = make()
    parameters = surface.parameters(found.path(1.0))
    stale.load_state_dict(a.state_dict() | parameters)  # with the statistics of a, as it was done
    assert accuracy(stale) < accuracy(b) - 0.1
