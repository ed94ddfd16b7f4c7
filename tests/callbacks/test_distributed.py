"""Two processes: the same values on both, one set of files, and nobody waits for ever."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from resumable import Net
from two_ranks import SCENARIOS

from lightning_landscape.attach.ranks import on_rank_zero
from lightning_landscape.callbacks import LevelSetConnectivity

Results = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What the ranks of each scenario wrote; a rank that waited for ever was killed and wrote nothing."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("two_ranks.py")), str(folder)]
    done = subprocess.run(command, env=environment, timeout=900, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {
        name: [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(scenario.devices)]
        for name, scenario in SCENARIOS.items()
        if all((folder / f"{name}-{rank}.json").exists() for rank in range(scenario.devices))
    }
    assert sorted(found) == sorted(SCENARIOS), (done.stdout[-2000:], done.stderr[-3000:])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rows"), [("lagged", 2), ("twin", 3)])
def test_both_ranks_log_what_rank_zero_wrote(results: Results, name: str, rows: int) -> None:
    zero, one = results[name]
    assert zero["error"] is one["error"] is None
    assert len(zero["rows"]) == rows
    assert any(row["gradient_steps"] > 0 for row in zero["rows"])
    assert one["rows"] == []
    assert str(zero["logged"]) == str(one["logged"])  # as text: NaN is in the first epochs
    heights = [logged["landscape/height"] for logged in zero["logged"] if "landscape/height" in logged]
    assert [h for h in heights if not math.isnan(h)] == pytest.approx([row["height"] for row in zero["rows"]])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lagged", "twin", "check fails"])
def test_training_is_that_of_two_ranks_without_the_callback(results: Results, name: str) -> None:
    for rank in (0, 1):
        for what in ("weights", "random_state"):
            assert results[name][rank][what] == results["none"][rank][what]


@pytest.mark.slow
def test_batches_of_a_stream_are_recorded_on_rank_zero_and_training_is_that_without(results: Results) -> None:
    for rank in (0, 1):
        assert results["stream"][rank]["error"] is None
        for what in ("weights", "random_state"):
            assert results["stream"][rank][what] == results["stream alone"][rank][what]
    zero, one = results["stream"]
    assert [(row["data"], row["reason"] != "error") for row in zero["rows"]] == [("recorded", True)] * 2
    assert str(zero["logged"]) == str(one["logged"])


@pytest.mark.slow
def test_twin_is_the_same_on_both_ranks(results: Results) -> None:
    zero, one = (result["twin"] for result in results["twin"])
    assert {key for key in zero if zero[key] != one[key]} == {"net.1.running_mean", "net.1.running_var"}


@pytest.mark.slow
def test_two_ranks_find_what_one_finds_with_twice_the_batch(results: Results) -> None:
    (alone,), (zero, one) = results["one rank"], results["two ranks"]
    assert zero["twin"] == one["twin"]
    for name, values in alone["twin"].items():
        torch.testing.assert_close(torch.tensor(zero["twin"][name]), torch.tensor(values), rtol=1e-5, atol=1e-6)
    assert [row["verdict"] for row in zero["rows"]] == [row["verdict"] for row in alone["rows"]]
    for key in ("epoch", "step", "level", "loss_a", "loss_b", "linear_height", "linear_barrier", "length"):
        expected = [row[key] for row in alone["rows"]]
        assert [row[key] for row in zero["rows"]] == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_failing_check_is_a_row_and_training_goes_on(results: Results) -> None:
    zero, one = results["check fails"]
    assert zero["error"] is one["error"] is None
    assert [row["message"] for row in zero["rows"]] == ["RuntimeError: no path today"] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [("check fails and raises", "RuntimeError: no path today"), ("start fails", "OSError: disk full")],
)
def test_error_on_rank_zero_ends_both(results: Results, name: str, message: str) -> None:
    zero, one = results[name]
    assert zero["error"] == message
    assert one["error"] == f"RuntimeError: on rank zero: {message}"


@pytest.mark.slow
def test_check_may_outlast_the_timeout_of_the_process_group(results: Results) -> None:
    zero, one = results["slow check"]
    assert zero["error"] is one["error"] is None
    assert len(zero["rows"]) == 1


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy])
def test_sharded_weights_are_refused_with_advice(strategy: type) -> None:
    trainer = SimpleNamespace(strategy=strategy.__new__(strategy))
    with pytest.raises(MisconfigurationException, match=rf"LevelSetConnectivity needs.*{strategy.__name__}.*consolid"):
        LevelSetConnectivity().setup(trainer, Net(), "fit")


def test_one_process_needs_no_group() -> None:
    assert on_rank_zero(SimpleNamespace(world_size=1, is_global_zero=True), lambda: 7) == 7
    with pytest.raises(KeyError):
        on_rank_zero(SimpleNamespace(world_size=1, is_global_zero=True), lambda: {}[0])
