"""The merge tree: closed forms, published definitions by brute force, hostile input."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch

from lightning_landscape.components.merge_tree import Array, MergeTree
from lightning_landscape.report.tree_figure import leaf_order, tree_figure

LOSSES = [0.1, 0.2, 0.1]
HEIGHTS = [[0.1, 0.5, 0.9], [0.5, 0.2, 0.7], [0.9, 0.7, 0.1]]


def random_landscape(seed: int, k: int = 8) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    losses = rng.normal(size=k).round(1)  # negative ones, zeros and ties
    heights = np.maximum(np.maximum.outer(losses, losses), rng.normal(size=(k, k)).round(1) + 0.5)
    heights = np.minimum(heights, heights.T)
    hidden = rng.random((k, k)) < 0.4
    heights[hidden | hidden.T] = math.nan
    return losses, heights


def flooded(losses: Array, heights: Array, u: float) -> int:
    """N_u by its definition, point after point."""
    left, count = {i for i in range(len(losses)) if losses[i] <= u}, 0
    while left:
        reached, count = [left.pop()], count + 1
        while reached:
            here = reached.pop()
            near = {j for j in left if heights[here, j] <= u}
            left -= near
            reached += near
    return count


@pytest.mark.parametrize("seed", range(20))
def test_counts_what_a_flood_of_the_definition_counts(seed: int) -> None:
    losses, heights = random_landscape(seed)
    tree = MergeTree.from_heights(losses, heights)
    levels = np.concatenate([tree.levels(), tree.levels() - 1e-9, [-9.0, 9.0]])
    expected = [flooded(losses, heights, u) for u in levels]
    assert tree.num_components(levels).tolist() == expected
    assert [tree.num_components(float(u)) for u in levels] == expected
    assert [len(tree.components(u)) for u in levels] == expected
    for u in levels:
        named = sorted(itertools.chain(*tree.components(u)))
        assert named == sorted(str(i) for i in np.flatnonzero(losses <= u))


@pytest.mark.parametrize("seed", range(5))
def test_minimax_is_the_lowest_of_all_detours(seed: int) -> None:
    losses, heights = random_landscape(seed, k=6)
    closure = np.where(np.isnan(heights), math.inf, heights)
    for through in range(6):  # Floyd and Warshall, with the maximum in place of the sum
        closure = np.minimum(closure, np.maximum(closure[:, [through]], closure[[through], :]))
    np.fill_diagonal(closure, losses)
    np.testing.assert_allclose(MergeTree.from_heights(losses, heights).minimax(), closure)


def test_known_tree() -> None:
    tree = MergeTree.from_heights(torch.tensor(LOSSES), torch.tensor(HEIGHTS), ["a", "b", "c"])
    assert [(round(merge.height, 6), merge.left, merge.right) for merge in tree.merges] == [(0.5, 0, 1), (0.7, 2, 3)]
    assert tree.components(0.6) == (("a", "b"), ("c",))
    assert tree.minimax()[0, 2] == pytest.approx(0.7)  # by way of b, below its own path of 0.9
    counts = tree.num_components(np.array([[0.0, 0.15], [0.6, math.inf]]))
    assert counts.dtype == np.int64
    assert counts.tolist() == [[0, 2], [2, 1]]


def test_the_order_of_the_points_does_not_matter() -> None:
    losses, heights = random_landscape(3)
    order = np.random.default_rng(0).permutation(len(losses))
    tree = MergeTree.from_heights(losses, heights)
    other = MergeTree.from_heights(losses[order], heights[np.ix_(order, order)])
    assert [merge.height for merge in tree.merges] == [merge.height for merge in other.merges]
    assert tree.num_components(tree.levels()).tolist() == other.num_components(tree.levels()).tolist()


def test_lower_heights_never_give_more_components() -> None:
    losses, heights = random_landscape(4)
    lower = np.maximum(heights - 0.3, np.maximum.outer(losses, losses))
    levels = np.linspace(-3, 4, 200)
    trees = [MergeTree.from_heights(losses, matrix) for matrix in (lower, heights)]
    assert (trees[0].num_components(levels) <= trees[1].num_components(levels)).all()


@pytest.mark.parametrize("missing", [math.nan, math.inf])
def test_a_height_that_was_not_searched_joins_nothing(missing: float) -> None:
    tree = MergeTree.from_heights([0.0, 0.0, 0.0], [[0, 1, missing], [1, 0, missing], [missing, missing, 0]])
    assert len(tree.merges) == 1
    assert tree.num_components([1.0, math.inf]).tolist() == [2, 2]
    assert tree.minimax()[0, 2] == math.inf


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_point_without_a_finite_loss_lies_in_no_level_set(loss: float) -> None:
    tree = MergeTree.from_heights([0.0, loss, 0.0], [[0, 1, 2], [1, 0, 1], [2, 1, 0]])
    assert [merge.height for merge in tree.merges] == [2.0]  # not 1, by way of the point that is nowhere
    assert tree.num_components([0.0, 1.0, 2.0, math.inf]).tolist() == [2, 2, 1, 1]
    assert tree.components(math.inf) == (("0", "2"),)


def test_one_point() -> None:
    tree = MergeTree.from_heights([0.5], [[math.nan]])
    assert tree.merges == ()
    assert tree.num_components([0.4, 0.5]).tolist() == [0, 1]
    assert tree.minimax().tolist() == [[0.5]]
    assert MergeTree.from_heights([math.nan], [[0.0]]).num_components(9.0) == 0


def test_rounding_is_lifted_and_symmetric() -> None:
    tree = MergeTree.from_heights([0.5, 0.4], [[0, 0.49999999], [0.5, 0]])
    assert tree.heights.tolist() == [[0.5, 0.5], [0.5, 0.4]]


@pytest.mark.parametrize(
    ("losses", "heights", "names", "message"),
    [
        ([], [], None, r"losses must have shape \(k,\) with k >= 1, got \(0,\)"),
        ([[0.1]], [[0.1]], None, r"losses must have shape"),
        ([0.1, 0.2], [[0.1, 0.2]], None, r"heights must have shape \(2, 2\)"),
        ([0.1, 0.2], [[0, 1], [2, 0]], None, r"symmetric.*from '0' to '1' it is 1, back 2.*np\.fmin"),
        ([0.1, 0.2], [[0, 1], [math.nan, 0]], None, "symmetric"),
        ([0.1, 0.2], [[0, 0.05], [0.05, 0]], None, "0.05 between '0' and '1' lies below the loss 0.2.*not barriers"),
        ([0.1, -math.inf], [[0, 1], [1, 0]], None, "-inf"),
        ([0.1, 0.2], [[0, -math.inf], [-math.inf, 0]], None, "-inf"),
        ([0.1, 0.2], [[0, 1], [1, 0]], ["a"], "names must be 2 different strings"),
        ([0.1, 0.2], [[0, 1], [1, 0]], ["a", "a"], "names must be 2 different strings"),
    ],
)
def test_what_is_no_landscape_is_refused(losses, heights, names, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MergeTree.from_heights(losses, heights, names)


def test_a_level_that_is_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="u is NaN"):
        MergeTree.from_heights(LOSSES, HEIGHTS).num_components([0.1, math.nan])


def test_json_round_trip() -> None:
    losses, heights = random_landscape(1)
    losses[2] = math.nan
    tree = MergeTree.from_heights(losses, heights, [f"point {i}" for i in range(8)])
    text = json.dumps(tree.to_dict(), allow_nan=False)
    back = MergeTree.from_dict(json.loads(text))
    assert json.dumps(back.to_dict()) == text
    assert back.merges == tree.merges
    np.testing.assert_array_equal(back.heights, tree.heights)


def test_arguments_are_not_changed() -> None:
    losses, heights = random_landscape(2)
    before = losses.copy(), heights.copy()
    MergeTree.from_heights(losses, heights)
    np.testing.assert_array_equal(losses, before[0])
    np.testing.assert_array_equal(heights, before[1])


def test_figure_shows_leaves_merges_and_what_heights_are() -> None:
    figure = tree_figure(MergeTree.from_heights(LOSSES, HEIGHTS, ["a", "b", "c"]), "three")
    graph, count = figure.axes
    corners = {round(float(y), 6) for line in graph.lines for y in line.get_ydata()}
    assert {0.1, 0.2, 0.5, 0.7} <= corners
    assert [label.get_text() for label in graph.get_xticklabels()] == ["c", "a", "b"]
    stairs = count.patches[0].get_data()
    assert stairs.values.tolist() == [2, 3, 2, 1]
    assert stairs.edges[:-1].tolist() == [0.1, 0.2, 0.5, 0.7]
    assert any("upper bounds" in text.get_text() for text in figure.texts)
    assert graph.get_ylim() == count.get_ylim()


def test_leaves_are_drawn_without_crossing() -> None:
    tree = MergeTree.from_heights(*random_landscape(6, k=12))
    order = leaf_order(tree)
    groups = {i: {i} for i in range(12)}
    for number, merge in enumerate(tree.merges):
        groups[12 + number] = groups[merge.left] | groups[merge.right]
        places = sorted(order.index(leaf) for leaf in groups[12 + number])
        assert places == list(range(places[0], places[0] + len(places)))


@pytest.mark.parametrize(
    ("losses", "note"), [([math.nan, 0.1], "1 of 2 points left out"), ([math.nan] * 2, "2 of 2"), ([0.1, 9.0], "upper")]
)
def test_odd_landscapes_are_drawn(losses: list[float], note: str) -> None:
    figure = tree_figure(MergeTree.from_heights(losses, np.full((2, 2), math.nan), ["$a", "b" * 90]), "cost $1")
    figure.canvas.draw()
    assert any(note in text.get_text() for text in figure.texts)
