"""Dynamic string sampling: its options, its optimisers, and where it gives up."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, AdamW, RMSprop

from lightning_landscape.finders import Budget, DynamicStringSampling
from lightning_landscape.finders.beads import Bead
from lightning_landscape.finders.chain import Segment
from tests.finders.cases import LEFT, LEVEL, RIGHT, lbfgs, surface_of


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"alpha": 0.0}, r"alpha must lie in \(0, 1\], got 0.0"),
        ({"alpha": 1.02}, r"alpha must lie in \(0, 1\], got 1.02"),
        ({"alpha": math.nan}, r"alpha must lie in \(0, 1\], got nan"),
        ({"max_depth": 0}, "max_depth must be at least 1, got 0"),
        ({"max_bead_steps": 0}, "max_bead_steps must be at least 1, got 0"),
        ({"shorten": -1}, "shorten must be at least 0, got -1"),
        ({"split": "middle"}, "split must be 'argmax' or 'midpoint', got 'middle'"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DynamicStringSampling(**arguments)


@pytest.mark.parametrize("split", ["argmax", "midpoint"])
@pytest.mark.parametrize(
    "optimizer",
    [
        None,
        lambda points: SGD(points, lr=0.05, momentum=0.9),
        lambda points: AdamW(points, lr=0.05),
        lambda points: RMSprop(points, lr=0.05),
        lbfgs,
    ],
)
def test_beads_are_trained_by_any_optimiser(optimizer: Any, split: Any) -> None:
    found = DynamicStringSampling(optimizer=optimizer, split=split).connect(surface_of(), LEFT, RIGHT, LEVEL)
    assert found.verdict == "connected"
    assert found.num_beads >= 1


@pytest.mark.parametrize("alpha", [1.0, 0.98, 0.5, 0.01])
def test_any_share_of_the_level_may_be_the_target_of_beads(alpha: float) -> None:
    found = DynamicStringSampling(alpha=alpha).connect(surface_of(), LEFT, RIGHT, LEVEL)
    assert found.verdict == "connected"
    assert found.height <= LEVEL


@pytest.mark.parametrize("options", [{"max_depth": 1}, {"max_bead_steps": 5}], ids=str)
def test_depth_and_steps_share_out_a_search_and_the_next_round_goes_on(options: dict[str, int]) -> None:
    surface, finder = surface_of(), DynamicStringSampling(shorten=0, **options)
    ends = [finder.connect(surface, LEFT, RIGHT, 1e-3, budget=Budget(work)).height for work in (20, 60, 180, 540)]
    assert ends == sorted(ends, reverse=True)
    found = finder.connect(surface, LEFT, RIGHT, 1e-3)
    assert found.verdict == "connected"
    assert found.num_beads > 1


def test_without_a_budget_a_search_ends_where_a_round_takes_nothing_off() -> None:
    hasty = DynamicStringSampling(max_bead_steps=1).connect(surface_of(), LEFT, RIGHT, 1e-3)
    assert (hasty.verdict, hasty.reason) == ("not_found", "bead")


def test_a_bead_keeps_three_vectors_beside_its_optimiser_and_stays_in_its_hyperplane() -> None:
    segment = Segment(torch.full((50,), 2.0), torch.linspace(-1, 1, 50), {0.0: 1.0, 1.0: 1.0})
    bead = Bead(segment, 0.3, 0.0, 5, lambda points: SGD(points, lr=0.1))
    kept = [value for name, value in vars(bead).items() if isinstance(value, Tensor)]
    assert len(kept) == 3
    first = bead.point.clone()
    along = segment.end - segment.start
    bead.record(2.0)
    for number in range(20):
        bead.step(iter([(torch.tensor(1.0), torch.randn(50, generator=torch.Generator().manual_seed(number)))]))
        assert float((bead.point - segment.at(0.3)) @ along) == pytest.approx(0, abs=1e-4)
    assert float((first - bead.point).norm()) > 0.5
    for _ in range(6):
        bead.record(2.0)  # no progress at all: a false start
    assert torch.equal(bead.point, first)
