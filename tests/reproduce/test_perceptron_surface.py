"""The stacked surface of the small networks against the general one."""

from __future__ import annotations

import pytest
import torch

from lightning_landscape import LossSurface
from lightning_landscape.datamodules import PolynomialDataModule
from lightning_landscape.models import PolynomialRegressor
from lightning_landscape.surface.work import Work
from scripts.reproduce.freeman_bruna.perceptron_surface import PerceptronSurface
from scripts.reproduce.freeman_bruna.polynomials import CUBICS, QUADRATICS
from scripts.reproduce.freeman_bruna.task import Settings, Task


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", [(4, 4), (3,), (2, 3, 5)])
def test_losses_and_gradients_are_those_of_the_general_surface(bias: bool, hidden: tuple[int, ...]) -> None:
    module = PolynomialRegressor(hidden, bias=bias, output_sigmoid=not bias)
    batch = (torch.rand(20, 1), torch.rand(20, 1))
    stacked, general = PerceptronSurface(module, batch), LossSurface(module, [batch], vectorize=False)
    thetas = stacked.point() + torch.randn(5, stacked.dimension)
    torch.testing.assert_close(stacked.losses(thetas), general.losses(thetas), rtol=1e-6, atol=1e-7)
    for found, expected in zip(stacked.gradients(thetas, batch), general.gradients(thetas, batch), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert stacked.work == general.work == Work(gradient_steps=5, forward_passes=5, loss_evaluations=5)
    assert stacked.loss(thetas[0]) == pytest.approx(general.loss(thetas[0]), rel=1e-6)


@pytest.mark.parametrize(("task", "polynomial"), [(QUADRATICS, "quadratic"), (CUBICS, "cubic")])
def test_the_grid_stands_for_the_ten_thousand_random_points_of_the_scripts(task: Task, polynomial: str) -> None:
    problem = task.open(Settings())
    data = PolynomialDataModule(polynomial)
    data.setup()
    module = PolynomialRegressor(bias=task is CUBICS, output_sigmoid=task is QUADRATICS)
    fine = PerceptronSurface(module, tuple(column[:, None] for column in _midpoints(polynomial, 50_000)))
    drawn = PerceptronSurface(module, data.splits["test"].tensors)
    thetas = torch.stack([problem.initial() for _ in range(50)])
    exact = fine.losses(thetas)
    # The grid is off by a thousandth at most, the random points by about half of a per cent.
    assert ((problem.metric.losses(thetas) - exact).abs() / exact).max() < 1e-3
    assert 1e-3 < ((drawn.losses(thetas) - exact).abs() / exact).max() < 0.03


def _midpoints(polynomial: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    y = 0.5 * x**2 + 0.25 * x + 0.1 if polynomial == "quadratic" else 8 * x**3 - 10 * x**2 + 3 * x
    return x.float(), y.float()


def test_points_of_another_shape_are_refused() -> None:
    surface = QUADRATICS.open(Settings()).metric
    with pytest.raises(ValueError, match=r"expected parameters of shape \(K, 24\)"):
        surface.gradients(torch.zeros(3, 23), None)
