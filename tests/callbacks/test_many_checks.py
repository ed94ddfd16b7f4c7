"""The harness of many checks, on a few; and on three hundred where there is time."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.stress.many_checks import measure, table

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("checks", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_a_check_leaves_nothing_behind_but_its_row(tmp_path: Path, checks: int) -> None:
    measured = measure(checks, tmp_path)
    assert measured["checks"] == checks
    memory, descriptors, threads, files = measured["readings"].values()
    assert max(memory) < memory[10] + 32
    assert max(descriptors) <= descriptors[10] + 1
    assert max(threads) <= threads[10] + 1
    assert max(files) <= 3
    for what in ("rows", "weights"):
        written, kept = measured[what]
        assert 0 < written <= 1.1 * kept
    assert table(measured, early=10).count("\n") == 10
