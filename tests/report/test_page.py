"""The page of a record: it says what the files say, takes any of them, and runs none of their text."""

import json
import math
from pathlib import Path

import pytest
from plotly import graph_objects

from lightning_landscape.commands.report import report
from lightning_landscape.components.merge_tree import MergeTree
from lightning_landscape.report.page.charts import fork_chart, history_chart, profile_chart
from lightning_landscape.report.page.records import find_records, read_record
from lightning_landscape.report.page.tree_chart import tree_chart

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
LINE = {"t": [0.0, 0.5, 1.0], "loss": [0.1, 0.9, 0.2]}


def row(check: int, **further: object) -> dict[str, object]:
    known = {"check": check, "step": 4 * check, "epoch": check - 1, "verdict": "connected", "reason": None}
    numbers = {"height": 0.3, "level": 0.4, "linear_height": 0.9, "barrier": 0.1, "linear_barrier": 0.7, "length": 2.0}
    profiles = {"profile": LINE, "linear_profile": LINE, "proved_profile": {"t": [1.0], "loss": [0.95]}}
    return {**known, **numbers, **profiles, "normalized_length": 1.25, "num_beads": 3, "conclusion": "ok", **further}


def write_checks(folder: Path, *rows: dict[str, object]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checks.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return folder


def test_text_of_files_stays_text(tmp_path: Path) -> None:
    undecided = row(2, verdict="not_found", reason="error", message=EVIL, conclusion=EVIL, height=None, pair=EVIL)
    folder = write_checks(tmp_path / "<script>alert(3)<", row(1), undecided)
    assert report([str(folder)], "landscape report") == 0
    page = (folder / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert len(page) < 8_000_000
    assert "http" not in page.split('id="plotly"')[0].replace("http-equiv", "")


@pytest.mark.parametrize("bad", [EVIL, [], {}, True, 10**400, math.nan])
def test_rows_of_any_shape_are_reported(tmp_path: Path, bad: object) -> None:
    folder = write_checks(tmp_path, {"check": 1}, dict.fromkeys(row(1), bad))
    assert report([str(folder)], "landscape report") == 0


def test_charts_are_charts_of_plotly() -> None:
    rows = [row(1), row(2, verdict="not_found", reason="budget", height=None), row(3, verdict="separated")]
    fork = {"step": 0, "loss_barrier": 0.2, "error_barrier": 0.1, "loss_profile": LINE}
    tree = MergeTree.from_heights([0.1, 0.2], [[0.1, 0.5], [0.5, 0.2]], floors=[[0, 0.4], [0.4, 0]])
    for chart in (history_chart(rows), profile_chart(rows[0]), fork_chart([fork]), tree_chart(tree)):
        graph_objects.Figure(chart)  # refuses what plotly.js would ignore


def test_inner_folders_are_found_and_others_refused(tmp_path: Path) -> None:
    write_checks(tmp_path / "run" / "landscape", row(1))
    write_checks(tmp_path / "run" / "snapshots", row(1))
    assert [found.folder for found in find_records(tmp_path)] == [tmp_path / "run" / "landscape"]
    assert not read_record(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="nothing in"):
        find_records(tmp_path / "empty")
