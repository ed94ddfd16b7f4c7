"""The published points as the figures show them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from scripts.reproduce.freeman_bruna.published_points import POINTS, published


@pytest.mark.parametrize(
    ("task", "count"), [("quadratics", 10), ("cubics", 25), ("mnist", 10), ("cifar", 7), ("ptb", 6)]
)
def test_every_curve_is_there(task: str, count: int) -> None:
    points = published(task)
    assert len(points) == count
    assert [*points] == sorted(points)
    for length, beads in points.values():
        assert 1 <= length.lower <= length.mean <= length.upper
        assert 1 <= beads.lower <= beads.mean <= beads.upper


@pytest.mark.parametrize(
    ("task", "threshold", "length", "beads"),
    [
        ("quadratics", 0.05, 1.3662, 4.8126),
        ("quadratics", 0.0025, 1.7535, 36.3353),
        ("cubics", 0.158, 2.5382, 1.43),
        ("mnist", 2.0, 1.0053, 2.7907),
        ("cifar", 40.0, 1.0116, 1.0),
        ("ptb", 700.0, 1.0911, 1.0),
    ],
)
def test_points_are_the_published_ones_with_interior_beads(
    task: str, threshold: float, length: float, beads: float
) -> None:
    points = published(task)[threshold]
    assert (points[0].mean, round(points[1].mean, 4)) == (length, beads)


def test_the_bars_are_standard_errors_over_accepted_pairs() -> None:
    # 3.0769 beads is 40 / 13: 13 pairs, one of which has a fourth bead.
    beads = published("cifar")[50.0][1]
    assert beads.mean == pytest.approx(1 + 1 / 13, abs=1e-4)
    assert beads.upper - beads.mean == pytest.approx(math.sqrt(1 / 13 * 12 / 13) / math.sqrt(13), abs=1e-4)


def test_an_unknown_task_has_no_points() -> None:
    with pytest.raises(KeyError):
        published("imagenet")


def test_the_copy_is_the_reference(data_root: Path) -> None:
    reference = data_root.parent / "reference" / POINTS.name
    if not reference.is_file():
        pytest.skip(f"no {reference}")
    assert POINTS.read_text() == reference.read_text()
