"""The elastic band and the string: forces, tangents, spacing, and a saddle that is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_landscape.finders import AutoNEB, PathFinder, SimplifiedString
from lightning_landscape.finders.auto_neb import _deviation, _tangents
from lightning_landscape.finders.chain import Segment
from lightning_landscape.finders.simplified_string import _reflect, _respaced
from tests.finders.cases import LEFT, RIGHT, surface_of


def bent_wells(x: Tensor) -> Tensor:
    """Minima at (-1, 0) and (1, 0), joined by the valley y = 1 - x^2 over a saddle of height 1 at (0, 1)."""
    return (x[0].square() - 1) ** 2 + 4 * (x[1] - 1 + x[0].square()) ** 2


@pytest.mark.parametrize(
    "finder", [AutoNEB(), AutoNEB(stiffness=0.5), SimplifiedString(), SimplifiedString(beads=8, climb_after=0.4)]
)
def test_the_height_of_a_band_tends_to_the_saddle(finder: PathFinder) -> None:
    found = finder.connect(surface_of(bent_wells), LEFT, RIGHT, level=0.5)
    assert (found.verdict, found.reason in ("depth", "bead")) == ("not_found", True)
    assert found.linear_height == pytest.approx(5.0, abs=0.01)
    assert 1.0 - 1e-4 <= found.height <= 1.02
    assert found.path is not None
    x, y = found.path.resample(50).beads.T
    assert (y - 1 + x.square()).abs().max() < 0.12  # in the valley all the way


def test_the_climbing_bead_ends_on_the_saddle() -> None:
    # An odd number of beads would lie on it by symmetry.
    ends = LEFT, torch.tensor([1.15, -0.3])
    heights = {}
    for share in (0.4, 1.0):
        finder = SimplifiedString(beads=4, climb_after=share)
        found = finder.connect(surface_of(bent_wells), *ends, level=0.9)
        heights[share] = found.height
        assert found.path is not None
        if share == 0.4:
            assert (found.path.beads - torch.tensor([0.0, 1.0])).norm(dim=1).min() < 0.03
    assert 1.0 - 1e-4 <= heights[0.4] <= 1.01
    assert heights[0.4] <= heights[1.0]


def test_a_gradient_is_turned_around_along_a_direction_alone() -> None:
    gradient = torch.tensor([3.0, 4.0])
    _reflect(gradient, torch.tensor([0.0, 7.0]))
    assert gradient.tolist() == [3.0, -4.0]
    _reflect(gradient, torch.zeros(2))  # two neighbours in one place have no direction
    assert gradient.tolist() == [3.0, -4.0]


def test_a_string_is_spaced_equally_on_either_side_of_its_climber() -> None:
    string = torch.tensor([[0.0], [1.0], [1.5], [4.0], [5.5], [6.0]])
    torch.testing.assert_close(_respaced(string, None), torch.linspace(0, 6, 6)[:, None])
    torch.testing.assert_close(_respaced(string, 2), torch.tensor([[0.0], [4 / 3], [8 / 3], [4.0], [5.0], [6.0]]))
    torch.testing.assert_close(_respaced(string, 0)[:3], torch.tensor([[0.0], [1.0], [2.25]]))


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.0, 1.0, 2.0], [0.0, 1.0]),  # uphill: to the neighbour ahead
        ([2.0, 1.0, 0.0], [1.0, 0.0]),  # downhill: from the one behind
        ([0.0, 2.0, 1.0], [1.0, 2.0]),  # a maximum, higher ahead: rises 2 and 1
        ([1.0, 2.0, 0.0], [2.0, 1.0]),
        ([2.0, 0.0, 1.0], [2.0, 1.0]),
        ([1.0, 1.0, 1.0], [1.0, 1.0]),
        ([0.0, 0.0, 1.0], [0.0, 1.0]),
    ],
)
def test_tangents_point_to_the_higher_neighbour(losses: list[float], expected: list[float]) -> None:
    band = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])  # steps along the two axes
    direction = torch.tensor(expected)
    torch.testing.assert_close(_tangents(band, torch.tensor(losses)), (direction / direction.norm())[None])


def test_a_band_collapsed_to_a_point_has_no_tangent_and_no_nan() -> None:
    assert _tangents(torch.ones(4, 3), torch.tensor([0.0, 1.0, 2.0, 0.0])).tolist() == [[0.0] * 3] * 2


def test_the_spring_spaces_pivots_equally_where_there_is_no_gradient() -> None:
    band = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.2, 0.0], [0.9, 0.0], [1.0, 0.0]])
    surface = surface_of(lambda x: 0 * x.sum())
    finder = AutoNEB(stiffness=0.5)
    search: Any = type("Running", (), {"surface": surface, "line": Segment(band[0], band[-1], {0.0: 0.0, 1.0: 0.0})})
    optimizer = torch.optim.Adam([band[1:-1]], lr=0.1)
    assert finder._step(search, band, optimizer, None).isfinite().all()
    # Half of half the difference of the distances ahead and behind.
    torch.testing.assert_close(band[1:-1, 0], torch.tensor([0.1, 0.35, 0.75]))
    for _ in range(60):
        finder._step(search, band, optimizer, None)
    torch.testing.assert_close(band[:, 0], torch.linspace(0, 1, 5), atol=1e-4, rtol=0)


def test_pivots_move_across_the_band_only() -> None:
    band = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    surface = surface_of(lambda x: 3 * x[0] + x[1])
    search: Any = type("Running", (), {"surface": surface, "line": Segment(band[0], band[-1], {0.0: 0.0, 1.0: 6.0})})
    AutoNEB()._step(search, band, torch.optim.SGD([band[1:-1]], lr=0.5), None)
    torch.testing.assert_close(band[1], torch.tensor([1.0, -0.5]))


def test_a_segment_deviates_where_it_rises_most_above_its_ends() -> None:
    segment = Segment(LEFT, RIGHT, {0.0: 0.0, 0.25: 2.0, 0.75: 3.0, 1.0: 4.0})
    assert _deviation(segment) == (0.25, 1.0)
    segment.losses[0.5] = float("nan")
    assert _deviation(segment)[0] == 0.5


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (AutoNEB, {"cycles": 0}, "cycles must be at least 1, got 0"),
        (AutoNEB, {"steps": 0}, "steps must be at least 1, got 0"),
        (AutoNEB, {"decay": 0.0}, r"decay must lie in \(0, 1\], got 0.0"),
        (AutoNEB, {"stiffness": 1.5}, r"stiffness must lie in \(0, 1\], got 1.5"),
        (AutoNEB, {"insert_above": -0.1}, "insert_above must be at least 0, got -0.1"),
        (SimplifiedString, {"beads": 0}, "beads must be at least 1, got 0"),
        (SimplifiedString, {"max_steps": 0}, "max_steps must be at least 1, got 0"),
        (SimplifiedString, {"climb_after": 1.1}, r"climb_after must lie in \[0, 1\], got 1.1"),
    ],
)
def test_arguments_out_of_range_are_refused(kind: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**arguments)
