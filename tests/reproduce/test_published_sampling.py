"""The search of the published scripts, its habits and its honest measurement."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam

from lightning_landscape import LossSurface, Verdict
from lightning_landscape.connection import Connection, Reason
from scripts.reproduce.freeman_bruna.published_sampling import PublishedSampling
from scripts.reproduce.freeman_bruna.task import Recipe

RECIPE = Recipe(1.1, 0.95, "midpoint", 20, lambda points: Adam(points, lr=0.02), 5, 5, 1000)
LEFT, RIGHT = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.01])


def surface_of(loss: object) -> LossSurface:
    return LossSurface(
        nn.Linear(2, 1, bias=False), [None], lambda module, batch: loss(module.weight[0]), vectorize=False
    )


def ring(point: Tensor) -> Tensor:
    return (point.norm() - 1) ** 2


def bowl(point: Tensor) -> Tensor:
    return point.square().sum()


def test_it_splits_until_every_segment_lies_below_the_level() -> None:
    found = PublishedSampling(RECIPE, target=0.02, max_steps=1000).connect(surface_of(ring), LEFT, RIGHT, level=0.05)
    assert found.accepted
    assert found.verdict is Verdict.CONNECTED
    assert found.reason is None
    assert found.num_beads == 3  # one in the middle of the arc, and one in either half: chords of 45 degrees
    assert found.height <= 0.05
    assert math.sqrt(2) < found.normalized_length < math.pi / 2
    assert found.linear_height == pytest.approx(1.0, abs=0.02)
    assert Connection.from_dict(found.to_dict()).height == found.height


def test_a_first_bead_is_trained_even_where_the_line_is_low() -> None:
    found = PublishedSampling(RECIPE, target=0.5, max_steps=100).connect(surface_of(bowl), LEFT, RIGHT, level=2.0)
    assert found.accepted
    assert found.num_beads == 1
    assert found.gradient_steps == RECIPE.bead_check


def test_a_bead_that_never_arrives_ends_the_search() -> None:
    found = PublishedSampling(RECIPE, target=-1.0, max_steps=12).connect(surface_of(ring), LEFT, RIGHT, level=0.05)
    assert not found.accepted
    assert (found.verdict, found.reason) == (Verdict.NOT_FOUND, Reason.BEAD)
    assert found.gradient_steps == 12


def test_depth_ends_the_search() -> None:
    finder = PublishedSampling(RECIPE, target=0.02, max_steps=1000, max_depth=1)
    found = finder.connect(surface_of(ring), LEFT, RIGHT, level=0.05)
    assert (found.accepted, found.reason, found.num_beads) == (False, Reason.DEPTH, 1)


def test_a_rise_between_the_grid_points_is_accepted_and_measured() -> None:
    def spike(point: Tensor) -> Tensor:
        return torch.exp(-((point[0] - 0.275) ** 2) / 1e-3)  # between the points of a grid of two

    coarse = dataclasses.replace(RECIPE, grid=2)
    found = PublishedSampling(coarse, target=0.5, max_steps=10).connect(surface_of(spike), LEFT, RIGHT, level=0.5)
    assert found.accepted
    assert found.verdict is Verdict.NOT_FOUND
    assert found.height > 0.5


@pytest.mark.parametrize(("split", "place"), [("midpoint", 0.5), ("argmax", 0.25)])
def test_later_beads_start_where_the_recipe_says(split: str, place: float, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[Tensor] = []

    def stay(surface: LossSurface, points: Tensor, *_: object) -> object:
        starts.extend(points)
        return type("Descended", (), {"points": points.clone(), "reached": torch.ones(len(points), dtype=torch.bool)})

    def peak(point: Tensor) -> Tensor:
        return torch.exp(-((point[0] - 0.25) ** 2) / 0.01)  # at t = 0.25 of the second half

    monkeypatch.setattr("scripts.reproduce.freeman_bruna.published_sampling.descend", stay)
    recipe = dataclasses.replace(RECIPE, split=split)
    finder = PublishedSampling(recipe, target=0.5, max_steps=10, max_depth=2)
    found = finder.connect(surface_of(peak), LEFT, torch.tensor([1.0, 0.0]), level=0.5)
    assert [float(point[0]) for point in starts] == pytest.approx([0.0, place])
    assert found.num_beads == 2
    assert found.normalized_length == pytest.approx(1.0)


def test_it_asks_for_a_level() -> None:
    with pytest.raises(ValueError, match=r"level is None: give slack \* threshold"):
        PublishedSampling(RECIPE, target=0.5, max_steps=10).connect(surface_of(bowl), LEFT, RIGHT)
