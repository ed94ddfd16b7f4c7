from __future__ import annotations

import math
import multiprocessing
import os
import random
import signal
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any, BinaryIO

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from lightning_landscape.connection import Connection, Reason, Verdict
from lightning_landscape.path import Path, Profile
from lightning_landscape.report.check_figures import history_figure, profile_figure
from lightning_landscape.report.style import LEVEL, LINEAR, NOT_FOUND, PATH, save_figure

# A glyph that is missing or an axis that cannot be scaled is a warning of matplotlib's.
pytestmark = pytest.mark.filterwarnings("error")

T = tuple(float(t) for t in np.linspace(0, 1, 41))


def connection(
    found: tuple[float, ...] | None = None,
    straight: tuple[float, ...] | None = None,
    level: float = 0.11,
    beads: int = 3,
) -> Connection:
    """A pair whose straight line rises to 2.3 and whose path stays below 0.108."""
    straight = straight or tuple(0.1 + 2.2 * math.exp(-(((t - 0.5) / 0.18) ** 2)) for t in T)
    found = found or tuple(0.09 + 0.018 * math.sin(3 * math.pi * t) ** 2 for t in T)
    below, line = Profile(T[: len(found)], found), Profile(T[: len(straight)], straight)
    connected = below.height <= level
    beads_at = torch.cumsum(torch.rand(beads + 2, 7, generator=torch.Generator().manual_seed(0)), 0)
    return Connection(
        verdict=Verdict.CONNECTED if connected else Verdict.NOT_FOUND,
        reason=None if connected else Reason.BUDGET,
        path=Path(beads_at),
        level=level,
        loss_a=found[0],
        loss_b=found[-1],
        linear_height=line.height,
        linear_barrier=line.barrier,
        height=below.height,
        barrier=below.barrier,
        length=2.0,
        normalized_length=1.32,
        num_beads=beads,
        gradient_steps=100,
        loss_evaluations=82,
        work=130.0,
        seconds=12.3,
        profile=below,
        linear_profile=line,
    )


def check_row(check: int, **changes: Any) -> dict[str, Any]:
    row = connection().to_dict() | {"check": check, "epoch": check - 1, "step": 10 * check, "pair": "twin"}
    return row | {"level": 1 / check, "linear_height": 2.0, "height": 0.9 / check} | changes


def failed(check: int, **changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("level", "linear_height", "height", "normalized_length"))
    return check_row(check, **nothing, verdict="not_found", reason="error", num_beads=0, message="boom", **changes)


def line_of(axes: Axes, color: str, markers: bool = False) -> Line2D:
    """The one line, or set of markers without a line, of that colour."""
    (line,) = [
        line
        for line in axes.get_lines()
        if line.get_color() == color and (line.get_linestyle() == "None") == markers and len(line.get_xdata()) != 0
    ]
    return line


def xy(line: Line2D) -> np.ndarray:
    return np.stack([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)], axis=1)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def pixels(path: FilePath) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def verdict_line(figure: Figure) -> str:
    return figure.axes[0].get_title(loc="left")


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
    assert verdict_line(above) == "not found (budget): height 0.108 > level 0.1"
    assert "epoch 3" in texts(above)


def test_a_near_miss_shows_the_digits_that_decide() -> None:
    closer = profile_figure(connection(level=0.107999))
    assert verdict_line(closer) == "not found (budget): height 0.108 > level 0.107999"
    near = replace(connection(), height=0.11000004, verdict=Verdict.NOT_FOUND, reason=Reason.DEPTH)
    assert verdict_line(profile_figure(near)) == "not found (depth): height 0.11000004 > level 0.11"
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
    assert verdict_line(figure) == "not found (diverged): the height is not finite"
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
    assert verdict_line(figure).startswith(r"not found (error): cost $\frac{ next xxx")
    assert len(verdict_line(figure)) < 60
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


def test_history_draws_every_row() -> None:
    rows = [check_row(check) for check in range(1, 7)]
    above, below = history_figure(rows).axes
    epochs = np.arange(6.0)
    for color, key in ((LEVEL, "level"), (LINEAR, "linear_height"), (PATH, "height")):
        expected = np.stack([epochs, [row[key] for row in rows]], axis=1)
        np.testing.assert_array_equal(xy(line_of(above, color)), expected)
    np.testing.assert_array_equal(xy(line_of(below, PATH)), np.stack([epochs, [1.32] * 6], axis=1))
    assert below.get_xlabel() == "epoch"
    assert [text.get_text() for text in below.texts].count("3") == 6
    assert {"level", "straight line", "found path"} <= set(texts(above.figure))


def test_history_marks_verdicts_by_shape_and_colour() -> None:
    rows = [check_row(1), check_row(2, verdict="not_found", reason="budget", height=3.0), check_row(3)]
    figure = history_figure(rows, title="twin")
    above = figure.axes[0]
    dots, cross = line_of(above, PATH, markers=True), line_of_cross(above)
    assert dots.get_marker() != cross.get_marker()
    assert xy(dots).tolist() == [[0.0, 0.9], [2.0, 0.3]]
    assert xy(cross).tolist() == [[1.0, 3.0]]
    assert {"connected", "not found", "twin"} <= set(texts(figure))


def line_of_cross(axes: Axes) -> Line2D:
    (cross,) = [line for line in axes.get_lines() if line.get_label() == "not found"]
    return cross


@pytest.mark.parametrize("height", [1.0, 0.999, -5.0])
def test_history_labels_stay_apart(height: float) -> None:
    figure = history_figure([check_row(1, level=1.0, linear_height=1.0, height=height)])
    figure.canvas.draw()
    labels = [text for text in figure.axes[0].texts if text.get_text() in ("level", "straight line", "found path")]
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) == 3
    for index, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:index])


def test_history_names_no_verdict_that_did_not_occur() -> None:
    assert "not found" not in texts(history_figure([check_row(1)]))
    assert "connected" not in texts(history_figure([failed(1)]))


def test_failed_check_is_a_gap_with_its_reason_at_the_foot() -> None:
    rows = [check_row(1), failed(2), failed(3), check_row(4)]
    above, below = history_figure(rows).axes
    assert np.isnan(line_of(above, PATH).get_ydata()).tolist() == [False, True, True, False]
    assert np.isnan(line_of(below, PATH).get_ydata()).tolist() == [False, True, True, False]
    (foot,) = [line for line in above.get_lines() if line.get_color() == NOT_FOUND and line.get_label() != "not found"]
    assert xy(foot).tolist() == [[1.0, 0.06], [2.0, 0.06]]
    assert foot.get_transform() == above.get_xaxis_transform()
    assert [text.get_text() for text in above.texts].count("error") == 1  # once for both neighbours


@pytest.mark.parametrize(
    ("changes", "axis", "x"),
    [
        ({}, "epoch", [0, 1]),
        ({"epoch": 0}, "step", [10, 20]),
        ({"epoch": None}, "step", [10, 20]),
        ({"epoch": 0, "step": 5}, "check", [1, 2]),
    ],
)
def test_history_axis_tells_the_checks_apart(changes: dict[str, Any], axis: str, x: list[int]) -> None:
    below = history_figure([check_row(1, **changes), check_row(2, **changes)]).axes[1]
    assert below.get_xlabel() == axis
    assert list(line_of(below, PATH).get_xdata()) == x


@pytest.mark.parametrize(
    "rows",
    [
        [check_row(1)],
        [failed(1)],
        [failed(1), failed(2), failed(3)],
        [check_row(check) for check in range(1, 301)],
        [check_row(1, level=1e-9, height=1e-9), check_row(2, height=1e9)],
        [check_row(1, level=0.0, height=0.0, linear_height=0.0)],
        [check_row(1, level=-3.0, height=-4.0, linear_height=-1.0)],
        [check_row(1, normalized_length=None)],
    ],
    ids=["one", "one failed", "all failed", "300", "wide", "zero", "negative", "loop"],
)
def test_history_of_any_rows_is_drawn(rows: list[dict[str, Any]], tmp_path: FilePath) -> None:
    save_figure(history_figure(rows), tmp_path / "history.png")
    assert pixels(tmp_path / "history.png").shape[1] == 1050


def test_bead_counts_are_thinned_out() -> None:
    below = history_figure([check_row(check, num_beads=check) for check in range(1, 301)]).axes[1]
    counts = [text.get_text() for text in below.texts if text.get_text().isdigit()]
    assert 10 <= len(counts) <= 12
    assert counts[0] == "300"  # the newest always


def test_history_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="rows is empty"):
        history_figure([])


def rng_states() -> tuple[bytes, str, object]:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    return torch.random.get_rng_state().numpy().tobytes(), repr(numpy_state), random.getstate()


def test_session_of_the_user_is_left_alone(tmp_path: FilePath) -> None:
    matplotlib.use("Agg")
    mine = pyplot.figure()
    plain = tmp_path / "plain.png"
    save_figure(profile_figure(connection()), plain)
    with matplotlib.rc_context(
        {"font.size": 40, "axes.facecolor": "black", "savefig.dpi": 20, "savefig.bbox": "tight"}
    ):
        before = dict(matplotlib.rcParams)
        states = rng_states()
        save_figure(profile_figure(connection()), tmp_path / "styled.png")
        save_figure(history_figure([check_row(1)]), tmp_path / "history.png")
        with pytest.raises(ValueError, match="rows"):
            history_figure([])
        assert dict(matplotlib.rcParams) == before
    assert rng_states() == states
    assert pyplot.get_fignums() == [mine.number]
    assert pyplot.gcf() is mine
    pyplot.close(mine)
    # The picture does not depend on the user's style either.
    assert np.array_equal(pixels(plain), pixels(tmp_path / "styled.png"))


def test_save_makes_the_folder_and_replaces(tmp_path: FilePath) -> None:
    target = tmp_path / "new" / "profile.png"
    save_figure(profile_figure(connection()), target)
    first = target.read_bytes()
    save_figure(profile_figure(connection(level=0.2)), target)
    assert target.read_bytes() != first
    assert pixels(target).shape == (660, 1050, 3)
    assert [file.name for file in target.parent.iterdir()] == ["profile.png"]


def test_failed_write_keeps_the_old_file(tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "profile.png"
    target.write_bytes(b"old")

    def half(self: Figure, file: BinaryIO, **_: Any) -> None:
        file.write(b"\x89PNG half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        save_figure(Figure(), target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_killed_write_keeps_the_old_file(tmp_path: FilePath) -> None:
    target = tmp_path / "profile.png"
    target.write_bytes(b"old")

    class Deadly(Figure):
        def savefig(self, file: Any, **options: Any) -> None:
            file.write(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(target=save_figure, args=(Deadly(), target))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    (leftover,) = tmp_path.glob(".*.tmp")
    os.utime(leftover, (0, 0))
    save_figure(profile_figure(connection()), target)
    assert list(tmp_path.iterdir()) == [target]  # the next write clears what an old kill left
