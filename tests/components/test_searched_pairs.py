"""Which pairs are searched, in which order, on how many processes."""

from __future__ import annotations

import itertools
import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_landscape import LossSurface
from lightning_landscape.components.heights import cheapest_tree, search_heights
from lightning_landscape.components.sharding import Sharded
from lightning_landscape.finders import LinearPath
from lightning_landscape.storage.rows import KeyedRows
from lightning_landscape.surface.random_states import isolated_rng
from tests.components.planted import FINDER, WELLS, Point, plain, planted, points, shaken, surface


def test_cheapest_tree_is_that_of_kruskal_in_order() -> None:
    pairs = list(itertools.combinations(range(7), 2))
    rng = np.random.default_rng(0)
    for _ in range(20):
        costs = rng.integers(-2, 3, len(pairs)).astype(float).tolist()  # ties, zeros and negative ones
        groups, expected = list(range(7)), []
        for index in sorted(range(len(pairs)), key=lambda index: (costs[index], index)):
            a, b = pairs[index]
            if groups[a] != groups[b]:
                expected.append(pairs[index])
                groups = [groups[a] if group == groups[b] else group for group in groups]
        assert cheapest_tree(pairs, costs) == expected


def test_cheapest_tree_of_odd_costs() -> None:
    assert cheapest_tree([], []) == []
    assert cheapest_tree([(0, 1), (0, 2), (1, 2)], [math.nan, math.nan, math.inf]) == [(1, 2), (0, 1)]


def test_a_point_without_a_loss_is_not_searched() -> None:
    def loss(module: Point, batch: None) -> Tensor:
        return torch.where(module.at[0] > 2.1, torch.tensor(math.nan), planted(module.at))

    found = search_heights(LossSurface(Point(), [None], loss_fn=loss), points(), LinearPath())
    assert math.isnan(found.losses[3])
    assert [sorted((row["a"], row["b"])) for row in found.rows if "well 3" in (row["a"], row["b"])] == []
    assert len(found.rows) == 3
    assert found.tree().num_components(5.0) == 1


def test_rounding_of_the_ends_makes_no_component(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points down a slope: each path is highest at an end, which is evaluated in a stack and rounds otherwise."""
    slope = LossSurface(Point(), [None], loss_fn=lambda module, batch: module.at.sum(), vectorize=True)
    losses = slope.losses
    monkeypatch.setattr(slope, "losses", lambda thetas: losses(thetas) * (1 + 3e-7 * (len(thetas) > 1)))
    found = search_heights(slope, {str(i): torch.full((2,), 0.3 * i + 0.1) for i in range(4)})
    tree = found.tree()
    assert tree.num_components(tree.levels()).tolist() == [1, 1, 1, 1]
    assert [merge.height for merge in tree.merges] == found.losses[1:].tolist()


def test_one_point_and_two_equal_ones() -> None:
    alone = search_heights(surface(), points(1))
    assert (alone.rows, alone.tree().num_components(0.1)) == ([], 1)
    twice = search_heights(surface(), {"a": WELLS[0], "b": WELLS[0]})
    assert twice.tree().num_components(float(twice.losses[0])) == 1


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(ValueError, match="points is empty"):
        search_heights(surface(), {})
    with pytest.raises(ValueError, match="pairs must be one of tree, all, got 'some'"):
        search_heights(surface(), points(), pairs="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        search_heights(surface(), {"a": WELLS[0], "b": torch.zeros(3)})


def test_progress_goes_from_lines_to_paths() -> None:
    told: list[tuple[str, float]] = []
    search_heights(surface(), points(3), LinearPath(), progress=lambda *now: told.append(now))
    assert [text for text, _ in told] == [f"straight lines: {i} of 3" for i in (1, 2, 3)] + [
        "paths: 1 of 2",
        "paths: 2 of 2",
    ]
    assert [fraction for _, fraction in told] == pytest.approx([0, 1 / 3, 2 / 3, 0, 0.5])


def test_order_of_the_searches_does_not_matter() -> None:
    several = search_heights(shaken(), points(), FINDER, pairs="all", isolate=isolated_rng)
    two = search_heights(shaken(), {k: points()[k] for k in ("well 2", "well 3")}, FINDER, isolate=isolated_rng)
    [row] = [row for row in several.rows if (row["a"], row["b"]) == ("well 2", "well 3")]
    assert {**row, "seconds": 0} == {**two.rows[0], "seconds": 0}


@pytest.mark.parametrize("size", [2, 3])
def test_results_are_the_same_on_any_number_of_processes(size: int, tmp_path: Path) -> None:
    alone = search_heights(shaken(), points(), FINDER, pairs="all", isolate=isolated_rng)
    outcomes: list[Any] = [None] * size
    slots: list[Any] = [None] * size
    barrier, turn = threading.Barrier(size), threading.Lock()

    def rank(number: int) -> None:
        def together(work: Callable[[], Any]) -> list[Any]:
            slots[number] = json.loads(json.dumps(work()))  # nothing but plain data travels
            turn.release()  # the global random state belongs to one at a time
            barrier.wait()
            everything = list(slots)
            barrier.wait()
            turn.acquire()
            return everything

        turn.acquire()
        share, record = Sharded(number, size, together), KeyedRows(tmp_path / "pairs.jsonl", part=number)
        outcomes[number] = search_heights(
            shaken(), points(), FINDER, pairs="all", share=share, record=record, isolate=isolated_rng
        )
        turn.release()

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(size)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    for outcome in outcomes:
        assert plain(outcome) == plain(alone)
    lines = [path.read_text().splitlines() for path in sorted(tmp_path.iterdir())]
    assert sum(map(len, lines)) == 10
    assert len(lines) == size


def test_an_error_in_one_process_ends_all_of_them() -> None:
    def one(number: int) -> Any:
        failed = ([], "KeyError: 'x'")
        return Sharded(number, 2, lambda work: [([1.0], None), work()] if number else [work(), failed])

    def broken(item: int) -> float:
        raise KeyError("x")

    with pytest.raises(KeyError):
        one(1)(broken, [0, 1])
    with pytest.raises(RuntimeError, match="on rank 1: KeyError: 'x'"):
        one(0)(float, [0, 1])
    with pytest.raises(ValueError, match=r"rank must lie in \[0, size\), got rank 2 of 2"):
        one(2)
