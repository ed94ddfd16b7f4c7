"""Averages on surfaces whose best mean is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lightning_landscape import LossSurface
from lightning_landscape.averaging import Advice, average
from lightning_landscape.path import Path


def surface(loss: str = "bowl") -> LossSurface:
    """E(x, y): a bowl around 0, or a valley along the circle of radius 1."""

    def bowl(module: nn.Module, batch: None) -> Tensor:
        return 0.1 + module.weight[0].square() + module.weight[1].square()

    def ring(module: nn.Module, batch: None) -> Tensor:
        return 0.1 + (module.weight.norm() - 1).square()

    return LossSurface(nn.Linear(1, 2, bias=False), [None], loss_fn=bowl if loss == "bowl" else ring)


def points(*pairs: tuple[float, float]) -> list[Tensor]:
    return [torch.tensor(pair) for pair in pairs]


def test_two_sides_of_a_bowl_average_to_its_middle() -> None:
    found = average(surface(), points((1, 0), (-1, 0)))
    assert found.theta.tolist() == [0.0, 0.0]
    assert (found.chosen.method, found.chosen.weights) == ("uniform", (0.5, 0.5))
    assert found.losses == pytest.approx((1.1, 1.1))
    assert found.chosen.loss == pytest.approx(0.1)
    assert found.advice is Advice.AVERAGE


def test_two_sides_of_a_ring_are_advised_against() -> None:
    found = average(surface("ring"), points((1, 0), (-1, 0)))
    assert found.chosen.loss == pytest.approx(1.1)
    assert found.advice is Advice.AGAINST


def test_greedy_takes_what_helps_in_the_order_of_the_scores() -> None:
    given = points((5, 5), (0.3, 0), (-0.4, 0), (0, 0.6))
    found = average(surface(), given, method="greedy")
    # The best first, then -0.4, which takes the mean to -0.05; (0, 0.6) and (5, 5) raise the loss.
    assert found.chosen.members == [1, 2]
    assert found.theta.tolist() == pytest.approx([-0.05, 0.0])
    assert found.advice is Advice.AVERAGE
    assert average(surface(), given).chosen == found.chosen  # and so it is the best of all


def test_greedy_that_keeps_one_alone_averages_nothing() -> None:
    found = average(surface("ring"), points((1, 0), (-1, 0)), method="greedy")
    assert not found.chosen.mixes
    assert found.advice is Advice.BEST_ALONE


def test_the_best_point_of_a_path_around_the_ring() -> None:
    ends = points((1, 0), (-1, 0))
    path = Path(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    found = average(surface("ring"), ends, "path", path=path)
    assert found.chosen.t == 0.5
    assert found.theta.tolist() == pytest.approx([0.0, 1.0])
    assert found.advice is Advice.AVERAGE
    assert found.uniform.loss == pytest.approx(1.1)
    assert average(surface("ring"), ends, path=path).chosen == found.chosen


def test_what_is_not_finite_is_left_out_by_the_greedy_average_and_spoils_the_uniform_one() -> None:
    given = points((0.2, 0), (math.nan, 0), (-0.2, 0))
    assert average(surface(), given, method="uniform").advice is Advice.AGAINST
    found = average(surface(), given)
    assert found.chosen.members == [0, 2]
    assert found.advice is Advice.AVERAGE
    assert average(surface(), points((math.nan, 0), (math.nan, 0))).advice is Advice.AGAINST


def test_scores_decide_and_not_the_training_loss() -> None:
    given = points((1, 0), (-1, 0))
    found = average(surface(), given, score=lambda theta: 5.0, scores=[1.0, 2.0])
    assert (found.scores, found.chosen.score, found.advice) == ((1.0, 2.0), 5.0, Advice.AGAINST)


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (1, {}, "at least two points, got 1"),
        (2, {"method": "median"}, "best, uniform, greedy, path, got 'median'"),
        (2, {"method": "path"}, "needs path="),
        (2, {"scores": [1.0]}, "one for each of the 2 points, got 1"),
    ],
)
def test_what_makes_no_average_is_refused(count: int, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        average(surface(), points((0, 0), (1, 0))[:count], **options)
