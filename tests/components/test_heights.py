"""Which pairs are searched: planted landscapes with known saddles, order, processes, interrupted work."""

from __future__ import annotations

import functools
import itertools
import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from torch import Tensor, nn

from lightning_landscape import LossSurface
from lightning_landscape.attach.rng import isolated_rng
from lightning_landscape.components.heights import PairwiseHeights, cheapest_tree, search_heights
from lightning_landscape.components.merge_tree import Array
from lightning_landscape.components.sharding import Sharded
from lightning_landscape.finders import BezierCurve, Budget, DynamicStringSampling, Ladder, LinearPath
from lightning_landscape.storage.rows import KeyedRows

WELLS = torch.tensor([[0.0, 0.0], [1.0, 0.1], [0.4, 0.9], [2.2, 0.3], [2.0, 1.4]])
DEPTHS = torch.tensor([1.0, 0.8, 0.9, 1.1, 0.7])
HILLS = torch.tensor([[0.5, 0.05], [1.6, 0.2]])  # on straight lines between wells
HEIGHTS = torch.tensor([0.5, 0.6])
WELL, HILL = 0.28, 0.15


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.zeros(2))


def planted(points: Tensor) -> Tensor:
    """1 less a sum of Gaussian wells, plus Gaussian hills; points (..., 2)."""
    wells = (points[..., None, :] - WELLS.to(points)).square().sum(-1)
    hills = (points[..., None, :] - HILLS.to(points)).square().sum(-1)
    deep = (DEPTHS.to(points) * torch.exp(-wells / (2 * WELL**2))).sum(-1)
    return 1 - deep + (HEIGHTS.to(points) * torch.exp(-hills / (2 * HILL**2))).sum(-1)


def surface() -> LossSurface:
    return LossSurface(Point(), [None], loss_fn=lambda module, batch: planted(module.at), vectorize=True)


def points(count: int = 5) -> dict[str, Tensor]:
    return {f"well {index}": WELLS[index] for index in range(count)}


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


def plain(found: PairwiseHeights) -> Any:
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in found.rows]
    return rows, found.heights.tolist(), found.losses.tolist()


class Noise:
    """Training batches in an order that the global random state draws."""

    def __iter__(self) -> Any:
        for _ in range(3):
            yield 0.3 * torch.randn(2)


def shaken() -> LossSurface:
    return LossSurface(
        Point(), [None], lambda m, batch: planted(m.at if batch is None else m.at + batch), Noise(), vectorize=False
    )


FINDER = DynamicStringSampling(max_depth=1, max_bead_steps=5, shorten=0, samples=3)


@pytest.mark.parametrize("size", [2, 3])
def test_results_are_the_same_on_any_number_of_processes(size: int, tmp_path: Path) -> None:
    alone = search_heights(shaken(), points(), FINDER, pairs="all", isolate=isolated_rng)
    outcomes: list[Any] = [None] * size
    slots: list[Any] = [None] * size
    barrier, turn = threading.Barrier(size), threading.Lock()

    def rank(number: int) -> None:
        def gather(mine: Any) -> list[Any]:
            slots[number] = json.loads(json.dumps(mine))  # nothing but plain data travels
            turn.release()  # the global random state belongs to one at a time
            barrier.wait()
            everything = list(slots)
            barrier.wait()
            turn.acquire()
            return everything

        turn.acquire()
        share, record = Sharded(number, size, gather), KeyedRows(tmp_path / "pairs.jsonl", part=number)
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


def test_order_of_the_searches_does_not_matter() -> None:
    several = search_heights(shaken(), points(), FINDER, pairs="all", isolate=isolated_rng)
    two = search_heights(shaken(), {k: points()[k] for k in ("well 2", "well 3")}, FINDER, isolate=isolated_rng)
    [row] = [row for row in several.rows if (row["a"], row["b"]) == ("well 2", "well 3")]
    assert {**row, "seconds": 0} == {**two.rows[0], "seconds": 0}


def test_an_error_in_one_process_ends_all_of_them() -> None:
    def one(number: int) -> Any:
        return Sharded(number, 2, lambda mine: [([1.0], None), mine] if number else [mine, ([], "KeyError: 'x'")])

    def broken(item: int) -> float:
        raise KeyError("x")

    with pytest.raises(KeyError):
        one(1)(broken, [0, 1])
    with pytest.raises(RuntimeError, match="on rank 1: KeyError: 'x'"):
        one(0)(float, [0, 1])
    with pytest.raises(ValueError, match=r"rank must lie in \[0, size\), got rank 2 of 2"):
        one(2)


class Counting(DynamicStringSampling):
    """Fails at the n-th search."""

    calls = 0
    last = math.inf

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        type(self).calls += 1
        if self.calls > self.last:
            raise KeyboardInterrupt
        return super().connect(*args, **kwargs)


def test_interrupted_work_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"max_depth": 1, "max_bead_steps": 5, "shorten": 0, "samples": 3}
    whole = search_heights(shaken(), points(), Counting(**options), isolate=isolated_rng)
    assert Counting.calls == 4
    monkeypatch.setattr(Counting, "calls", 0)
    monkeypatch.setattr(Counting, "last", 2)
    path = tmp_path / "pairs.jsonl"
    with pytest.raises(KeyboardInterrupt):
        search_heights(shaken(), points(), Counting(**options), record=KeyedRows(path), isolate=isolated_rng)
    assert len(path.read_text().splitlines()) == 2
    monkeypatch.setattr(Counting, "last", math.inf)
    monkeypatch.setattr(Counting, "calls", 0)
    resumed = search_heights(shaken(), points(), Counting(**options), record=KeyedRows(path), isolate=isolated_rng)
    assert Counting.calls == 2
    assert plain(resumed) == plain(whole)
    search_heights(shaken(), points(), Counting(**options), record=KeyedRows(path), isolate=isolated_rng)
    assert Counting.calls == 2


def test_a_record_of_other_points_settings_or_data_is_not_used(tmp_path: Path, monkeypatch: Any) -> None:
    path, options = tmp_path / "pairs.jsonl", {"max_depth": 1, "max_bead_steps": 2, "shorten": 0, "samples": 3}
    two = {"a": WELLS[0], "b": WELLS[3]}

    def calls(surface: LossSurface, points: dict[str, Tensor], **changed: Any) -> int:
        monkeypatch.setattr(Counting, "calls", 0)
        budget = Budget(changed.pop("work", 99.0))
        finder = Counting(**options | changed)
        search_heights(surface, points, finder, budget=budget, record=KeyedRows(path))
        return Counting.calls

    lifted = LossSurface(Point(), [None], loss_fn=lambda module, batch: planted(module.at) + 0.5, vectorize=True)
    assert calls(surface(), two) == 1
    assert calls(surface(), {"x": WELLS[0], "y": WELLS[3]}) == 0  # names are no part of it
    assert calls(surface(), {"a": WELLS[0], "b": WELLS[3] + 1e-3}) == 1
    assert calls(surface(), two, max_bead_steps=3) == 1
    assert calls(surface(), two, work=98.0) == 1
    assert calls(lifted, two) == 1


@pytest.mark.parametrize("text", ["nonsense", "[1]", '{"no": "key"}', "[" * 100_000])
def test_a_file_that_is_no_record_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"line 1 of .*pairs\.jsonl is no row of a record"):
        KeyedRows(path)
    assert path.read_text() == text


def test_progress_goes_from_lines_to_paths() -> None:
    told: list[tuple[str, float]] = []
    search_heights(surface(), points(3), LinearPath(), progress=lambda *now: told.append(now))
    assert [text for text, _ in told] == [f"straight lines: {i} of 3" for i in (1, 2, 3)] + [
        "paths: 1 of 2",
        "paths: 2 of 2",
    ]
    assert [fraction for _, fraction in told] == pytest.approx([0, 1 / 3, 2 / 3, 0, 0.5])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Ladder(rungs=[LinearPath()]), Ladder(rungs=[LinearPath(), BezierCurve()])),
        (Ladder(rungs=[BezierCurve(bends=1)]), Ladder(rungs=[BezierCurve(bends=2)])),
        (BezierCurve(), BezierCurve(optimizer=torch.optim.SGD)),
        tuple(BezierCurve(optimizer=lambda bends, lr=lr: torch.optim.SGD(bends, lr)) for lr in (0.1, 0.2)),
        tuple(BezierCurve(max_steps=steps) for steps in np.array([3, 4])),
        tuple(BezierCurve(optimizer=functools.partial(torch.optim.Adam, eps=eps)) for eps in (1e-8, 1e-3)),
    ],
)
def test_a_record_of_a_finder_that_holds_others_is_not_used(one: Any, other: Any, tmp_path: Path) -> None:
    record, two = tmp_path / "pairs.jsonl", {"a": WELLS[0], "b": WELLS[3]}
    for finder, searches in ((one, 1), (other, 2), (one, 2)):
        search_heights(surface(), two, finder, budget=Budget(0), record=KeyedRows(record))
        assert len(record.read_text().splitlines()) == searches


def test_a_recorded_row_without_its_fields_is_searched_again(tmp_path: Path) -> None:
    record = tmp_path / "pairs.jsonl"
    two = {"a": WELLS[0], "b": WELLS[3]}
    first = search_heights(surface(), two, LinearPath(), record=KeyedRows(record))
    key = json.loads(record.read_text())["key"]
    record.write_text(json.dumps({"key": key}) + "\n")
    again = search_heights(surface(), two, LinearPath(), record=KeyedRows(record))
    assert again.rows[0]["height"] == pytest.approx(first.rows[0]["height"], rel=1e-6)
