"""Searched trees against the saddles of a planted landscape, which flooding a grid finds."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import label

from lightning_landscape.components.heights import PairwiseHeights, search_heights
from lightning_landscape.components.merge_tree import Array
from lightning_landscape.finders import DynamicStringSampling, LinearPath
from tests.components.planted import WELLS, planted, points, surface


@functools.cache
def saddles() -> Array:
    """Minimax saddles between the wells, by flooding a grid of spacing 0.004 and bisecting the level."""
    x, y = torch.arange(-0.6, 2.8, 0.004, dtype=torch.float64), torch.arange(-0.6, 2.0, 0.004, dtype=torch.float64)
    heights = planted(torch.stack(torch.meshgrid(x, y, indexing="ij"), -1)).numpy()
    cells = [(int((a + 0.6) / 0.004 + 0.5), int((b + 0.6) / 0.004 + 0.5)) for a, b in WELLS.double().tolist()]
    found = np.zeros((5, 5))
    for i, j in itertools.combinations(range(5), 2):
        low, high = max(heights[cells[i]], heights[cells[j]]), 2.0
        for _ in range(14):
            level = (low + high) / 2
            flooded = label(heights <= level)[0]
            low, high = (low, level) if flooded[cells[i]] == flooded[cells[j]] != 0 else (level, high)
        found[i, j] = found[j, i] = high
    return found


@functools.cache
def searched(pairs: Any) -> PairwiseHeights:
    return search_heights(surface(), points(), pairs=pairs)


@pytest.mark.parametrize("pairs", ["tree", "all"])
def test_planted_saddles_are_found_to_two_percent(pairs: Any) -> None:
    tree = searched(pairs).tree()
    known = saddles()
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(tree.minimax()[off], known[off], rtol=0.02)
    # The four saddles lie apart by more than the error, so that N_u is known at every level between them.
    assert np.all(tree.minimax()[off] >= known[off] - 1e-3)


@pytest.mark.parametrize("pairs", ["tree", "all"])
def test_planted_number_of_components_is_found_at_every_level(pairs: Any) -> None:
    tree = searched(pairs).tree()
    known = saddles()
    losses = [float(planted(well)) for well in WELLS]
    merges = sorted({round(known[i, j], 6) for i, j in itertools.combinations(range(5), 2)})
    for u in np.linspace(-0.2, 1.2, 281):
        if any(abs(u - merge) < 0.02 * merge for merge in merges):
            continue  # within the tolerance of a saddle
        inside = [i for i in range(5) if losses[i] <= u]
        groups = {frozenset(j for j in inside if j == i or known[i, j] <= u) for i in inside}
        assert tree.num_components(float(u)) == len(groups), u


def test_tree_mode_agrees_with_all_pairs_with_k_minus_one_searches() -> None:
    tree, full = searched("tree"), searched("all")
    assert (len(tree.rows), len(full.rows)) == (4, 10)
    np.testing.assert_allclose(tree.tree().minimax(), full.tree().minimax(), rtol=0.02)
    assert any(row["height"] < row["linear_height"] - 0.01 for row in full.rows)


def test_search_goes_below_the_lines_of_its_tree() -> None:
    lines = search_heights(surface(), points(), LinearPath(), pairs="all").tree()
    found = searched("tree").tree()
    assert lines.merges[-1].height - found.merges[-1].height > 0.01
    assert (found.minimax() <= lines.minimax() + 1e-7).all()


@pytest.mark.parametrize("seed", range(6))
def test_tree_mode_never_lies_below_all_pairs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    cloud = {str(index): 2 * torch.rand(2, generator=generator) for index in range(6)}
    finder = DynamicStringSampling(max_depth=2, max_bead_steps=15, shorten=0, samples=4)
    tree, full = (search_heights(surface(), cloud, finder, pairs=pairs) for pairs in ("tree", "all"))
    assert (tree.heights >= full.heights - 1e-6).all()
    assert (tree.tree().minimax() >= full.tree().minimax() - 1e-6).all()
    assert len(tree.rows) == 5
