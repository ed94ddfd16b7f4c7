"""What is reported of a path: its figures, its profile, and how finely they are measured."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

from lightning_landscape import Connection
from lightning_landscape.finders import Budget, DynamicStringSampling, LinearPath, PathFinder
from lightning_landscape.finders.chain import Chain, Segment
from tests.finders.cases import LEFT, RIGHT, each_finder, each_searcher, surface_of, trained_pair, wells


@pytest.mark.parametrize("level", [None, 0.2, 1e3])
@each_searcher
def test_figures_are_those_of_the_profile_of_the_path(finder: PathFinder, level: float | None) -> None:
    surface, start, end = trained_pair()
    line = LinearPath().connect(surface, start, end, level, budget=Budget(work=1500))
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


def test_the_path_returned_is_never_higher_than_the_line() -> None:
    # On the coarse grid of the search a bead's path may look lower than the line, and be higher on the fine one.
    surface = surface_of(wells)
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


@each_finder
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
        chain.finish(surface)
        for piece in (chain.segments[0].part(share, 1.0), chain.segments[0].part(0.0, 1 - share)):
            chain.with_segments([piece]).finish(surface)
            assert min(after - before for before, after in itertools.pairwise(sorted(piece.losses))) > 1e-6


def test_a_nan_is_not_lost_where_two_samples_are_one_point() -> None:
    near = 1e-18  # the same arc length as the end of the segment before, in float64
    first = Segment(LEFT, torch.zeros(2), {0.0: 0.0, 1.0: 0.1})
    second = Segment(torch.zeros(2), RIGHT, {0.0: 0.1, near: math.nan, 1.0: 0.0})
    assert math.isnan(Chain([first, second], 2.0, 9).profile().height)
