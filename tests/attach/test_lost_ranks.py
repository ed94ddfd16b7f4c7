"""A rank that dies, stalls or raises: every other process ends in time and names it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CELLS = (
    "2 ranks, ((setup|joining), kill on 1|joining, raise on 0|search, (kill on 1|stop on 0|raise on 0)|answer, kill)"
)


@pytest.mark.slow
def test_every_process_ends_and_names_the_rank_that_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, "-m", "scripts.stress.ranks", "--out", str(out), "--cells", CELLS]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, timeout=500, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 8
    assert [row for row in rows if not row["held"]] == []
