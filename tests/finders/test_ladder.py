"""The ladder: its order, its shared budget, and what it says of a permuted copy."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_landscape import Connection, LossSurface
from lightning_landscape.connection import Reason
from lightning_landscape.finders import (
    BezierCurve,
    Budget,
    DynamicStringSampling,
    Ladder,
    PathFinder,
    PolygonalChain,
)
from lightning_landscape.finders.chain import Chain, Segment
from lightning_landscape.finders.ladder import _aligned
from lightning_landscape.finders.search import Ledger, Search
from tests.cases.surfaces import mse
from tests.finders.cases import LEFT, RIGHT, network, regression, surface_of, trained, trained_pair

WIDTH, SIZE, STEPS = 8, 16, 120  # hidden units, points of a batch, steps of training
ORDER = torch.tensor([3, 1, 7, 0, 2, 5, 4, 6])


class Rung(PathFinder):
    """Goes through the given corners, and keeps what it was given."""

    def __init__(self, *corners: tuple[float, float], reason: Reason = Reason.BEAD, steps: int = 0) -> None:
        super().__init__()
        self.corners = torch.tensor(corners)
        self.reason = reason
        self.steps = steps
        self.calls: list[tuple[Chain, float]] = []

    def search(self, search: Search) -> tuple[Chain, Reason]:
        self.calls.append((search.chain, search.ledger.remaining))
        for _ in range(self.steps):
            search.surface.gradients(LEFT[None], None)
        if not len(self.corners):
            return search.chain, self.reason
        chain = search.chain.through(self.corners)
        chain.refine(search.surface, search.level)
        return chain, self.reason


def test_it_stops_at_the_first_rung_that_is_verified_and_goes_on_from_the_lowest_path() -> None:
    rungs = [Rung((0.0, 0.5)), Rung((0.0, 0.2)), Rung((0.0, 0.8)), Rung((0.0, 1.0)), Rung((0.0, 1.2))]
    found = Ladder(rungs=rungs).connect(surface_of(), LEFT, RIGHT, level=0.3)
    assert found.verdict == "connected"
    assert [len(rung.calls) for rung in rungs] == [1, 1, 1, 1, 0]
    starts = [rung.calls[0][0].beads()[1:-1].tolist() for rung in rungs[:4]]
    # The second was worse than the first, and is not what the third goes on from.
    assert torch.tensor(starts[1]).tolist() == torch.tensor(starts[2]).tolist() == [[0.0, 0.5]]
    assert starts[0] == []
    assert starts[3] == [[0.0, pytest.approx(0.8)]]


def test_without_success_the_lowest_path_of_all_rungs_is_returned_with_the_last_reason() -> None:
    rungs = [Rung((0.0, 0.5)), Rung((0.0, 0.8)), Rung((0.0, 0.2), reason=Reason.DIVERGED)]
    found = Ladder(rungs=rungs).connect(surface_of(), LEFT, RIGHT, level=0.01)
    assert (found.verdict, found.reason) == ("not_found", "diverged")
    assert found.path is not None
    assert found.path.beads[1].tolist() == pytest.approx([0.0, 0.8])
    assert found.height < found.linear_height


def test_a_rung_that_diverges_does_not_end_the_climb() -> None:
    rungs = [Rung(reason=Reason.DIVERGED), DynamicStringSampling()]
    assert Ladder(rungs=rungs).connect(surface_of(), LEFT, RIGHT, level=0.25).verdict == "connected"


def test_the_budget_is_shared_in_equal_parts_of_what_is_left() -> None:
    rungs = [Rung(steps=10), Rung(), Rung(steps=25), Rung()]
    Ladder(rungs=rungs).connect(surface_of(), LEFT, RIGHT, 0.25, budget=Budget(work=100))
    # The line and its crest take 11 evaluations of a third of a step, and 50 more are kept for the verification.
    left = 100 - 11 / 3 - 50 / 3
    shares = [left / 4, (left - 10) / 3, (left - 10) / 2, left - 35]
    assert [rung.calls[0][1] for rung in rungs] == pytest.approx(shares, abs=1)
    unlimited = [Rung(), Rung()]
    Ladder(rungs=unlimited).connect(surface_of(), LEFT, RIGHT, 0.25)
    assert [rung.calls[0][1] for rung in unlimited] == [math.inf, math.inf]
    late = [Rung(), Rung()]
    Ladder(rungs=late).connect(surface_of(), LEFT, RIGHT, 0.25, budget=Budget(max_seconds=0))
    assert [rung.calls[0][1] for rung in late] == [0, 0]


def test_the_line_comes_first_and_costs_no_gradient() -> None:
    rung = Rung()
    found = Ladder(rungs=[rung]).connect(surface_of(lambda x: x.square().sum()), LEFT, RIGHT)
    assert (found.verdict, found.num_beads, rung.calls) == ("connected", 0, [])


def test_the_rungs_by_default_and_none_at_all() -> None:
    assert [type(rung) for rung in Ladder().rungs] == [PolygonalChain, BezierCurve, DynamicStringSampling]
    with pytest.raises(ValueError, match="rungs is empty: give at least one finder"):
        Ladder(rungs=[])


def trained_module(*, norm: bool = False) -> nn.Sequential:
    return trained(network(1, WIDTH, norm=norm), regression(SIZE), STEPS)


def surface_over(module: nn.Module, **options: Any) -> LossSurface:
    return LossSurface(module, regression(SIZE), mse, vectorize=False, **options)


def permuted(module: nn.Sequential, order: Tensor) -> Tensor:
    """The point of a module whose hidden units were put into another order."""
    surface = surface_over(module)
    output = len(module) - 1
    state = surface.parameters(surface.point())
    for name in state:
        if name == f"{output}.weight":
            state[name] = state[name][:, order]
        elif name != f"{output}.bias":
            state[name] = state[name][order]
    return surface.point(state)


def test_a_permuted_copy_is_reached_by_standing_still_and_said_to_be_aligned() -> None:
    module = trained_module()
    surface = surface_over(module)
    start, end = surface.point(), permuted(module, ORDER)
    plain = Ladder(rungs=[Rung()]).connect(surface, start, end)
    assert (plain.verdict, plain.aligned) == ("not_found", False)
    found = Ladder(align=True, rungs=[Rung()]).connect(surface, start, end)
    assert (found.verdict, found.aligned, found.gradient_steps) == ("connected", True, 0)
    assert (found.length, found.normalized_length) == (0.0, 1.0)
    assert found.linear_height == plain.linear_height > found.level
    assert found.path is not None
    assert torch.equal(found.path.beads[-1], start)
    assert not torch.equal(found.path.beads[-1], end)
    assert Connection.from_dict(found.to_dict()).aligned
    old = {key: value for key, value in found.to_dict().items() if key != "aligned"}
    assert not Connection.from_dict(old).aligned


def test_a_path_to_the_copy_ends_in_a_point_of_the_same_loss_under_a_strict_level() -> None:
    surface, start, end = trained_pair(WIDTH, SIZE, STEPS)
    for first, last in ((start, end), (end, start)):
        found = Ladder(align=True).connect(surface, first, last)
        assert found.aligned
        assert found.path is not None
        copy = found.path.beads[-1]
        assert not torch.equal(copy, last)
        assert surface.loss(copy) == pytest.approx(surface.loss(last), rel=1e-5)
        assert sorted(copy.abs().tolist()) == pytest.approx(sorted(last.abs().tolist()))  # units may change sign
        assert (copy - first).norm() < (last - first).norm()
        # Rounding in the copy's loss is no reason to say that an endpoint lies above the level.
        assert found.loss_b == surface.loss(last)
        assert found.reason != "endpoint"
        assert found.height <= found.linear_height


def test_a_line_below_the_level_is_not_aligned() -> None:
    surface, start, end = trained_pair(WIDTH, SIZE, STEPS)
    found = Ladder(align=True).connect(surface, start, end, level=1e3)
    assert (found.verdict, found.aligned) == ("connected", False)
    assert found.path is not None
    assert torch.equal(found.path.beads[-1], end)


def test_a_copy_that_is_no_copy_is_refused() -> None:
    # Running statistics are no coordinates: frozen, they stay in the old order.
    module = trained_module(norm=True)
    end = permuted(module, ORDER)
    surface = surface_over(module, batch_norm="frozen")
    line = Segment(surface.point(), end)
    straight = Chain([line], line.length, 9)
    straight.sample(surface)
    running = Search(surface, 0.0, Ledger(surface, Budget()), line, straight, lambda *_: None)
    with pytest.raises(ValueError, match="which are therefore not one function"):
        _aligned(running)
    fresh = surface_over(module)
    assert Ladder(align=True, rungs=[Rung()]).connect(fresh, fresh.point(), end).verdict == "connected"
