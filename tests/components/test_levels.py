"""Levels of a tree: one early checkpoint does not set the level, and joins that no search found are marked."""

from __future__ import annotations

import math

import pytest

from lightning_landscape.components.levels import common_level, over_levels
from lightning_landscape.components.merge_tree import MergeTree

EARLY = MergeTree.from_heights(
    [0.30, 0.31, 0.32, 2.3],
    [[0.30, 0.32, 1.7, 2.3], [0.32, 0.31, 1.8, 2.3], [1.7, 1.8, 0.32, 2.3], [2.3, 2.3, 2.3, 2.3]],
    ["a", "b", "other", "early"],
)


def test_one_early_checkpoint_neither_sets_the_level_nor_joins_what_no_search_has_joined() -> None:
    level = common_level(EARLY.losses.tolist(), 0.05)
    assert level == pytest.approx(1.05 * 0.32)
    assert EARLY.num_components(level) == 2
    steps = {step.level: step for step in over_levels(EARLY, 0.05)}
    assert steps[0.32].apart == ()  # a path within the margin of its own ends
    assert steps[1.7].apart == (("a", "other"),)
    assert (steps[1.7].points, steps[1.7].components) == (3, 1)
    assert steps[2.3].apart == ()  # the early one lies at this level itself


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.4], 0.4),
        ([0.3, 0.4], 0.4),
        ([0.3, math.nan, 0.5, math.inf], 0.5),
        ([-3.0, -2.0, -1.0, 5.0], -1.0),
        ([0.0, 0.0, 1.0], 0.0),
        ([2.3, 0.4, 0.3, 0.35, 2.2], 0.4),
    ],
)
def test_the_level_follows_most_points(losses: list[float], expected: float) -> None:
    assert common_level(losses, 0.0) == expected


def test_without_a_finite_loss_there_is_no_level() -> None:
    assert math.isnan(common_level([math.nan], 0.05))
