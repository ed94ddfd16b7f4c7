"""Surfaces whose level sets are known in closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_landscape import Connection, LossSurface
from lightning_landscape.finders import DynamicStringSampling, PathFinder
from tests.finders.cases import (
    FINDERS,
    LEFT,
    LEVEL,
    RIGHT,
    class_name,
    each_searcher,
    reseeded,
    ring,
    surface_of,
    thick_ring,
    wells,
)


def tilted_ring(x: Tensor) -> Tensor:
    return ring(x) + 0.2 * x[1]


def fine_height(surface: LossSurface, found: Connection) -> float:
    """Height on an independent grid, three times finer than the one of the reported height."""
    assert found.path is not None
    t = torch.linspace(0, 1, 3 * len(found.profile.t) + 1, dtype=torch.float64)
    return surface.losses(found.path(t)).max().item()


@pytest.mark.parametrize("finder", [*FINDERS, DynamicStringSampling(split="midpoint")], ids=class_name)
@pytest.mark.parametrize("dimension", [1, 2, 50])
def test_a_quadratic_bowl_is_connected_by_the_straight_line(finder: Any, dimension: int) -> None:
    surface = surface_of(lambda x: (x.square() * torch.arange(1, dimension + 1)).sum(), dimension)
    generator = torch.Generator().manual_seed(dimension)
    for _ in range(5):
        start, end = torch.randn(2, dimension, generator=generator)
        found = finder.connect(surface, start, end)
        assert found.verdict == "connected"
        assert found.reason is None
        assert found.num_beads == 0
        assert found.gradient_steps == 0
        assert found.normalized_length == 1.0
        assert found.barrier <= 0
        assert found.linear_barrier == found.barrier
        assert found.height == found.linear_height == found.level == max(surface.loss(start), surface.loss(end))


def geodesic(level: float) -> float:
    """Length of the shortest path in {(|x|^2 - 1)^2 <= u} between opposite points of the unit circle.

    A string pulled tight around the hole of radius r0, r0^2 = 1 - sqrt(u): two tangents of length
    sqrt(1 - r0^2), and an arc of pi less the angle acos(r0) that each of them sees.
    """
    radius = math.sqrt(1 - math.sqrt(level))
    return 2 * math.sqrt(1 - radius**2) + radius * (math.pi - 2 * math.acos(radius))


@pytest.mark.parametrize("split", ["argmax", "midpoint"])
@pytest.mark.parametrize("seed", range(4))
def test_the_ring_is_connected_around_its_hole_by_almost_the_shortest_way(seed: int, split: Any) -> None:
    surface = surface_of(ring)
    angle = torch.tensor(0.7 * seed)
    start = torch.stack([angle.cos(), angle.sin()])
    found = DynamicStringSampling(seed=seed, split=split).connect(surface, start, -start, LEVEL)
    assert found.verdict == "connected"
    assert found.linear_height == pytest.approx(1.0)
    assert found.num_beads >= 1
    assert found.height <= LEVEL
    assert fine_height(surface, found) <= LEVEL + 1e-4
    # The path is certified at points, between which it may cut a corner of the hole by next to nothing.
    assert geodesic(LEVEL) * (1 - 1e-3) <= found.length <= geodesic(LEVEL) * 1.05
    assert found.normalized_length == pytest.approx(found.length / 2)


@each_searcher
@pytest.mark.parametrize("seed", range(2))
def test_every_finder_passes_around_the_hole_of_the_ring(finder: PathFinder, seed: int) -> None:
    surface = surface_of(thick_ring, 12)
    start = torch.zeros(12)
    start[0] = 1.0
    found = reseeded(finder, seed).connect(surface, start, -start, LEVEL)
    assert found.verdict == "connected"
    assert found.linear_height == pytest.approx(1.0)
    assert fine_height(surface, found) <= LEVEL + 1e-4
    assert geodesic(LEVEL) * (1 - 1e-3) <= found.length <= geodesic(LEVEL) * 1.05


def test_shortening_shortens_and_without_it_the_path_is_left_as_found() -> None:
    surface = surface_of(ring)
    left = DynamicStringSampling(shorten=0).connect(surface, LEFT, RIGHT, LEVEL)
    pulled = DynamicStringSampling().connect(surface, LEFT, RIGHT, LEVEL)
    assert left.verdict == pulled.verdict == "connected"
    assert pulled.length < left.length
    # Beads are trained below alpha u, and their segments cut across.
    assert left.gradient_steps == pulled.gradient_steps


@pytest.mark.parametrize("seed", range(4))
def test_the_tilted_ring_is_passed_on_its_lower_side(seed: int) -> None:
    # Near (0, 1) the best radius still has E = 0.1976, above the level: the upper side is closed.
    surface = surface_of(tilted_ring)
    found = DynamicStringSampling(seed=seed).connect(surface, LEFT, RIGHT, level=0.15)
    assert found.verdict == "connected"
    assert fine_height(surface, found) <= 0.15 + 1e-4
    assert found.path is not None
    assert found.path.beads[:, 1].min() < -0.5


def test_a_ring_in_many_dimensions() -> None:
    surface = surface_of(thick_ring, 30)
    start, end = torch.zeros(2, 30)
    start[0], end[0] = -1.0, 1.0
    found = DynamicStringSampling().connect(surface, start, end, LEVEL)
    assert found.verdict == "connected"
    assert geodesic(LEVEL) * (1 - 1e-3) <= found.length <= geodesic(LEVEL) * 1.05


@pytest.mark.parametrize("split", ["argmax", "midpoint"])
@pytest.mark.parametrize("level", [0.0, 0.25, 0.9, 0.999])
@pytest.mark.parametrize("seed", range(4))
def test_two_wells_with_a_saddle_of_1_are_never_connected_below_it(seed: int, level: float, split: Any) -> None:
    surface = surface_of(wells, 3)
    shift = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed)) * (0.2 if level > 0.5 else 0.0)
    start, end = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]]) + shift
    finder = DynamicStringSampling(seed=seed, split=split, max_bead_steps=100)
    found = finder.connect(surface, start, end, level)
    assert found.verdict == "not_found"
    assert found.reason in ("bead", "depth")
    # An upper bound of the minimax value, the saddle at x0 = 0, but for what a grid misses of a peak.
    assert 1.0 - 1e-4 <= found.height <= found.linear_height + 1e-3
    assert found.height <= 1.02


@each_searcher
@pytest.mark.parametrize("level", [0.0, 0.9, 0.999])
def test_no_finder_connects_two_wells_below_their_saddle(finder: PathFinder, level: float) -> None:
    surface = surface_of(wells, 3)
    shift = torch.randn(2, 3, generator=torch.Generator().manual_seed(1)) * (0.2 if level > 0.5 else 0.0)
    start, end = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]]) + shift
    found = finder.connect(surface, start, end, level)
    assert found.verdict == "not_found"
    assert found.reason in ("bead", "depth")
    assert 1.0 - 1e-4 <= found.height <= min(1.02, found.linear_height + 1e-3)


@pytest.mark.parametrize("level", [1.0, 1.02, 1.05])
def test_two_wells_are_connected_above_their_saddle(level: float) -> None:
    surface = surface_of(wells, 3)
    start, end = torch.tensor([[-1.0, 0.5, 0.2], [1.0, 0.5, -0.3]])
    if level == 1.0:
        start, end = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    found = DynamicStringSampling().connect(surface, start, end, level)
    assert found.verdict == "connected"
    assert (found.num_beads == 0) == (level == 1.0)


@pytest.mark.parametrize(("level", "verdict"), [(None, "not_found"), (0.5, "not_found"), (1.0, "connected")])
def test_a_double_well_on_the_line_has_no_way_around(level: float | None, verdict: str) -> None:
    found = DynamicStringSampling().connect(surface_of(wells, 1), torch.tensor([-1.0]), torch.tensor([1.0]), level)
    assert found.verdict == verdict
    assert found.height == pytest.approx(1.0)
    assert found.normalized_length == 1.0


POINTS = torch.tensor([[1.0, 0.0], [-0.5, 3**0.5 / 2], [-0.5, -(3**0.5) / 2]])
BARRIER = 1 / 6


class ThreeUnits(nn.Module):
    """The 2-3-2 ReLU network of Freeman & Bruna (2017), one hidden unit for each of three points."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.hidden.weight.copy_(POINTS[order])
            self.output.weight.copy_(POINTS[order].T)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.relu(self.hidden(x)))


def three_units(order: list[int]) -> LossSurface:
    def loss_fn(module: nn.Module, batch: Tensor) -> Tensor:
        return (module(batch) - batch).square().sum(dim=1).mean()

    return LossSurface(ThreeUnits(order), [POINTS], loss_fn, vectorize=False)


@pytest.mark.parametrize("level", [None, 0.01, 0.1, BARRIER - 1e-3])
@pytest.mark.parametrize("order", [[1, 0, 2], [0, 2, 1], [2, 1, 0]])
@pytest.mark.parametrize("seed", range(2))
def test_a_network_with_two_hidden_units_swapped_is_not_connected_to_itself(
    order: list[int], level: float | None, seed: int
) -> None:
    """The paper's negative control, with a proof that every path rises to 1/6.

    The three points x_i lie at 120 degrees, the targets are y_i = x_i, and E is the mean of ``|f(x_i) - y_i|^2``.
    Let H >= 0 hold the activation of unit j at point i, so that 3 E = ||V H - Y||^2 for the output weights V.

    1. At theta_a, H is the identity; with two units swapped it is a transposition. det H is continuous along a
       path and goes from 1 to -1: somewhere det H = 0.
    2. There the rows of H lie in a plane with unit normal n. Since Y Y^T = 3/2 I and the rows of Y span the
       vectors of sum zero, no V does better than ``3 E >= 3/2 (1 - (n . 1)^2 / 3)``.
    3. Rows are nonnegative, and n is orthogonal to one that is not zero, so that n cannot have entries of one
       strict sign: (n . 1)^2 <= 2. (If all rows are multiples of one h >= 0, ``3 E >= 2``.)

    Together E >= 1/6 at that point of every path.
    """
    surface = three_units([0, 1, 2])
    start, end = surface.point(), three_units(order).point()
    assert surface.loss(start) == pytest.approx(0, abs=1e-12)
    assert surface.loss(end) == pytest.approx(0, abs=1e-12)
    finder = DynamicStringSampling(seed=seed, max_bead_steps=150)
    found = finder.connect(surface, start, end, level)
    assert found.verdict == "not_found"
    assert found.reason in ("bead", "depth")
    assert found.height >= BARRIER
    assert found.height <= found.linear_height
    assert found.path is not None
    dets = torch.stack(
        [
            torch.linalg.det(torch.relu(surface.state(theta)["hidden.weight"] @ POINTS.T))
            for theta in found.path.resample(201).beads
        ]
    )
    assert dets[0] > 0.99
    assert dets[-1] < -0.99


@each_searcher
def test_no_finder_connects_a_network_to_itself_with_two_units_swapped(finder: PathFinder) -> None:
    surface = three_units([0, 1, 2])
    found = finder.connect(surface, surface.point(), three_units([1, 0, 2]).point(), BARRIER - 1e-3)
    assert found.verdict == "not_found"
    assert found.reason in ("bead", "depth")
    assert BARRIER <= found.height <= found.linear_height


def test_the_bound_of_the_negative_control_holds_wherever_the_determinant_vanishes() -> None:
    generator = torch.Generator().manual_seed(0)
    least = math.inf
    targets = POINTS.T.double()
    for _ in range(3000):
        rows = torch.rand(2, 3, generator=generator, dtype=torch.float64)
        rows *= torch.rand(2, 3, generator=generator) < 0.6
        activations = torch.cat([rows, (torch.rand(2, generator=generator, dtype=torch.float64) @ rows)[None]])
        projector = torch.linalg.pinv(activations) @ activations
        least = min(least, float((targets - targets @ projector).square().sum()) / 3)
    assert BARRIER <= least < 1.3 * BARRIER


@pytest.mark.parametrize("order", [[1, 2, 0], [2, 0, 1]])
def test_the_same_network_with_its_units_rotated_is_connected(order: list[int]) -> None:
    # A rotation keeps det H > 0: turning all three units together by 120 degrees costs nothing.
    surface = three_units([0, 1, 2])
    found = DynamicStringSampling().connect(surface, surface.point(), three_units(order).point(), level=0.1)
    assert found.verdict == "connected"
    assert found.linear_height > BARRIER
    assert fine_height(surface, found) <= 0.1 + 1e-3
