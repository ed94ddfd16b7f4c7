"""A hundred hostile files: each a clear error that names the file, at once, in little memory, and nothing executed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile_inputs import CASES

Outcomes = list[dict[str, Any]]


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    """What came of every case, in a process whose memory is bounded."""
    command = [sys.executable, str(Path(__file__).with_name("hostile_inputs.py"))]
    done = subprocess.run(command, timeout=300, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(CASES) >= 100
    return found


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{case[0]}, {case[1]}" for case in CASES])
def test_a_hostile_file_is_refused_by_name(outcomes: Outcomes, number: int) -> None:
    found = outcomes[number]
    assert {"ValueError", "OSError", "CorruptFileError"} & set(found["kind"].split(",")), found
    assert not found["executed"]
    assert found["seconds"] < 20
    assert found["written"] < 1 << 26
    assert "elete" not in found["message"]
    shown = {"two\nlines": "two\\\\nlines", "x": "x."}.get(CASES[number][3], "nnn")
    if CASES[number][3].isascii():
        assert shown in found["message"].replace("two\\nlines", "two\\\\nlines"), found
