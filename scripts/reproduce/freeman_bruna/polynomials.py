"""The two regressions of a polynomial by a 1-4-4-1 network (scripts QUADRATICS.py and CUBICS.py)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Adam

from lightning_landscape.datamodules.polynomials import POLYNOMIALS
from lightning_landscape.finders import BezierCurve
from lightning_landscape.models import PolynomialRegressor
from scripts.reproduce.freeman_bruna.perceptron_surface import PerceptronSurface
from scripts.reproduce.freeman_bruna.task import Problem, Recipe, Settings, Task

GRID = 500  # midpoints of equal cells; the scripts draw 10,000 points at random, which is less exact

RECIPE = Recipe(
    slack=1.1,
    alpha=0.95,
    split="midpoint",
    grid=100,
    optimizer=lambda points: Adam(points, lr=1e-3, fused=True),
    network_check=5,
    bead_check=15,
    max_steps=60_000,
)

# Every batch holds all points, so that t is the only noise, and a low level leaves little room for it.
CURVE = BezierCurve(bends=5, draws=32, max_steps=10_000, optimizer=lambda bends: Adam(bends, lr=0.03))


def _problem(polynomial: str, bias: bool, settings: Settings) -> Problem:
    count = settings.probe or GRID
    x = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    y = sum(c * x**power for power, c in enumerate(reversed(POLYNOMIALS[polynomial])))
    assert isinstance(y, Tensor)

    def network() -> PolynomialRegressor:
        return PolynomialRegressor(bias=bias, output_sigmoid=not bias)

    surface = PerceptronSurface(network(), (x.float()[:, None], y.float()[:, None]))
    return Problem(lambda: surface.point(dict(network().named_parameters())), surface, surface, together=2)


def _task(name: str, polynomial: str, bias: bool) -> Task:
    return Task(
        name,
        "mean absolute error",
        recipe=lambda settings: RECIPE,
        open=lambda settings: _problem(polynomial, bias, settings),
        level=lambda threshold: threshold,
        strict_level=lambda threshold: threshold,
        curve=CURVE,
    )


QUADRATICS = _task("quadratics", "quadratic", bias=False)
CUBICS = _task("cubics", "cubic", bias=True)
