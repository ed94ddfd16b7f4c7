"""The harness of many checks, on a few: ``python -m scripts.stress.many_checks`` makes three hundred."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.stress.many_checks import measure, table

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_check_leaves_nothing_behind_but_its_row(tmp_path: Path) -> None:
    measured = measure(20, tmp_path)
    assert measured["checks"] == 20
    memory, descriptors, threads, files = measured["readings"].values()
    assert max(memory) < memory[10] + 32
    assert max(descriptors) <= descriptors[10] + 1
    assert max(threads) <= threads[10] + 1
    assert max(files) <= 3
    for what in ("rows", "weights"):
        written, kept = measured[what]
        assert 0 < written <= 1.1 * kept
    assert table(measured, early=10).count("\n") == 10
