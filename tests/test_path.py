"""Paths, profiles and the record of a search."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_landscape import Connection, Path, Profile, Reason, Verdict

CORNER = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])


def random_beads(seed: int, *, doubled: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    count, parameters = (int(torch.randint(2, 9, (), generator=generator)) for _ in range(2))
    beads = torch.randn(count, parameters, generator=generator)
    return beads.repeat_interleave(2, dim=0) if doubled else beads


def connection(**changes: Any) -> Connection:
    found = Connection(
        verdict=Verdict.NOT_FOUND,
        reason=Reason.BEAD,
        path=Path(CORNER),
        level=0.5,
        loss_a=0.25,
        loss_b=0.125,
        linear_height=2.0,
        linear_barrier=1.75,
        height=1.0,
        barrier=0.75,
        length=7.0,
        normalized_length=1.4,
        num_beads=1,
        gradient_steps=12,
        loss_evaluations=30,
        work=22.0,
        seconds=0.5,
        profile=Profile((0.0, 0.5, 1.0), (0.25, 1.0, 0.125)),
        linear_profile=Profile((0.0, 0.5, 1.0), (0.25, 2.0, 0.125)),
    )
    return replace(found, **changes)


def test_a_corner_has_the_lengths_of_the_3_4_5_triangle() -> None:
    path = Path(CORNER)
    assert path.segment_lengths.tolist() == [3.0, 4.0]
    assert path.length == 7.0
    assert path.normalized_length == 1.4
    assert path.num_beads == 1
    assert path.knots.tolist() == [0.0, 3 / 7, 1.0]
    assert path.knots.dtype == torch.float64
    assert repr(path) == "Path(beads=3, parameters=2, length=7)"


def test_a_straight_path_has_no_bead_and_normalised_length_exactly_1() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        path = Path.straight(torch.randn(7, generator=generator), torch.randn(7, generator=generator))
        assert path.num_beads == 0
        assert path.normalized_length == 1.0


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_knots_increase_from_0_to_1_and_lie_at_the_beads(seed: int, doubled: bool) -> None:
    beads = random_beads(seed, doubled=doubled)
    path = Path(beads)
    knots = path.knots
    assert knots[0] == 0.0
    assert knots[-1] == 1.0
    assert bool((knots.diff() >= 0).all())
    assert torch.equal(path(knots), beads)


def test_a_path_that_ends_with_a_segment_of_length_0_can_be_walked_to_its_end() -> None:
    # 1.0 and the last but one knot differed by rounding in one of eight such paths.
    generator = torch.Generator().manual_seed(0)
    for count in torch.randint(3, 12, (200,), generator=generator).tolist():
        beads = torch.randn(count, 3, generator=generator)
        path = Path(torch.cat([beads, beads[-1:]]))
        assert torch.equal(path(1.0), beads[-1])


def test_points_lie_on_the_segments_at_their_arc_length() -> None:
    path = Path(CORNER)
    expected = torch.tensor([[0.0, 0.0], [1.75, 0.0], [3.0, 0.5], [3.0, 2.25], [3.0, 4.0]])
    torch.testing.assert_close(path([0.0, 0.25, 0.5, 0.75, 1.0]), expected)
    assert path(0.25).shape == (2,)
    assert path([0.25]).shape == (1, 2)
    assert path([]).shape == (0, 2)
    assert path(torch.zeros(2, 3)).shape == (2, 3, 2)


@pytest.mark.parametrize("t", [-0.1, 1.1, math.nan, [0.5, 2.0]])
def test_points_outside_the_path_are_refused(t: Any) -> None:
    with pytest.raises(ValueError, match=r"t must lie in \[0, 1\]"):
        Path(CORNER)(t)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (0, 2), (2, 2, 2), ()])
def test_beads_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape \(K, P\) with K >= 2"):
        Path(torch.zeros(shape))


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_resampling_never_lengthens_and_keeps_the_ends(seed: int, doubled: bool) -> None:
    path = Path(random_beads(seed, doubled=doubled).double())
    for count in (2, 3, 5, 40):
        again = path.resample(count)
        assert len(again.beads) == count
        assert again.length <= path.length * (1 + 1e-12)
        assert torch.equal(again.beads[[0, -1]], path.beads[[0, -1]])
    assert path.resample(2).normalized_length == 1.0


def test_resampled_points_of_a_straight_path_are_equally_spaced() -> None:
    line = Path(torch.tensor([[0.0], [3.0], [4.0]]))
    assert line.resample(5).beads.flatten().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_one_point_is_no_path() -> None:
    with pytest.raises(ValueError, match="K >= 2"):
        Path(CORNER).resample(1)


@pytest.mark.parametrize("seed", range(10))
def test_the_reversed_path_is_the_same_walked_backwards(seed: int) -> None:
    path = Path(random_beads(seed).double())
    t = torch.linspace(0, 1, 23, dtype=torch.float64)
    torch.testing.assert_close(path.reversed()(t), path(t.flip(0)))
    assert math.isclose(path.reversed().length, path.length)
    assert torch.equal(path.reversed().reversed().beads, path.beads)


def test_beads_that_repeat_change_neither_length_nor_points() -> None:
    t = torch.linspace(0, 1, 29, dtype=torch.float64)
    doubled = Path(CORNER.repeat_interleave(3, dim=0))
    assert doubled.length == 7.0
    assert torch.equal(doubled(t), Path(CORNER)(t))


def test_a_path_that_stays_at_a_point_has_normalised_length_1() -> None:
    path = Path(torch.ones(3, 2))
    assert path.length == 0.0
    assert path.normalized_length == 1.0
    assert path.knots.tolist() == [0.0, 0.5, 1.0]
    assert torch.equal(path([0.0, 0.3, 1.0]), torch.ones(3, 2))


def test_a_loop_has_infinite_normalised_length() -> None:
    loop = Path(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
    assert loop.length == 2.0
    assert loop.normalized_length == math.inf


def test_lengths_of_a_path_through_nan_are_nan() -> None:
    path = Path(torch.tensor([[0.0], [math.nan], [1.0]]))
    assert math.isnan(path.length)
    assert math.isnan(path.normalized_length)


def test_lengths_are_summed_in_float64() -> None:
    # In float32 the squares overflow, and 2^24 + 1 is 2^24.
    assert Path.straight(torch.zeros(2), torch.full((2,), 2e30)).length == pytest.approx(2e30 * math.sqrt(2))
    steps = torch.tensor([[0.0], [2.0**24], [2.0**24 - 1]])
    assert Path(steps).length == 2**24 + 1


def test_a_path_is_cut_off_the_graph_of_its_beads() -> None:
    beads = CORNER.clone().requires_grad_()
    assert not Path(beads).beads.requires_grad


@pytest.mark.parametrize(
    ("profile", "height", "barrier"),
    [
        (Profile((0.0, 1.0), (1.0, 3.0)), 3.0, 0.0),
        (Profile((0.0, 0.5, 1.0), (1.0, 4.0, 2.0)), 4.0, 2.5),
        (Profile((0.0, 0.25, 1.0), (1.0, 3.0, 5.0)), 5.0, 1.0),
        (Profile((0.0, 0.5, 1.0), (1.0, -4.0, 2.0)), 2.0, 0.0),
        (Profile((0.0, 0.5, 1.0), (0.0, math.inf, 0.0)), math.inf, math.inf),
        (Profile((0.0, 0.5, 1.0), (0.0, math.nan, 5.0)), math.nan, math.nan),
        (Profile((0.0, 0.5, 1.0), (math.nan, 1.0, 5.0)), math.nan, math.nan),
    ],
)
def test_height_and_barrier_of_a_profile(profile: Profile, height: float, barrier: float) -> None:
    assert profile.height == pytest.approx(height, nan_ok=True)
    assert profile.barrier == pytest.approx(barrier, nan_ok=True)


def test_verdict_and_reason_are_strings() -> None:
    assert Verdict.CONNECTED == "connected"
    assert Verdict.NOT_FOUND == "not_found"
    assert Verdict("not_found") is Verdict.NOT_FOUND
    assert {str(reason) for reason in Reason} == {"endpoint", "depth", "bead", "budget", "diverged", "error"}


def test_a_connection_says_whether_it_connects() -> None:
    assert connection(verdict=Verdict.CONNECTED, reason=None).connected
    assert not connection().connected


@pytest.mark.parametrize("found", [connection(), connection(verdict=Verdict.CONNECTED, reason=None, message="text")])
def test_a_row_is_plain_json_and_reads_back_the_same(found: Connection) -> None:
    text = json.dumps(found.to_dict(), allow_nan=False)
    back = Connection.from_dict(json.loads(text))
    assert back == found
    assert back.path is None
    assert back.to_dict() == found.to_dict()
    assert isinstance(back.verdict, Verdict)
    assert isinstance(back.profile, Profile)


def plain_types(value: Any) -> bool:
    if type(value) is dict:
        return all(type(key) is str and plain_types(item) for key, item in value.items())
    if type(value) is list:
        return all(plain_types(item) for item in value)
    return value is None or type(value) in (str, int, float, bool)


def test_a_row_holds_no_subclass_of_a_plain_type() -> None:
    # torch.load(weights_only=True) refuses an enum that is a str.
    assert plain_types(connection().to_dict())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_becomes_null_and_reads_back_as_nan(value: float) -> None:
    profile = Profile((0.0, 0.5, 1.0), (0.0, value, 0.0))
    row = connection(height=value, level=value, profile=profile).to_dict()
    back = Connection.from_dict(json.loads(json.dumps(row, allow_nan=False)))
    assert row["height"] is None
    assert row["profile"]["loss"] == [0.0, None, 0.0]
    assert math.isnan(back.height)
    assert math.isnan(back.level)
    assert math.isnan(back.profile.height)
    assert back.message is None


def test_a_row_of_a_later_version_is_read_and_one_that_lacks_a_field_is_not() -> None:
    row = connection().to_dict()
    assert Connection.from_dict({**row, "epoch": 3}) == connection()
    del row["height"]
    with pytest.raises(KeyError, match="height"):
        Connection.from_dict(row)


def test_a_failed_search_has_measured_nothing() -> None:
    failed = Connection.failed(RuntimeError("out of memory"))
    row = json.loads(json.dumps(failed.to_dict(), allow_nan=False))
    assert (row["verdict"], row["reason"], row["message"]) == ("not_found", "error", "RuntimeError: out of memory")
    assert row["height"] is None
    assert row["profile"] == {"t": [], "loss": []}
    back = Connection.from_dict(row)
    assert back.message == failed.message
    assert math.isnan(back.height)


def test_the_end_is_exact_where_the_last_segment_is_too_short_for_t() -> None:
    path = Path(torch.tensor([[0.0, 0.0], [1e6, 0.0], [1e6, 1e-12]], dtype=torch.float64))
    assert torch.equal(path(1.0), path.beads[-1])
    assert torch.equal(path([0.0, 1.0]), path.beads[[0, -1]])
