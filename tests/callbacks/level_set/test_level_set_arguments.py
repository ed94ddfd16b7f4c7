"""What LevelSetConnectivity takes, refuses, and reads from YAML."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from level_set_runs import Net

from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.cli import LandscapeCLI
from lightning_landscape.finders import DynamicStringSampling, LinearPath

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": "both"}, r"pairs must be one of 'lagged', 'first', 'reference', 'twin', got 'both'"),
        ({"pairs": "reference"}, r"pairs='reference' and reference=FILE go together"),
        ({"reference": "file.ckpt"}, r"reference goes with pairs='reference', got pairs='lagged'"),
        ({"reinitialize": print}, r"reinitialize goes with pairs='twin', got pairs='lagged'"),
        ({"every_n_epochs": 0}, r"every_n_epochs must be an integer from 1, got 0"),
        ({"every_n_epochs": 1.5}, r"every_n_epochs must be an integer from 1, got 1.5"),
        ({"every_n_epochs": True}, r"every_n_epochs must be an integer from 1, got True"),
        ({"num_batches": -1}, r"num_batches must be an integer from 1, got -1"),
        ({"margin": -0.1}, r"margin must be a finite number of at least 0, got -0.1"),
        ({"margin": math.nan}, r"margin must be a finite number of at least 0, got nan"),
        ({"margin": math.inf}, r"margin must be a finite number of at least 0, got inf"),
        ({"overhead": -1}, r"overhead must be a finite number of at least 0, got -1"),
        ({"overhead": math.inf}, r"overhead must be a finite number of at least 0, got inf"),
        ({"max_seconds": -1}, r"max_seconds must be a finite number of at least 0, got -1"),
        ({"level": math.nan}, r"level is NaN"),
        ({"on_error": "ignore"}, r"on_error must be one of 'warn', 'raise', got 'ignore'"),
        ({"seed": -1}, r"seed must lie in \[0, 2\*\*31\), got -1"),
        ({"seed": 2**31}, r"seed must lie in"),
        ({"name": ""}, r"name must be a plain file name"),
        ({"name": "a/b"}, r"name must be a plain file name .* got 'a/b'"),
        ({"name": "../up"}, r"name must be a plain file name"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LevelSetConnectivity(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"margin": None},
        {"finder": DynamicStringSampling},
        {"finder": "DynamicStringSampling"},
        {"batch_norm": "frozn"},
    ],
    ids=str,
)
def test_arguments_of_the_wrong_kind_are_refused(options: dict[str, Any]) -> None:
    (argument,) = options
    with pytest.raises(ValueError, match=f"{argument} must be"):
        LevelSetConnectivity(**options)


def test_finder_of_the_user_is_left_as_it_is() -> None:
    finder = LinearPath(samples=5)
    before = dict(vars(finder))
    callback = LevelSetConnectivity(finder=finder, margin=0.01)
    assert vars(finder) == before
    assert callback.margin == 0.01


def test_copies_and_pickles_before_use() -> None:
    callback = LevelSetConnectivity(pairs="first", every_n_epochs=3, finder=LinearPath(samples=5), name="x", seed=4)
    for clone in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert clone.state_key == callback.state_key
        assert (clone.pairs, clone.every_n_epochs, clone.name, clone.seed) == ("first", 3, "x", 4)
        assert clone.finder.samples == 5


@pytest.fixture
def _no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["landscape"])


@pytest.mark.usefixtures("_no_arguments")
def test_configured_from_yaml_by_class_path(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        """
        trainer:
          accelerator: cpu
          logger: false
          callbacks:
            - class_path: lightning_landscape.callbacks.LevelSetConnectivity
              init_args:
                pairs: first
                every_n_epochs: 5
                overhead: null
                margin: 0.1
                name: demo
                finder:
                  class_path: lightning_landscape.finders.DynamicStringSampling
                  init_args: {alpha: 0.9, split: midpoint, max_depth: 4}
        """
    )
    cli = LandscapeCLI(Net, run=False, args=["--config", str(config)], save_config_callback=None)
    (callback,) = [c for c in cli.trainer.callbacks if isinstance(c, LevelSetConnectivity)]  # type: ignore[attr-defined]
    assert (callback.pairs, callback.every_n_epochs, callback.overhead, callback.name) == ("first", 5, None, "demo")
    assert isinstance(callback.finder, DynamicStringSampling)
    assert (callback.finder.alpha, callback.finder.split, callback.finder.max_depth) == (0.9, "midpoint", 4)
    assert callback.margin == 0.1


@pytest.mark.usefixtures("_no_arguments")
def test_wrong_value_in_yaml_is_refused_by_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--trainer.callbacks+=lightning_landscape.callbacks.LevelSetConnectivity", "--trainer.callbacks.pairs=both"]
    with pytest.raises(SystemExit):
        LandscapeCLI(Net, run=False, args=args, save_config_callback=None)
    assert "both" in capsys.readouterr().err
