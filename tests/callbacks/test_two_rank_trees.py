"""MergeTree and ForkStability in two processes: one result, the same training, and nobody waits for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from two_rank_trees import SCENARIOS

pytestmark = pytest.mark.slow
Results = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What the ranks of each scenario wrote; a rank that waited for ever was killed and wrote nothing."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("two_rank_trees.py")), str(folder)]
    done = subprocess.run(command, env=environment, timeout=900, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        name: [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(scenario[1])]
        for name, scenario in SCENARIOS.items()
    }


def test_both_ranks_have_the_numbers_that_rank_zero_wrote(results: Results) -> None:
    zero, one = results["two ranks"]
    assert zero["error"] is one["error"] is None
    assert zero["metrics"] == one["metrics"]
    assert len(zero["metrics"]) == 6 + 2 * 5 + 2
    assert {"landscape/fork/stable_step", "landscape/tree/overhead"} <= zero["metrics"].keys()
    assert [row["num_points"] for row in zero["trees"]] == [1, 2, 3]
    assert [row["step"] for row in zero["forks"]] == [0, 2]
    assert one["trees"] == []


@pytest.mark.parametrize("name", ["two ranks", "fails"])
def test_training_is_that_of_two_ranks_without_callbacks(results: Results, name: str) -> None:
    for rank in (0, 1):
        for what in ("weights", "random_state"):
            assert results[name][rank][what] == results["none"][rank][what]


def test_two_ranks_find_what_one_finds_with_twice_the_batch(results: Results) -> None:
    (alone,), (zero, _) = results["one rank"], results["two ranks"]
    for mine, other in zip(zero["trees"], alone["trees"], strict=True):
        for key in ("level", "num_components", "max_components"):
            assert mine[key] == pytest.approx(other[key], rel=1e-4)
    for mine, other in zip(zero["forks"], alone["forks"], strict=True):
        assert mine["child_loss"] == pytest.approx(other["child_loss"], rel=1e-4)
    assert [row["child_steps"] for row in zero["forks"]] == [row["child_steps"] for row in alone["forks"]] == [3, 1]


def test_failure_on_rank_zero_is_a_warning_for_both(results: Results) -> None:
    for rank in results["fails"]:
        assert rank["error"] is None
        assert rank["forks"] == []


def test_failure_that_raises_ends_both(results: Results) -> None:
    zero, one = results["fails and raises"]
    assert zero["error"] == "OSError: disk full"
    assert one["error"] == "RuntimeError: on rank zero: OSError: disk full"
