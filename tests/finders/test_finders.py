"""Budgets, counts and attacks on the finders."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer, RMSprop

from lightning_landscape import Connection, LossSurface
from lightning_landscape.finders import (
    AutoNEB,
    BezierCurve,
    Budget,
    DynamicStringSampling,
    Ladder,
    LinearPath,
    PathFinder,
    PolygonalChain,
    SimplifiedString,
)
from lightning_landscape.finders.chain import Chain, Segment

LEVEL = 0.25
LEFT, RIGHT = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0])
SEARCHERS = [
    DynamicStringSampling(),
    PolygonalChain(max_steps=300),
    BezierCurve(bends=3, draws=4, max_steps=300),
    AutoNEB(steps=40),
    SimplifiedString(max_steps=100),
    Ladder(rungs=[PolygonalChain(max_steps=100), BezierCurve(max_steps=100), DynamicStringSampling()]),
]
FINDERS = [LinearPath(), *SEARCHERS]


def ring(x: Tensor) -> Tensor:
    return (x.square().sum() - 1) ** 2


def surface_of(energy: Callable[[Tensor], Tensor] = ring, **arguments: Any) -> LossSurface:
    module = nn.Linear(2, 1, bias=False)
    return LossSurface(module, [None], lambda module, batch: energy(module.weight[0]), vectorize=False, **arguments)


def row(found: Connection) -> dict[str, Any]:
    return {key: value for key, value in found.to_dict().items() if key != "seconds"}


def lbfgs(points: Iterable[Tensor]) -> Optimizer:
    return torch.optim.LBFGS(points, lr=0.1, max_iter=4)


def network(seed: int, middle: int = 6) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, middle), nn.Tanh(), nn.Linear(middle, 1))


def regression() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 8, 2, generator=generator)
    return [(part, (part[:, :1] * part[:, 1:]).tanh()) for part in x]


def mse(module: nn.Module, batch: Any) -> Tensor:
    return nn.functional.mse_loss(module(batch[0]), batch[1])


def trained_pair() -> tuple[LossSurface, Tensor, Tensor]:
    """Two networks of one architecture, trained a little from two initialisations."""
    points = []
    for seed in (1, 2):
        module = network(seed)
        optimizer = torch.optim.Adam(module.parameters(), 0.02)
        for batch in itertools.islice(itertools.cycle(regression()), 60):
            optimizer.zero_grad()
            mse(module, batch).backward()
            optimizer.step()
        surface = LossSurface(module, regression(), mse, vectorize=False)
        points.append(surface.point())
    return surface, points[0], points[1]


@pytest.mark.parametrize("value", [-1.0, -1e-9, math.nan, -math.inf])
@pytest.mark.parametrize("name", ["work", "max_seconds"])
def test_a_negative_budget_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 0 or None for no limit, got"):
        Budget(**{name: value})


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


@pytest.mark.parametrize("finder", FINDERS)
def test_endpoints_of_another_shape_are_refused(finder: PathFinder) -> None:
    surface = surface_of()
    with pytest.raises(ValueError, match=r"theta_a has shape \(3,\) and the surface has 2 parameters"):
        finder.connect(surface, torch.zeros(3), RIGHT)
    with pytest.raises(ValueError, match=r"theta_b has shape \(1, 2\) and the surface has 2 parameters"):
        finder.connect(surface, LEFT, RIGHT[None])


@pytest.mark.parametrize("finder", FINDERS)
def test_a_level_that_is_nan_is_refused(finder: PathFinder) -> None:
    with pytest.raises(ValueError, match="level is NaN: give a number, or None"):
        finder.connect(surface_of(), LEFT, RIGHT, level=math.nan)


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("level", [None, 0.0, 1.0])
def test_identical_endpoints_are_connected_by_standing_still(finder: PathFinder, level: float | None) -> None:
    found = finder.connect(surface_of(), LEFT, LEFT.clone(), level)
    assert found.verdict == "connected"
    assert (found.length, found.normalized_length, found.num_beads) == (0.0, 1.0, 0)
    assert found.barrier == found.linear_barrier == 0.0
    assert found.height == found.loss_a == found.loss_b


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("level", [0.5, -1.0, -math.inf])
def test_a_level_below_an_endpoint_ends_at_once(finder: PathFinder, level: float) -> None:
    found = finder.connect(surface_of(), torch.zeros(2), RIGHT, level)
    assert (found.verdict, found.reason) == ("not_found", "endpoint")
    assert found.gradient_steps == 0
    assert found.height == found.linear_height == 1.0


@pytest.mark.parametrize("finder", FINDERS)
def test_every_finite_path_is_below_an_infinite_level(finder: PathFinder) -> None:
    found = finder.connect(surface_of(), LEFT, RIGHT, math.inf)
    assert found.verdict == "connected"
    assert (found.num_beads, found.gradient_steps, found.height) == (0, 0, 1.0)
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("margin", [0.0, 0.05, 2.0])
def test_the_default_level_is_the_larger_end_loss_and_a_margin(margin: float) -> None:
    surface = surface_of()
    low, high = torch.tensor([0.9, 0.0]), torch.tensor([1.2, 0.0])
    found = LinearPath().connect(surface, low, high, margin=margin)
    assert found.level == pytest.approx((1 + margin) * surface.loss(high))
    assert (found.loss_a, found.loss_b) == (surface.loss(low), surface.loss(high))


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=f"margin must be a finite number of at least 0, got {margin}"):
        LinearPath().connect(surface_of(), LEFT, RIGHT, margin=margin)


def test_a_margin_raises_a_negative_level() -> None:
    found = LinearPath().connect(surface_of(lambda x: ring(x) - 2), LEFT, RIGHT, margin=0.1)
    assert found.level == pytest.approx(-1.8)
    assert found.height == pytest.approx(-1.0)
    assert found.barrier == pytest.approx(1.0)


def strip(value: float) -> Callable[[Tensor], Tensor]:
    """The ring, with a strip around the axis where E is ``value``: no path avoids it."""
    return lambda x: torch.where(x[0].abs() < 0.3, torch.tensor(value), ring(x))


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("level", [LEVEL, 1e9, None])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_on_the_way_never_connects(
    finder: PathFinder, value: float, level: float | None
) -> None:
    found = finder.connect(surface_of(strip(value)), LEFT, RIGHT, level)
    assert found.verdict == "not_found"
    assert found.reason == "diverged"
    assert not found.height <= 1e9
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["height"] is None


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("level", [LEVEL, None, math.inf])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_at_an_endpoint_never_connects(
    finder: PathFinder, value: float, level: float | None
) -> None:
    surface = surface_of(lambda x: torch.where(x[0] < -0.9, torch.tensor(value), ring(x)))
    for start, end in ((LEFT, RIGHT), (RIGHT, LEFT)):
        found = finder.connect(surface, start, end, level)
        assert (found.verdict, found.reason) == ("not_found", "diverged")
        assert found.gradient_steps == 0
        json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("finder", SEARCHERS)
def test_gradients_that_are_nan_end_the_search_as_diverged(finder: PathFinder) -> None:
    def bad_slope(x: Tensor) -> Tensor:
        return ring(x) + (0 * x[0].abs()).sqrt()  # adds 0, with the derivative 0 / 0

    found = finder.connect(surface_of(bad_slope), LEFT, RIGHT, LEVEL)
    assert (found.verdict, found.reason) == ("not_found", "diverged")
    assert found.height == pytest.approx(1.0)
    assert found.path is not None
    assert found.path.beads.isfinite().all()


@pytest.mark.parametrize(
    "kind",
    [DynamicStringSampling, PolygonalChain, BezierCurve, AutoNEB, SimplifiedString],
    ids=lambda kind: kind.__name__,
)
def test_an_optimiser_that_explodes_ends_as_diverged_or_stuck_with_a_finite_path(kind: Any) -> None:
    finder = kind(optimizer=lambda points: SGD(points, lr=1e12))
    found = finder.connect(surface_of(), LEFT, RIGHT, LEVEL)
    assert found.verdict == "not_found"
    assert found.reason in ("diverged", "bead", "depth")
    assert found.height <= found.linear_height
    assert found.path is not None
    assert found.path.beads.isfinite().all()


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("budget", [Budget(work=0), Budget(max_seconds=0), Budget(0, 0)])
def test_without_a_budget_the_line_is_still_measured(finder: PathFinder, budget: Budget) -> None:
    found = finder.connect(surface_of(), LEFT, RIGHT, LEVEL, budget=budget)
    assert found.verdict == "not_found"
    assert found.reason == ("depth" if isinstance(finder, LinearPath) else "budget")
    assert found.gradient_steps == 0
    assert found.linear_height == 1.0
    assert 0.999 < found.height <= 1.0
    near = finder.connect(surface_of(), LEFT, LEFT + 1e-3, LEVEL, budget=budget)
    assert (near.verdict, near.num_beads) == ("connected", 0)


def test_a_budget_that_runs_out_among_the_steps_of_a_bead() -> None:
    surface = surface_of(lambda x: ring(x) + 3 * x[1].square())  # no way below 1
    finder = DynamicStringSampling(optimizer=lambda points: SGD(points, lr=1e-4))
    whole = finder.connect(surface, LEFT, RIGHT, LEVEL)
    assert whole.reason == "bead"
    for work in (15, 20, 25.5):
        found = finder.connect(surface, LEFT, RIGHT, LEVEL, budget=Budget(work=work))
        assert (found.verdict, found.reason) == ("not_found", "budget")
        assert 0 < found.gradient_steps <= work < whole.gradient_steps


@pytest.mark.parametrize("finder", SEARCHERS)
@pytest.mark.parametrize("work", [10, 30, 60, 100, 200, 400])
def test_what_is_spent_beyond_the_budget_is_the_measurement_of_the_result(finder: PathFinder, work: float) -> None:
    surface, start, end = trained_pair()
    level = 1.2 * max(surface.loss(start), surface.loss(end))
    found = finder.connect(surface, start, end, level, budget=Budget(work=work))
    assert found.gradient_steps <= work
    # Two rounds of search and of shortening may have begun when the budget ends; the profiles are measured whole.
    measured = (len(found.profile.t) + len(found.linear_profile.t)) * surface.evaluation_passes / 3
    assert found.work <= work + 4 * measured


@pytest.mark.parametrize("energy", ["ring", "network"])
def test_a_larger_budget_finds_no_worse_a_path(energy: str) -> None:
    if energy == "ring":
        surface, start, end, level = surface_of(), LEFT, RIGHT, LEVEL
    else:
        surface, start, end = trained_pair()
        level = 1.2 * max(surface.loss(start), surface.loss(end))
    finder = DynamicStringSampling()
    rows = [finder.connect(surface, start, end, level, budget=Budget(work)) for work in (0, 20, 40, 80, 160, 320, 640)]
    rows.append(finder.connect(surface, start, end, level))
    # Above the level, work lowers the path; below it, work shortens the path, up to the level.
    excess = [max(0.0, found.height - level) for found in rows]
    assert excess == sorted(excess, reverse=True)
    assert excess[0] > excess[-1] == 0.0
    assert rows[-1].verdict == "connected"


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


def test_a_search_ends_at_its_depth_and_at_the_steps_of_a_bead() -> None:
    shallow = DynamicStringSampling(max_depth=1).connect(surface_of(), LEFT, RIGHT, 1e-3)
    assert (shallow.verdict, shallow.reason, shallow.num_beads) == ("not_found", "depth", 1)
    assert shallow.height < shallow.linear_height
    hasty = DynamicStringSampling(max_bead_steps=1).connect(surface_of(), LEFT, RIGHT, 1e-3)
    assert (hasty.verdict, hasty.reason) == ("not_found", "bead")


@pytest.mark.parametrize("finder", SEARCHERS)
def test_one_example_is_enough(finder: PathFinder) -> None:
    batch = (torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5]]))
    surface = LossSurface(network(1), [batch], mse)
    start, end = (LossSurface(network(seed), [batch], mse).point() for seed in (1, 2))
    level = 1.05 * max(surface.loss(start), surface.loss(end))
    found = finder.connect(surface, start, end, level)
    assert found.verdict == "connected"
    assert found.height <= found.level


@pytest.mark.parametrize("finder", SEARCHERS)
def test_the_same_call_gives_the_same_row(finder: PathFinder) -> None:
    surface, start, end = trained_pair()
    again, *_ = trained_pair()
    level = 1.2 * max(surface.loss(start), surface.loss(end))
    rows = [row(finder.connect(each, start, end, level)) for each in (surface, surface, again)]
    assert rows[0] == rows[1] == rows[2]
    assert rows[0]["num_beads"] >= 1


@pytest.mark.parametrize("finder", SEARCHERS)
def test_a_search_changes_neither_endpoints_nor_module_nor_random_states(finder: PathFinder) -> None:
    module = network(1)
    module.train()
    surface = LossSurface(module, regression(), mse)
    _, start, end = trained_pair()
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    copies = start.clone(), end.clone()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    found = finder.connect(surface, start, end, 1.05 * max(surface.loss(start), surface.loss(end)), budget=Budget(400))
    assert found.gradient_steps > 0
    assert torch.equal(start, copies[0])
    assert torch.equal(end, copies[1])
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())
    assert module.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


class Spy:
    """Counts calls by batch, with gradients and without."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bool]] = []

    def __call__(self, module: nn.Module, batch: dict[str, Any]) -> Tensor:
        self.calls.append((batch["name"], torch.is_grad_enabled()))
        return mse(module, batch["pair"])

    def count(self, name: str, gradient: bool) -> int:
        return self.calls.count((name, gradient))


@pytest.mark.parametrize("finder", [*FINDERS, DynamicStringSampling(optimizer=lbfgs)])
def test_costs_are_counted_and_only_the_probe_set_decides(finder: PathFinder) -> None:
    spy = Spy()
    first, second, third = regression()
    surface = LossSurface(
        network(1),
        [{"name": "probe", "pair": first}, {"name": "probe", "pair": second}],
        spy,
        training_batches=[{"name": "train", "pair": third}],
        vectorize=False,
    )
    _, start, end = trained_pair()
    level = 1.1 * max(surface.loss(start), surface.loss(end))
    spy.calls.clear()  # other work of the surface does not count
    found = finder.connect(surface, start, end, level)
    assert found.gradient_steps == spy.count("train", True)
    assert found.loss_evaluations * 2 == spy.count("probe", False)
    assert spy.count("train", False) == spy.count("probe", True) == 0
    assert found.work == found.gradient_steps + found.loss_evaluations * 2 / 3
    assert (found.gradient_steps > 0) == (not isinstance(finder, LinearPath))


@pytest.mark.parametrize("level", [None, 0.2, 1e3])
@pytest.mark.parametrize("finder", SEARCHERS)
def test_figures_are_those_of_the_profile_of_the_path(finder: PathFinder, level: float | None) -> None:
    surface, start, end = trained_pair()
    line = LinearPath().connect(surface, start, end, level)
    found = finder.connect(surface, start, end, level, budget=Budget(work=1500))
    for each, path in ((found, found.path), (line, line.path)):
        assert path is not None
        t, loss = each.profile
        assert (t[0], t[-1]) == (0.0, 1.0)
        assert all(before <= after for before, after in itertools.pairwise(t))
        assert (loss[0], loss[-1]) == (each.loss_a, each.loss_b) == (surface.loss(start), surface.loss(end))
        assert each.height == max(loss)
        barriers = [e - (1 - s) * loss[0] - s * loss[-1] for s, e in zip(t, loss, strict=True)]
        assert each.barrier == pytest.approx(max(barriers), abs=1e-12)
        assert surface.losses(path(t)).tolist() == pytest.approx(list(loss), abs=1e-5)
        assert torch.equal(path.beads[[0, -1]], torch.stack([start, end]))
        assert each.length == path.length
        assert each.connected == (each.height <= each.level) == (each.reason is None)
        assert Connection.from_dict(json.loads(json.dumps(each.to_dict(), allow_nan=False))).to_dict() == each.to_dict()
    assert found.linear_profile == line.profile == line.linear_profile
    assert (found.linear_height, found.linear_barrier) == (line.height, line.barrier)
    assert found.height <= max(line.height, found.level)


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_endpoint_that_is_not_finite_ends_as_diverged(finder: PathFinder, value: float) -> None:
    # What a run that diverged leaves behind.
    broken = torch.tensor([value, 0.0])
    for start, end in ((broken, RIGHT), (LEFT, broken), (broken, broken)):
        found = finder.connect(surface_of(), start, end, LEVEL)
        assert (found.verdict, found.reason, found.gradient_steps) == ("not_found", "diverged", 0)
        json.dumps(found.to_dict(), allow_nan=False)


def test_the_path_returned_is_never_higher_than_the_line() -> None:
    # On the coarse grid of the search a bead's path may look lower than the line, and be higher on the fine one.
    surface = surface_of(lambda x: (x[0].square() - 1) ** 2 + x[1].square())
    for seed in range(12):
        shift = torch.randn(2, 2, generator=torch.Generator().manual_seed(seed)) * 0.2
        found = DynamicStringSampling(max_bead_steps=60).connect(surface, LEFT + shift[0], RIGHT + shift[1], 0.9)
        assert found.verdict == "not_found"
        assert found.height <= found.linear_height


def test_the_result_is_measured_three_times_finer_than_it_was_searched() -> None:
    for samples in (3, 9, 20):
        found = LinearPath(samples=samples).connect(surface_of(), LEFT, RIGHT)
        gaps = [after - before for before, after in itertools.pairwise(found.profile.t)]
        assert max(gaps) <= 1 / (3 * (samples + 1)) + 1e-9
        # And finer still around the top.
        assert min(gaps) < max(gaps) / 3


@pytest.mark.parametrize("finder", FINDERS)
def test_a_wall_between_the_samples_of_the_search_is_found_by_the_measurement(finder: PathFinder) -> None:
    # t from 0.52 to 0.55, where the search samples every 0.1.
    surface = surface_of(lambda x: torch.where((x[0] - 0.07).abs() < 0.03, 5.0, 0.0) + 0 * x.sum())
    found = finder.connect(surface, LEFT, RIGHT, 1.0)
    assert found.verdict == "not_found"
    assert found.height == 5.0


def test_a_piece_of_a_segment_is_not_sampled_twice_at_one_point() -> None:
    surface = surface_of()
    for share in (0.0625, 0.125, 0.25, 0.5):
        chain = Chain([Segment(LEFT, RIGHT)], 2.0, 9)
        chain.refine(surface)
        for piece in (chain.segments[0].part(share, 1.0), chain.segments[0].part(0.0, 1 - share)):
            chain.with_segments([piece]).refine(surface)
            assert min(after - before for before, after in itertools.pairwise(sorted(piece.losses))) > 1e-6


@pytest.mark.parametrize("finder", SEARCHERS)
def test_progress_is_told_as_fractions(finder: PathFinder) -> None:
    told: list[tuple[str, float]] = []
    surface, start, end = trained_pair()
    level = 1.2 * max(surface.loss(start), surface.loss(end))
    finder.connect(surface, start, end, level, progress=lambda *now: told.append(now))
    assert told
    assert all(isinstance(text, str) and 0.0 <= share <= 1.0 for text, share in told)


@pytest.mark.parametrize("finder", SEARCHERS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_search_runs_where_gradients_are_off(finder: PathFinder, context: Any) -> None:
    outside = finder.connect(surface_of(), LEFT, RIGHT, LEVEL)
    with context():
        start, end = LEFT.clone(), RIGHT.clone()
        inside = finder.connect(surface_of(), start, end, LEVEL)
    assert row(inside) == row(outside)


def test_the_straight_line_comes_on_top_of_the_budget() -> None:
    surface = surface_of()
    line = LinearPath().connect(surface, LEFT, RIGHT, LEVEL).work
    found = DynamicStringSampling(shorten=0).connect(surface, LEFT, RIGHT, LEVEL, budget=Budget(work=line / 2))
    assert found.gradient_steps > 0
    assert DynamicStringSampling().connect(surface, LEFT, RIGHT, LEVEL, budget=Budget(work=0)).gradient_steps == 0


def test_an_infinite_loss_on_the_way_is_not_below_an_infinite_level() -> None:
    surface = surface_of(lambda x: 1 / x[0].abs())
    for finder in (LinearPath(), DynamicStringSampling()):
        found = finder.connect(surface, LEFT, RIGHT, math.inf)
        assert (found.verdict, found.reason) == ("not_found", "diverged")


def test_a_nan_is_not_lost_where_two_samples_are_one_point() -> None:
    near = 1e-18  # the same arc length as the end of the segment before, in float64
    first = Segment(LEFT, torch.zeros(2), {0.0: 0.0, 1.0: 0.1})
    second = Segment(torch.zeros(2), RIGHT, {0.0: 0.1, near: math.nan, 1.0: 0.0})
    assert math.isnan(Chain([first, second], 2.0, 9).profile().height)
