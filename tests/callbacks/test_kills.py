"""A few cells of the harness that kills runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.stress.kills import NAMED, RANDOM, cells, table

CELLS = ["3", "7", "19", "22", "28", "33"]  # fsync, rename, append, figure, checkpointed, random


def test_there_are_fifty_kills_of_every_kind() -> None:
    kills = cells()
    assert len(kills) == 50
    assert {kill.moment for kill in kills} == {*NAMED, "random"}
    assert sum(kill.moment == "random" for kill in kills) == RANDOM
    assert {(kill.pairs, kill.figures) for kill in kills if kill.moment == "random"} >= {
        ("lagged", True),
        ("twin", False),
    }
    assert kills == cells()
    row = {"moment": "fsync", "differs": ["rows"], "leftovers": ["x.tmp"]}
    assert table([row, row | {"differs": []}]).splitlines()[-1] == "| fsync | 2 | 1 | 2 |"


@pytest.mark.slow
def test_killed_runs_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.stress.kills", "--out", str(tmp_path / "kills.jsonl"), "--cells", *CELLS]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{len(CELLS)} of {len(CELLS)} held" in ended.stdout
