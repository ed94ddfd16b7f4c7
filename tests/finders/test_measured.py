"""A path from elsewhere is measured as a finder's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lightning_landscape import LossSurface, Path
from lightning_landscape.connection import level_above
from lightning_landscape.finders import LinearPath, measured

LEFT, TOP, RIGHT = torch.tensor([-1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])


def ring(scale: float = 1.0) -> LossSurface:
    """(|w| - 1)^2: minima on the unit circle, a hill of height 1 in the middle."""
    module = nn.Linear(2, 1, bias=False)
    return LossSurface(module, [None], loss_fn=lambda m, batch: scale * (m.weight.norm() - 1) ** 2, vectorize=False)


def test_a_detour_over_the_circle_is_below_the_hill() -> None:
    found = measured(ring(), Path(torch.stack([LEFT, TOP, RIGHT])), level=0.1)
    # Halfway between two points of the circle at right angles the norm is 1/sqrt(2).
    assert found.height == pytest.approx((1 - 0.5**0.5) ** 2, rel=1e-3)
    assert (found.connected, found.reason, found.num_beads, found.gradient_steps) == (True, None, 1, 0)
    assert found.linear_height == pytest.approx(1.0)
    assert found.normalized_length == pytest.approx(math.sqrt(2))


def test_a_straight_path_is_measured_as_the_linear_finder_measures_it() -> None:
    line = torch.stack([LEFT, RIGHT])
    mine = measured(ring(), line, margin=0.5).to_dict()
    theirs = LinearPath().connect(ring(), LEFT, RIGHT, margin=0.5).to_dict()
    for row in (mine, theirs):
        assert row["height"] == pytest.approx(1.0)
        assert (row["verdict"], row["reason"], row["num_beads"]) == ("not_found", "depth", 0)
    assert mine["level"] == theirs["level"]


@pytest.mark.parametrize(
    ("end", "level", "reason"),
    [(torch.tensor([3.0, 0.0]), 0.1, "endpoint"), (torch.tensor([math.nan, 0.0]), 0.1, "diverged")],
)
def test_ends_that_no_path_can_mend(end: Tensor, level: float, reason: str) -> None:
    found = measured(ring(), torch.stack([LEFT, TOP, end]), level=level)
    assert (str(found.verdict), found.reason) == ("not_found", reason)


def test_what_cannot_be_measured_is_refused() -> None:
    beads = torch.stack([LEFT, RIGHT])
    with pytest.raises(ValueError, match="points of 3 parameters and the surface has 2"):
        measured(ring(), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="level is NaN"):
        measured(ring(), beads, level=math.nan)
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        measured(ring(), beads, samples=0)
    with pytest.raises(ValueError, match="margin must be a finite number of at least 0, got -1"):
        measured(ring(), beads, margin=-1)


def test_a_level_needs_losses() -> None:
    assert level_above([2.0, -1.0], 0.25) == 2.5
    assert math.isnan(level_above([math.nan, 1.0], 0.1))
    with pytest.raises(ValueError, match="losses is empty"):
        level_above([], 0.1)


def test_a_budget_in_the_place_of_the_margin_is_an_error() -> None:
    with pytest.raises(TypeError, match="positional"):
        LinearPath().connect(ring(), LEFT, RIGHT, 0.1, 0.5)  # type: ignore[misc]
