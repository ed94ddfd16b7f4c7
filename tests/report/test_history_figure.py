"""The figure of all checks of a run: every row, its verdict, and the axis that tells them apart."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lightning_landscape.report.check_figures import history_figure
from lightning_landscape.report.style import LEVEL, LINEAR, NOT_FOUND, PATH, save_figure
from tests.report.drawn_checks import check_row, failed, line_of, pixels, texts, xy

# A glyph that is missing or an axis that cannot be scaled is a warning of matplotlib's.
pytestmark = pytest.mark.filterwarnings("error")


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
    assert {"connected", "undecided", "twin"} <= set(texts(figure))


def line_of_cross(axes: Axes) -> Line2D:
    (cross,) = [line for line in axes.get_lines() if line.get_label() == "undecided"]
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
    assert "undecided" not in texts(history_figure([check_row(1)]))
    assert "connected" not in texts(history_figure([failed(1)]))


def test_failed_check_is_a_gap_with_its_reason_at_the_foot() -> None:
    rows = [check_row(1), failed(2), failed(3), check_row(4)]
    above, below = history_figure(rows).axes
    assert np.isnan(line_of(above, PATH).get_ydata()).tolist() == [False, True, True, False]
    assert np.isnan(line_of(below, PATH).get_ydata()).tolist() == [False, True, True, False]
    (foot,) = [line for line in above.get_lines() if line.get_color() == NOT_FOUND and line.get_label() != "undecided"]
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
