"""Records of searched pairs: work that goes on where it stopped, and rows that are not used."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_landscape import LossSurface
from lightning_landscape.components.heights import search_heights
from lightning_landscape.finders import BezierCurve, Budget, DynamicStringSampling, Ladder, LinearPath
from lightning_landscape.storage.rows import KeyedRows
from lightning_landscape.surface.random_states import isolated_rng
from tests.components.planted import WELLS, Point, plain, planted, points, shaken, surface


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


@pytest.mark.parametrize("work", [None, 0.0, 500.0])
def test_a_line_is_measured_once_for_its_pair_and_for_all_trees(work: float | None, tmp_path: Path) -> None:
    budget, lines, pairs = Budget(work), tmp_path / "lines.jsonl", tmp_path / "pairs.jsonl"

    def evaluations(count: int) -> int:
        measured = surface()
        records = {"record": KeyedRows(pairs), "lines": KeyedRows(lines)}
        found = search_heights(measured, points(count), LinearPath(), budget=budget, **records)
        assert len(found.lines) == count * (count - 1) // 2
        assert len(found.rows) == count - 1
        return measured.work.loss_evaluations - count  # of the points alone

    first, again, more = evaluations(3), evaluations(3), evaluations(4)
    grown = [len(file.read_text().splitlines()) for file in (lines, pairs)]
    assert grown[0] == 6
    assert again == 0
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert all(row["loss_evaluations"] + 2 == len(row["linear_profile"]["t"]) for row in rows)  # ends were known
    if work != 500.0:  # then searched pairs measure their line further
        assert first + more == sum(row["loss_evaluations"] for row in rows)
