"""Splits that share no element."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_landscape.community.disjoint_split import disjoint_split


def test_parts_share_no_element_and_have_their_shares() -> None:
    random = np.random.default_rng(0)
    # 200 groups of 3 examples that share one element
    elements = [np.array([group, 1000 + random.integers(10**6)]) for group in range(200) for _ in range(3)]
    parts = disjoint_split(elements, (0.7, 0.1, 0.2), seed=1)
    assert sorted(np.concatenate(parts).tolist()) == list(range(600))  # nothing is lost
    owned = [set(np.concatenate([elements[i] for i in part]).tolist()) for part in parts]
    assert not any(owned[a] & owned[b] for a, b in ((0, 1), (0, 2), (1, 2)))
    assert all(abs(len(part) / 600 - share) < 0.02 for part, share in zip(parts, (0.7, 0.1, 0.2), strict=True))
    assert all((np.diff(part) > 0).all() for part in parts)


def test_only_bridges_are_left_out() -> None:
    left_out = set()
    for seed in range(20):
        parts = disjoint_split([np.array([0, 1]), np.array([2, 3]), np.array([1, 2])], (1, 1), seed)
        missing = {0, 1, 2} - set(np.concatenate(parts).tolist())
        if missing:
            assert [part.tolist() for part in parts] in ([[0], [1]], [[1], [0]])
        left_out |= missing
    assert left_out == {2}


def test_the_seed_alone_decides() -> None:
    elements = [np.array([i]) for i in range(50)]
    first, again, other = (disjoint_split(elements, (0.5, 0.5), seed) for seed in (0, 0, 1))
    assert [part.tolist() for part in first] == [part.tolist() for part in again]
    assert [part.tolist() for part in first] != [part.tolist() for part in other]


def test_no_examples_and_bad_shares() -> None:
    assert [part.tolist() for part in disjoint_split([], (1, 1), 0)] == [[], []]
    with pytest.raises(ValueError, match="shares must be positive"):
        disjoint_split([], (1, 0), 0)
