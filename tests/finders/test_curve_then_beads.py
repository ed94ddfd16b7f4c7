"""The default search: where it draws, how it steps, how little it looks, and that beads follow where a curve fails."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_landscape.finders import Budget, CurveThenBeads, default_finder
from lightning_landscape.finders.loss_profile import LossProfile
from lightning_landscape.finders.tempered_adam import TemperedAdam, relative_tempered_adam
from tests.finders.cases import LEFT, LEVEL, RIGHT, ring, surface_of, trained_pair, wells


def profile(seed: int = 0) -> LossProfile:
    return LossProfile(torch.Generator().manual_seed(seed))


def shares(losses: LossProfile, draws: int = 4000) -> Tensor:
    """How often each of 20 bins is drawn."""
    drawn = torch.cat([losses.draw() for _ in range(draws)])
    assert 0 <= drawn.min() <= drawn.max() < 1
    return torch.histc(drawn, 20, 0, 1) / draws


@pytest.mark.parametrize(("shift", "weights"), [(0.0, (1.0, 3.0)), (-4.0, (0.0, 2.0))])
def test_t_is_drawn_in_proportion_to_the_loss_four_times_out_of_five(
    shift: float, weights: tuple[float, float]
) -> None:
    losses = profile()
    for place in range(20):
        losses.note((place + 0.5) / 20, (3.0 if place == 7 else 1.0) + shift)
    # Where losses are negative, it is their height over the lowest.
    expected = torch.full((20,), weights[0])
    expected[7] = weights[1]
    torch.testing.assert_close(shares(losses), 0.2 / 20 + 0.8 * expected / expected.sum(), atol=0.03, rtol=0)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_where_losses_give_no_proportion_t_is_drawn_evenly(value: float) -> None:
    losses = profile()
    for place in range(20):
        losses.note((place + 0.5) / 20, value)
    torch.testing.assert_close(shares(losses), torch.full((20,), 0.05), atol=0.02, rtol=0)


def test_bins_that_were_never_met_count_as_the_highest() -> None:
    losses = profile()
    losses.note(0.0, 0.5)
    losses.note(1.0, 2.0)
    assert (losses.at(0.01), losses.at(0.5), losses.at(0.99)) == (0.5, 2.0, 2.0)
    losses.note(0.01, 1.5)
    assert losses.at(0.0) == pytest.approx(0.8)


@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e12])
def test_tempered_steps_do_not_depend_on_the_scale_of_the_loss(factor: float) -> None:
    point = torch.zeros(3)
    optimizer = TemperedAdam([point], lr=0.1)
    for gradient in ([3.0, 4.0, 0.0], [3.0, 4.0, 0.0]):
        point.grad = factor * torch.tensor(gradient)
        optimizer.step()
    # v = (9, 16, 0), mean 25 / 3; two equal steps of lr g / sqrt((v + mean v) / 2).
    expected = [-0.2 * g / math.sqrt((g * g + 25 / 3) / 2) for g in (3.0, 4.0, 0.0)]
    assert point.tolist() == pytest.approx(expected, rel=1e-5)


def test_tempered_steps_rest_without_a_gradient() -> None:
    still, flat = torch.ones(2), torch.ones(2)
    flat.grad = torch.zeros(2)
    optimizer = relative_tempered_adam(1.0, 4)([still, flat])
    assert optimizer.step(lambda: 7.0) == 7.0
    assert still.tolist() == flat.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bends": 0}, "bends must be at least 1, got 0"),
        ({"pieces": 1}, "pieces must be at least 2, got 1"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"shorten": -1}, "shorten must be at least 0, got -1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CurveThenBeads(**arguments)


def test_it_is_the_default() -> None:
    assert isinstance(default_finder(), CurveThenBeads)


@pytest.mark.parametrize("seed", range(3))
def test_beads_go_on_where_a_curve_of_one_bend_cannot_pass(seed: int) -> None:
    # A wall with a gap on the upper side, and one with a gap on the lower side.
    def zigzag(x: Tensor) -> Tensor:
        first = torch.exp(-(((x[0] + 0.4) / 0.15) ** 2)) * (1 - torch.exp(-(((x[1] - 1) / 0.7) ** 2)))
        second = torch.exp(-(((x[0] - 0.4) / 0.15) ** 2)) * (1 - torch.exp(-(((x[1] + 1) / 0.7) ** 2)))
        return first + second

    surface = surface_of(zigzag)
    found = CurveThenBeads(bends=1, seed=seed).connect(surface, LEFT, RIGHT, 0.3)
    assert found.verdict == "connected"
    assert found.path is not None
    assert surface.losses(found.path(torch.linspace(0, 1, 2001, dtype=torch.float64))).max() <= 0.3 + 1e-4
    at_walls = found.path(torch.linspace(0, 1, 2001, dtype=torch.float64))
    for wall, side in ((-0.4, 1), (0.4, -1)):
        passing = at_walls[(at_walls[:, 0] - wall).abs().argmin(), 1]
        # Where 1 - exp(-((y - 1) / 0.7)^2) = 0.3, the edge of the gap: 1 - 0.7 sqrt(-log 0.7).
        assert side * float(passing) >= 1 - 0.7 * math.sqrt(-math.log(0.7)) - 1e-2


def test_most_of_what_a_hopeless_search_spends_are_steps() -> None:
    found = CurveThenBeads().connect(surface_of(wells), LEFT, RIGHT, 0.9, budget=Budget(600))
    assert found.verdict == "not_found"
    assert found.gradient_steps > 0.7 * found.work


def test_heights_fall_with_the_budget() -> None:
    surface, start, end = trained_pair()
    level = 1.02 * max(surface.loss(start), surface.loss(end))
    budgets = (40, 160, 640, 2560)
    found = [CurveThenBeads().connect(surface, start, end, level, budget=Budget(work)) for work in budgets]
    excess = [max(0.0, each.height - level) for each in found]
    assert excess == sorted(excess, reverse=True)
    assert excess[0] > excess[-1] == 0


def test_a_loss_that_is_negative_everywhere_is_searched_alike() -> None:
    above = CurveThenBeads(shorten=0).connect(surface_of(), LEFT, RIGHT, LEVEL)
    below = CurveThenBeads(shorten=0).connect(surface_of(lambda x: ring(x) - 8), LEFT, RIGHT, LEVEL - 8)
    assert above.verdict == below.verdict == "connected"
    assert below.height == pytest.approx(above.height - 8, abs=0.1)
