"""Losses that draw random numbers: the same at every point, and no generator of the user's moves."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_landscape import LossSurface
from tests.cases.surfaces import around, mlp, pairs


class OwnGenerators(nn.Linear):
    """Noise from generators that the module holds."""

    def __init__(self, kind: str) -> None:
        super().__init__(4, 2)
        self.torch_generator = torch.Generator().manual_seed(3) if kind == "torch" else None
        self.generator = {"numpy": np.random.default_rng(3), "python": random.Random(3)}.get(kind)

    def forward(self, x: Tensor) -> Tensor:
        if self.torch_generator is not None:
            return super().forward(x + torch.randn(x.shape, generator=self.torch_generator))
        normal = self.generator.normal if isinstance(self.generator, np.random.Generator) else self.generator.gauss
        return super().forward(x + normal(0.0, 1.0))


def noisy(noise: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    return lambda module, batch: functional.mse_loss(module(noise(batch[0])), batch[1])


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    "torch": (mlp, lambda x: x + torch.randn_like(x)),
    "dropout": (mlp, functional.dropout),
    "numpy": (mlp, lambda x: x * np.random.rand()),  # noqa: NPY002
    "python": (mlp, lambda x: x[:, random.sample(range(4), 4)]),
    "batch norm": (lambda: mlp(nn.BatchNorm1d(3)), lambda x: x + torch.randn_like(x)),
    **{f"own {kind}": (lambda kind=kind: OwnGenerators(kind), lambda x: x) for kind in ("torch", "numpy", "python")},
}


def states() -> list[Any]:
    return [torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()]  # noqa: NPY002


@pytest.mark.parametrize("case", CASES)
def test_e_is_a_function_of_theta_and_of_the_seed(case: str) -> None:
    make, noise = CASES[case]
    module = make()
    surface = LossSurface(module, pairs(count=4), noisy(noise))
    assert surface.noise == "frozen"
    thetas = around(surface, 5)
    values = surface.losses(thetas)
    torch.rand(3), random.random()
    torch.testing.assert_close(surface.losses(thetas.flip(0)).flip(0), values, rtol=1e-6, atol=0)
    assert [surface.loss(theta) for theta in thetas] == pytest.approx(values.tolist(), rel=1e-5)
    again = surface.with_module(module)
    assert again.noise == "frozen"
    assert torch.equal(again.losses(thetas), values)
    assert not torch.equal(LossSurface(module, pairs(count=4), noisy(noise), seed=1).losses(thetas), values)
    with pytest.raises(ValueError, match=r"draws random numbers.*noise='frozen'"):
        LossSurface(make(), pairs(count=4), noisy(noise), noise="refuse")


@pytest.mark.parametrize("case", CASES)
def test_no_generator_of_the_user_moves(case: str) -> None:
    make, noise = CASES[case]
    module = make()
    before = states()
    surface = LossSurface(module, pairs(count=4), noisy(noise))
    surface.losses(around(surface, 5))
    surface.state(surface.point())
    assert states() == before


def test_each_batch_has_numbers_of_its_own() -> None:
    seen: list[float] = []

    def loss(module: nn.Module, batch: Any) -> Tensor:
        seen.append(float(torch.rand(())))
        return module.weight.sum()

    LossSurface(nn.Linear(1, 1), [0, 1, 2], loss)
    assert len(set(seen[-3:])) == 3
    assert seen[-3:] == seen[-6:-3]


def test_training_steps_of_the_search_draw_fresh_noise() -> None:
    surface = LossSurface(mlp(), pairs(), noisy(functional.dropout))
    theta = surface.point()[None]
    first, second = (surface.gradients(theta, pairs()[0])[1] for _ in range(2))
    assert not torch.equal(first, second)


def test_the_mean_over_noise_is_what_is_estimated() -> None:
    # E[(w + z)^2] = w^2 + 1 with z standard normal, here over 4 x 20,000 draws.
    module = nn.Linear(1, 1, bias=False)
    surface = LossSurface(module, [20_000] * 4, lambda m, size: (m.weight + torch.randn(size)).square().mean())
    values = surface.losses(torch.tensor([[0.0], [2.0]]))
    assert values.tolist() == pytest.approx([1.0, 5.0], abs=0.06)


def test_a_loss_without_noise_is_called_that() -> None:
    assert LossSurface(mlp(), pairs(), noisy(lambda x: x)).noise == "none"
