"""Polygonal chains and Bezier curves: their coefficients, their minima in closed form, their polylines."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_landscape import LossSurface
from lightning_landscape.finders import BezierCurve, PolygonalChain
from lightning_landscape.finders.chain import Chain, Segment
from lightning_landscape.finders.curves import CurveFinder

KINDS: list[type[CurveFinder]] = [PolygonalChain, BezierCurve]
START, END = torch.tensor([1.0, 0.5]), torch.tensor([-0.6, 1.0])


def blocked(training_loss: Any) -> LossSurface:
    """E is 0 at the two ends and 1 elsewhere, so that no search ends early; bends are trained on another loss."""

    def loss(module: nn.Module, batch: str) -> Tensor:
        x = module.weight[0]
        if batch == "train":
            return training_loss(x)
        nearest = torch.minimum((x - START).norm(), (x - END).norm())
        return torch.where(nearest < 1e-6, 0.0, 1.0) + 0 * x.sum()

    module = nn.Linear(2, 1, bias=False)
    return LossSurface(module, ["probe"], loss, training_batches=["train"], vectorize=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bends", [1, 2, 3, 7])
def test_coefficients_are_a_partition_of_unity_that_keeps_straight_lines(kind: type[CurveFinder], bends: int) -> None:
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    weights = kind(bends).coefficients(t)
    assert weights.shape == (41, bends + 2)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(41, dtype=torch.float64))
    torch.testing.assert_close(weights @ torch.linspace(0, 1, bends + 2, dtype=torch.float64), t)
    torch.testing.assert_close(weights[[0, -1]], torch.eye(bends + 2, dtype=torch.float64)[[0, -1]])


def test_coefficients_are_those_of_the_paper() -> None:
    t = torch.tensor([0.1, 0.75])
    torch.testing.assert_close(BezierCurve(1).coefficients(t), torch.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], 1))
    torch.testing.assert_close(PolygonalChain(1).coefficients(t), torch.tensor([[0.8, 0.2, 0.0], [0.0, 0.5, 0.5]]))


@pytest.mark.parametrize(("kind", "share"), [(PolygonalChain, -1 / 4), (BezierCurve, -3 / 4)])
@pytest.mark.parametrize("draws", [1, 4])
def test_one_bend_minimises_the_mean_loss_of_a_bowl(kind: type[CurveFinder], share: float, draws: int) -> None:
    """For L = |x|^2 the bend solves ``w int c_1^2 + (a + b) int c_1 c_0 = 0``, c_0 and c_2 being mirror images.

    The integrals are 1/3 and 1/12 for hat functions, 2/15 and 1/10 for Bernstein's polynomials.
    """
    bends: list[Tensor] = []

    def optimizer(points: Any) -> torch.optim.Optimizer:
        bends.extend(points)
        return torch.optim.Adam(points, lr=0.02)

    finder = kind(1, draws=draws, max_steps=800, optimizer=optimizer)
    found = finder.connect(blocked(lambda x: x.square().sum()), START, END, 0.5)
    assert (found.verdict, found.reason, found.gradient_steps) == ("not_found", "bead", 800 * draws)
    torch.testing.assert_close(bends[0][0], share * (START + END), atol=0.06, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_follows_the_chain_rule(kind: type[CurveFinder]) -> None:
    """SGD by hand, with the gradient of the mean loss from autograd through the curve."""
    generator = torch.Generator().manual_seed(5)
    jitter = torch.randn(3, 2, generator=generator)
    draws = (torch.arange(2) + torch.rand(2, generator=generator)) / 2
    moved: list[Tensor] = []
    finder = kind(
        3,
        draws=2,
        max_steps=1,
        seed=5,
        optimizer=lambda points: moved.extend(points) or torch.optim.SGD(points, lr=0.1),
    )
    finder.connect(blocked(lambda x: (x**4).sum()), START, END, 0.5)
    line = torch.lerp(START, END, torch.tensor([[0.25], [0.5], [0.75]]))
    bends = (line + 1e-3 * (END - START).norm() / math.sqrt(2) * jitter).requires_grad_()
    points = finder.coefficients(draws) @ torch.cat([START[None], bends, END[None]])
    (gradient,) = torch.autograd.grad((points**4).sum(1).mean(), bends)
    torch.testing.assert_close(moved[0], bends - 0.1 * gradient)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bends", [1, 2, 4])
def test_a_curve_starts_through_equally_spaced_points_of_the_chain_before(kind: type[CurveFinder], bends: int) -> None:
    corner = torch.tensor([0.3, 2.0])
    chain = Chain([Segment(START, corner), Segment(corner, END)], 1.0, 9)
    finder = kind(bends)
    controls = finder.through(chain)
    t = torch.linspace(0, 1, bends + 2)
    on_chain = torch.stack([START, *(torch.zeros(2) for _ in range(bends)), END])
    lengths = [chain.segments[0].length, chain.segments[1].length]
    for i, share in enumerate(t.tolist()[1:-1], start=1):
        here = share * sum(lengths)
        on_chain[i] = (
            chain.segments[0].at(here / lengths[0])
            if here <= lengths[0]
            else chain.segments[1].at((here - lengths[0]) / lengths[1])
        )
    torch.testing.assert_close(finder.coefficients(t) @ controls, on_chain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bends", [1, 2, 5])
@pytest.mark.parametrize("size", [0.1, 1.0, 3.0])
def test_the_polyline_stays_close_to_its_bezier_curve(bends: int, size: float) -> None:
    finder = BezierCurve(bends)
    generator = torch.Generator().manual_seed(bends)
    for _ in range(10):
        controls = torch.lerp(torch.zeros(6), torch.ones(6), torch.linspace(0, 1, bends + 2)[:, None])
        controls[1:-1] += size * torch.randn(bends, 6, generator=generator)
        inner = finder.corners(controls)
        knots = torch.cat([torch.zeros(1), inner, torch.ones(1)]).double()
        corners = finder.coefficients(knots) @ controls.double()
        for left, right, start, end in zip(knots[:-1], knots[1:], corners[:-1], corners[1:], strict=True):
            t = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
            curve = finder.coefficients((left + (right - left) * t)[:, 0]) @ controls.double()
            gap = (curve - (start + (end - start) * t)).norm(dim=1).max()
            if len(inner) < 63:
                assert gap <= 0.005 * math.sqrt(6) * (1 + 1e-4)


def test_a_straight_bezier_curve_needs_one_corner() -> None:
    assert BezierCurve(2).corners(torch.linspace(0, 1, 4)[:, None]).tolist() == [0.5]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["bends", "draws", "max_steps"])
def test_counts_below_one_are_refused(kind: type[CurveFinder], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        kind(**{name: 0})
