"""The figure of one check: its lines, heights, beads, labels and verdict."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path as FilePath

import numpy as np
import pytest

from lightning_landscape.connection import Connection, Reason, Verdict
from lightning_landscape.path import Profile
from lightning_landscape.report.check_figures import profile_figure
from lightning_landscape.report.style import LEVEL, LINEAR, PATH, save_figure
from tests.report.drawn_checks import T, connection, line_of, texts, verdict_line, xy

# A glyph that is missing or an axis that cannot be scaled is a warning of matplotlib's.
pytestmark = pytest.mark.filterwarnings("error")


def test_lines_are_the_measured_losses() -> None:
    pair = connection()
    (axes,) = profile_figure(pair).axes
    np.testing.assert_array_equal(xy(line_of(axes, PATH)), np.stack(pair.profile, axis=1))
    np.testing.assert_array_equal(xy(line_of(axes, LINEAR)), np.stack(pair.linear_profile, axis=1))
    assert list(line_of(axes, LEVEL).get_ydata()) == [0.11, 0.11]


def test_lines_differ_without_colour() -> None:
    (axes,) = profile_figure(connection()).axes
    assert len({str(line_of(axes, color)._dash_pattern) for color in (PATH, LINEAR, LEVEL)}) == 3


def test_lines_are_labelled_with_their_heights() -> None:
    pair = connection()
    found = texts(profile_figure(pair))
    assert f"straight line\n{pair.linear_height:.3g}" in found
    assert f"found path\n{pair.height:.3g}" in found
    assert "level\n0.11" in found


def test_heights_are_ringed() -> None:
    pair = connection()
    (axes,) = profile_figure(pair).axes
    rings = [line for line in axes.get_lines() if line.get_color() == "white"]
    assert [ring.get_markeredgecolor() for ring in rings] == [LINEAR, PATH]
    assert [float(ring.get_ydata()[0]) for ring in rings] == [pair.linear_height, pair.height]


@pytest.mark.parametrize("beads", [1, 3, 31])
def test_beads_are_marked_on_the_path(beads: int) -> None:
    pair = connection(beads=beads)
    assert pair.path is not None
    marks = xy(line_of(profile_figure(pair).axes[0], PATH, markers=True))
    np.testing.assert_allclose(marks[:, 0], pair.path.knots[1:-1])
    np.testing.assert_allclose(marks[:, 1], np.interp(marks[:, 0], *pair.profile))


def test_no_bead_is_invented_for_a_row_from_a_file() -> None:
    pair = Connection.from_dict(connection().to_dict())
    (axes,) = profile_figure(pair).axes
    assert not [line for line in axes.get_lines() if line.get_linestyle() == "None" and line.get_color() == PATH]


def test_a_straight_path_is_drawn_once() -> None:
    losses = tuple(0.1 + 0.005 * math.sin(math.pi * t) for t in T)
    figure = profile_figure(connection(losses, losses, beads=0))
    assert not [line for line in figure.axes[0].get_lines() if line.get_color() == LINEAR]
    assert "straight line, the path found\n0.105" in texts(figure)


def test_verdict_stands_in_the_title() -> None:
    assert verdict_line(profile_figure(connection())) == "connected: height 0.108 <= level 0.11"
    above = profile_figure(connection(level=0.1), title="epoch 3")
    assert verdict_line(above) == "undecided: budget spent: height 0.108 > level 0.1"
    assert "epoch 3" in texts(above)


def test_a_near_miss_shows_the_digits_that_decide() -> None:
    closer = profile_figure(connection(level=0.107999))
    assert verdict_line(closer) == "undecided: budget spent: height 0.108 > level 0.107999"
    near = replace(connection(), height=0.11000004, verdict=Verdict.NOT_FOUND, reason=Reason.DEPTH)
    assert verdict_line(profile_figure(near)) == "undecided: depth limit reached: height 0.11000004 > level 0.11"
    equal = replace(connection(), height=0.11)
    assert verdict_line(profile_figure(equal)) == "connected: height 0.11 <= level 0.11"


@pytest.mark.parametrize(("top", "scale"), [(30.0, "linear"), (34.0, "log")])
def test_axis_is_logarithmic_above_one_and_a_half_decades(top: float, scale: str) -> None:
    pair = connection(found=(1.0, 1.5, 1.0), straight=(1.0, top, 1.0), level=2.0)
    assert profile_figure(pair).axes[0].get_yscale() == scale


def test_losses_that_are_not_positive_stay_on_a_linear_axis() -> None:
    pair = connection(found=(0.0, -1.0, 0.0), straight=(0.0, 1e6, 0.0), level=2.0)
    axes = profile_figure(pair).axes[0]
    assert axes.get_yscale() == "linear"
    assert axes.get_ylim()[0] < -1.0
    assert axes.get_ylim()[1] > 1e6


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_leaves_a_gap(bad: float) -> None:
    found = (0.1, 0.1, bad, 0.1, 0.1)
    pair = replace(connection(found), height=bad, verdict=Verdict.NOT_FOUND, reason=Reason.DIVERGED)
    figure = profile_figure(pair)
    assert verdict_line(figure) == "undecided: a loss is not finite: the height is not finite"
    assert np.isnan(line_of(figure.axes[0], PATH).get_ydata()).tolist() == [False, False, True, False, False]
    figure.canvas.draw()


def test_nothing_finite_says_so(tmp_path: FilePath) -> None:
    nowhere = Profile((0.0, 1.0), (math.nan, math.inf))
    pair = replace(connection(), profile=nowhere, linear_profile=nowhere, level=math.nan, height=math.nan)
    for bare in (pair, replace(pair, profile=Profile((), ()), linear_profile=Profile((), ()))):
        figure = profile_figure(replace(bare, verdict=Verdict.NOT_FOUND, reason=Reason.DIVERGED))
        assert "no finite loss was measured" in texts(figure)
        save_figure(figure, tmp_path / "nothing.png")


def test_infinite_level_is_survived() -> None:
    figure = profile_figure(connection(level=math.inf))
    assert verdict_line(figure) == "connected: height 0.108 <= level inf"
    figure.canvas.draw()


def test_message_of_an_error_is_one_plain_short_line(tmp_path: FilePath) -> None:
    message = r"cost $\frac{" + "\n  next " + "x" * 500
    error = replace(connection(), verdict=Verdict.NOT_FOUND, reason=Reason.ERROR, message=message)
    figure = profile_figure(error, title="run $_{")
    assert verdict_line(figure).startswith(r"undecided: the check failed: cost $\frac{ next xxx")
    assert len(verdict_line(figure)) < 70
    save_figure(figure, tmp_path / "error.png")


SHAPES = {
    "connected": connection(),
    "linear axis": connection(straight=tuple(0.1 + 0.2 * math.exp(-(((t - 0.5) / 0.18) ** 2)) for t in T)),
    "above": connection(tuple(0.09 + 0.3 * math.exp(-(((t - 0.4) / 0.1) ** 2)) for t in T)),
    "same peak": connection(tuple(0.1 + 2.1 * math.exp(-(((t - 0.5) / 0.18) ** 2)) for t in T)),
    "peak at the start": connection(tuple(0.3 - 0.2 * t for t in T), tuple(0.3 - 0.1 * t for t in T)),
    "flat": connection((0.0,) * 41, (0.0,) * 41, level=0.0),
}


@pytest.mark.parametrize("name", SHAPES)
def test_labels_stay_apart_and_inside(name: str) -> None:
    figure = profile_figure(SHAPES[name])
    (axes,) = figure.axes
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts if "\n" in text.get_text()]
    assert len(boxes) == 3
    for index, box in enumerate(boxes):
        assert box.x0 >= figure.bbox.x0
        assert box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[:index])
    for text in axes.texts:
        if not text.get_text().startswith("level"):
            assert axes.bbox.containsx(text.get_window_extent().x0)
            assert axes.bbox.containsx(text.get_window_extent().x1)
