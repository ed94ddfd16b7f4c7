"""The loss surface: values and gradients, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data

from lightning_landscape import LossSurface
from lightning_landscape.surface.work import Work
from tests.cases.surfaces import (
    CASES,
    Half,
    LastState,
    Pair,
    Tied,
    around,
    mlp,
    mse,
    pairs,
)


@pytest.mark.parametrize("case", CASES)
def test_stack_loop_and_finite_differences_agree(case: str) -> None:
    make, batches, loss_fn = CASES[case]
    module, data = make().double(), [_double(batch) for batch in batches()]
    loop = LossSurface(module, data, loss_fn, vectorize=False)
    chosen = LossSurface(module, data, loss_fn)
    thetas = around(loop)
    assert thetas.dtype == torch.float64

    losses = loop.losses(thetas)
    values, gradients = loop.gradients(thetas, data[0])
    torch.testing.assert_close(chosen.losses(thetas), losses)
    torch.testing.assert_close(chosen.gradients(thetas, data[0]), (values, gradients))
    assert set(chosen.choice().values()) <= {True, False}
    assert [loop.loss(theta) for theta in thetas] == pytest.approx(losses.tolist(), rel=1e-12)

    direction = torch.randn(loop.dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    step = 1e-6 * direction
    above, _ = loop.gradients(thetas + step, data[0])
    below, _ = loop.gradients(thetas - step, data[0])
    torch.testing.assert_close(gradients @ direction, (above - below) / 2e-6, rtol=1e-5, atol=1e-7)


def _double(batch: Any) -> Any:
    if isinstance(batch, Data):
        return Data(x=batch.x.double(), edge_index=batch.edge_index, y=batch.y)
    return tuple(part.double() for part in batch)


@pytest.mark.parametrize("case", ["mlp", "batch norm", "sync batch norm", "group norm", "dropout", "tied", "compiled"])
def test_vmap_agrees_with_the_loop(case: str) -> None:
    make, batches, loss_fn = CASES[case]
    module, data = make(), batches()
    loop, stacked = (LossSurface(module, data, loss_fn, vectorize=how) for how in (False, True))
    thetas = around(loop, count=70)  # more than one stack at once
    torch.testing.assert_close(stacked.losses(thetas), loop.losses(thetas), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        stacked.gradients(thetas, data[0]), loop.gradients(thetas, data[0]), rtol=1e-4, atol=1e-5
    )


def test_a_module_that_does_not_run_under_vmap_falls_back_by_itself() -> None:
    surface = LossSurface(LastState(), pairs((5, 4)), mse)
    thetas = around(surface)
    surface.losses(thetas)
    surface.gradients(thetas, pairs((5, 4))[0])
    assert surface.choice() == {"losses": False, "gradients": False}


def test_the_loss_is_the_mean_over_batches_of_the_module_in_eval_mode() -> None:
    module, data = mlp(nn.Dropout(0.9)), pairs(count=3)
    surface = LossSurface(module, data, mse)
    module.eval()
    expected = sum(mse(module, batch).item() for batch in data) / 3
    assert surface.loss(surface.point()) == pytest.approx(expected, rel=1e-6)
    assert surface.losses(surface.point()[None]).dtype == torch.float64


def test_theta_is_the_trainable_parameters_in_order() -> None:
    module = mlp()
    module[0].bias.requires_grad_(False)
    surface = LossSurface(module, pairs(), mse)
    assert surface.names == ["0.weight", "2.weight", "2.bias"]
    assert surface.dimension == 12 + 6 + 2
    expected = torch.cat([module[0].weight.flatten(), module[2].weight.flatten(), module[2].bias])
    assert torch.equal(surface.point(), expected.detach())


def test_tied_weights_are_one_coordinate() -> None:
    surface = LossSurface(Tied(), pairs(outputs=4), mse)
    assert surface.names == ["encoder.weight", "encoder.bias", "decoder.bias"]
    assert surface.dimension == 16 + 4 + 4
    # Moving the shared weight moves both layers.
    assert not surface.gradients(surface.point()[None], pairs(outputs=4)[0])[1][0, :16].eq(0).any()


@pytest.mark.parametrize("case", CASES)
def test_state_and_point_are_inverse(case: str) -> None:
    make, batches, loss_fn = CASES[case]
    module, data = make(), batches()
    surface = LossSurface(module, data, loss_fn)
    theta = around(surface, 1)[0]
    state = surface.state(theta)
    assert list(surface.parameters(theta)) == surface.names
    assert list(state) == list(module.state_dict())
    assert torch.equal(surface.point(state), theta)
    assert torch.equal(surface.point(surface.parameters(theta)), theta)
    module.load_state_dict(state)
    again = LossSurface(module, data, loss_fn)
    assert torch.equal(again.point(), theta)
    assert again.loss(again.point()) == surface.loss(theta)


def test_the_point_of_a_state_is_checked() -> None:
    surface = LossSurface(mlp(), pairs(), mse)
    state = surface.state(surface.point())
    with pytest.raises(ValueError, match=r"1 parameters are missing: 2\.bias"):
        surface.point({name: value for name, value in state.items() if name != "2.bias"})
    with pytest.raises(ValueError, match=r"have another shape \(\(3,\) for \(2,\)\): 2\.bias"):
        surface.point({**state, "2.bias": torch.zeros(3)})


def test_points_are_copies() -> None:
    surface = LossSurface(mlp(), pairs(), mse)
    before = surface.loss(surface.point())
    surface.point().zero_()
    for value in surface.state(surface.point()).values():
        value.zero_()
    assert surface.loss(surface.point()) == before


@pytest.mark.parametrize("shape", [(5,), (2, 5), (1, 1, 20)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    surface = LossSurface(mlp(), pairs(), mse)
    for call in (surface.losses, lambda thetas: surface.gradients(thetas, pairs()[0]), surface.loss):
        with pytest.raises(ValueError, match="expected parameters of shape"):
            call(torch.zeros(shape))


def test_no_points_have_no_losses() -> None:
    surface = LossSurface(mlp(), pairs(), mse)
    none = torch.zeros(0, surface.dimension)
    assert surface.losses(none).shape == (0,)
    assert [tuple(part.shape) for part in surface.gradients(none, pairs()[0])] == [(0,), (0, surface.dimension)]
    assert surface.work == Work()


@pytest.mark.parametrize(
    ("body", "head", "expected"),
    [
        (torch.float32, torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float64, torch.float64, torch.float64),
        (torch.bfloat16, torch.float64, torch.float64),
    ],
)
@pytest.mark.parametrize("vectorize", [False, True])
def test_parameters_of_any_precision(
    body: torch.dtype, head: torch.dtype, expected: torch.dtype, vectorize: bool
) -> None:
    module = Half()
    module.body.to(body)
    module.head.to(head)

    def loss_fn(module: Any, batch: Pair) -> Tensor:
        hidden = torch.tanh(module.body(batch[0].to(body)))
        return functional.mse_loss(module.head(hidden.to(head)).double(), batch[1].double())

    surface = LossSurface(module, pairs(), loss_fn, vectorize=vectorize)
    point = surface.point()
    assert point.dtype == expected
    _, gradients = surface.gradients(point.repeat(3, 1), pairs()[0])
    assert gradients.dtype == expected
    assert gradients.isfinite().all()
    assert (gradients.abs().sum(dim=1) > 0).all()
    module.zero_grad()
    loss_fn(module, pairs()[0]).backward()
    flat = torch.cat([p.grad.to(expected).flatten() for p in module.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], flat, rtol=1e-2, atol=1e-3)
    assert {name: value.dtype for name, value in surface.state(point).items()} == {
        name: parameter.dtype for name, parameter in module.named_parameters()
    }


def test_a_loss_that_is_not_finite_is_a_value_not_an_error() -> None:
    surface = LossSurface(nn.Linear(1, 1, bias=False), [None], lambda module, batch: module.weight.log().sum())
    values = surface.losses(torch.tensor([[1.0], [0.0], [-1.0]]))
    assert values[0] == 0
    assert values[1] == -torch.inf
    assert values[2].isnan()


def test_a_surface_says_what_it_is() -> None:
    text = repr(LossSurface(mlp(), pairs(), mse))
    assert text == "LossSurface(Sequential, dimension=23, batch_norm='recalibrate', device='cpu')"


def test_parameters_that_a_step_reaches_past_functional_call_are_computed_by_the_loop() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.weights = [self.weight]

    surface = LossSurface(Listed(), [None], lambda module, batch: sum(w.square().sum() for w in module.weights))
    # Copies of the installed point would agree by accident; so would any others, were nothing else installed.
    surface.losses(surface.point().expand(8, -1))
    surface.gradients(surface.point().expand(8, -1), None)
    assert surface.choice() == {"losses": False, "gradients": False}
    assert surface.losses(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])).tolist() == [0.0, 1.0]


def test_small_losses_that_differ_are_not_taken_for_rounding() -> None:
    class Memory(nn.Linear):
        seen = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1.0
            return super().forward(x) * self.seen

    with pytest.raises(ValueError, match="keeps something"):
        LossSurface(Memory(2, 2), [torch.ones(1, 2)], lambda module, batch: 1e-6 * module(batch).square().sum())
