"""What makes no surface: bad arguments, randomness, state; and what is computed in which context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_landscape import LossSurface
from lightning_landscape.surface.work import Work
from tests.cases.surfaces import (
    Pair,
    around,
    mlp,
    mse,
    pairs,
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": []}, "batches is empty"),
        ({"batches": iter(pairs())}, r"batches is an iterator .* pass list\(batches\)"),
        ({"batches": pairs(), "training_batches": iter(pairs())}, r"training_batches is an iterator"),
        ({"batches": pairs(), "batch_norm": "running"}, "batch_norm must be 'recalibrate', 'frozen' or 'batch'"),
        ({"batches": pairs(), "loss_fn": None}, "Sequential is no LightningModule .* pass loss_fn"),
        ({"batches": pairs(), "loss_fn": lambda module, batch: module(batch[0])}, r"scalar tensor .* shape \(6, 2\)"),
        ({"batches": pairs(), "loss_fn": lambda module, batch: 1.0}, "scalar tensor .* got float"),
        ({"batches": pairs(), "loss_fn": lambda module, batch: None}, "scalar tensor .* got NoneType"),
    ],
)
def test_arguments_that_make_no_surface_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossSurface(mlp(), **{"loss_fn": mse, **arguments})


def test_empty_training_batches_are_refused_when_they_are_read() -> None:
    surface = LossSurface(mlp(), pairs(), mse, training_batches=[])
    with pytest.raises(ValueError, match="training_batches is empty"):
        next(surface.training_stream())


def test_modules_without_real_trainable_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="Tanh has no trainable parameter"):
        LossSurface(nn.Tanh(), pairs(), mse)
    with pytest.raises(ValueError, match="no trainable parameter"):
        LossSurface(mlp().requires_grad_(False), pairs(), mse)
    with pytest.raises(ValueError, match="'weight' is not initialised: run one batch through LazyLinear"):
        LossSurface(nn.LazyLinear(2), pairs(), mse)
    with pytest.raises(ValueError, match="'weight' is complex"):
        LossSurface(nn.Linear(2, 2, dtype=torch.complex64), pairs(), mse)


def test_state_kept_between_calls_is_refused_by_name() -> None:
    class Memory(nn.Linear):
        seen = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1.0
            return super().forward(x) * self.seen

    with pytest.raises(ValueError, match=r"at the same theta; the module keeps something from one call to the next"):
        LossSurface(Memory(4, 2), pairs(), mse)


def test_state_in_a_buffer_is_put_back_instead() -> None:
    class Counting(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 2)
            self.register_buffer("count", torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return super().forward(x) * self.count

    surface = LossSurface(Counting(), pairs(), mse)
    theta = surface.point()
    assert surface.losses(theta.repeat(3, 1)).unique().numel() == 1
    assert surface.loss(theta) == surface.losses(theta[None]).item()


def penalised(module: nn.Module, batch: Pair) -> Tensor:
    x = batch[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    return mse(module, batch) + slope.square().mean()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_gradient_penalty_is_evaluated_in_any_context(context: Callable[[], Any]) -> None:
    module, data = mlp(), pairs()
    expected = sum(penalised(module, batch).item() for batch in data) / 2
    with context():
        surface = LossSurface(module, data, penalised)
        value = surface.loss(surface.point())
        _, gradients = surface.gradients(surface.point()[None], data[0])
    assert value == pytest.approx(expected, rel=1e-6)
    penalised(module, data[0]).backward()
    flat = torch.cat([parameter.grad.flatten() for parameter in module.parameters()])
    torch.testing.assert_close(gradients[0], flat)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("vectorize", [False, True])
def test_batches_and_points_made_in_a_context_without_gradients(context: Any, vectorize: bool) -> None:
    module = mlp(nn.BatchNorm1d(3))
    outside = LossSurface(module, pairs(), mse, vectorize=vectorize)
    expected = outside.gradients(around(outside), pairs()[0])
    with context():
        data = [(x.clone(), y.clone()) for x, y in pairs()]
        surface = LossSurface(module, data, mse, vectorize=vectorize)
        thetas = around(surface)
        torch.testing.assert_close(surface.gradients(thetas, data[0]), expected)
        torch.testing.assert_close(surface.losses(thetas), outside.losses(thetas))
        torch.testing.assert_close(surface.gradients(thetas, next(surface.training_stream())), expected)
    assert torch.is_grad_enabled()


class Counter:
    """A loss that counts its calls, with gradients and without."""

    def __init__(self) -> None:
        self.with_gradient = self.without = 0

    def __call__(self, module: nn.Module, batch: Any) -> Tensor:
        if torch.is_grad_enabled():
            self.with_gradient += 1
        else:
            self.without += 1
        return mse(module, batch)


@pytest.mark.parametrize(("middle", "passes"), [((), 3), ((nn.BatchNorm1d(3),), 6)])
def test_work_is_what_was_computed(middle: tuple[nn.Module, ...], passes: int) -> None:
    counter = Counter()
    surface = LossSurface(mlp(*middle), pairs(count=3), counter, vectorize=False)
    assert surface.work == Work()
    assert surface.evaluation_passes == passes
    counter.with_gradient = counter.without = 0
    surface.losses(around(surface, 5))
    surface.loss(surface.point())
    surface.gradients(around(surface, 4), pairs()[0])
    assert surface.work == Work(gradient_steps=4, forward_passes=6 * passes, loss_evaluations=6)
    assert (counter.with_gradient, counter.without) == (4, 6 * passes)
    assert surface.work.total == 4 + 2 * passes
    assert surface.work.since(Work(1, 2, 3)) == Work(3, 6 * passes - 2, 3)


class Annealed(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 2)
        self.weight = 1.0
        self.register_buffer("scale", torch.ones(()))

    def training_step(self, batch: Pair) -> Tensor:
        return self.weight * self.scale * mse(self.net, batch)


def test_with_module_sees_what_changed_and_counts_anew() -> None:
    module = Annealed()
    surface = LossSurface(module, pairs())
    before = surface.loss(surface.point())
    module.weight = 2.0
    module.scale.fill_(3.0)
    with torch.no_grad():
        module.net.bias.add_(1.0)
    assert surface.loss(surface.point()) == before
    now = surface.with_module(module)
    assert now.work == Work()
    assert now.loss(surface.point()) == pytest.approx(6 * before, rel=1e-6)
    assert torch.equal(now.point()[-2:], module.net.bias)
    assert not torch.equal(now.point(), surface.point())
    assert surface.work.loss_evaluations == 2
