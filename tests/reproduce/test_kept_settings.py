"""No result of other settings is taken: each setting that a result depends on is kept with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lightning_landscape.community import BetheHessian
from lightning_landscape.finders import LinearPath
from lightning_landscape.models import ImageClassifier
from scripts.benchmarks import compare_finders, pairs
from scripts.reproduce.community import landscape, methods
from scripts.reproduce.shared.kept import KeptError
from scripts.reproduce.sparse_coding import training

SMALL = methods.GraphSet(40, 2, 6.0, 3.0, True, 2)


def test_options_of_a_classical_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[int] = []
    monkeypatch.setattr(methods, "scores", lambda *_: scored.append(1) or {"overlap": [0.5]})
    for seed in (0, 0, 1, 0):
        monkeypatch.setitem(methods.BASELINES, "BetheHessian", lambda graphs, seed=seed: BetheHessian(seed=seed))
        methods.measured(SMALL, ["BetheHessian"], {}, tmp_path)
    assert len(scored) == 2
    methods.measured(replace(SMALL, seed=1), ["BetheHessian"], {}, tmp_path)
    assert len(scored) == 3


def test_the_recipe_of_a_landscape(monkeypatch: pytest.MonkeyPatch) -> None:
    work = (landscape.SETTINGS[0], 20, 1, 1, 0)
    before = landscape._settings(*work)
    recipe = before["recipe"]
    recipe["trainer"]["gradient_clip_val"] = 7.5
    monkeypatch.setattr(landscape, "read_recipe", lambda _: recipe)
    assert landscape._settings(*work)["recipe"]["trainer"] == recipe["trainer"]
    assert before != landscape._settings(landscape.SETTINGS[1], *work[1:])


def test_the_data_of_a_sparse_coder(monkeypatch: pytest.MonkeyPatch) -> None:
    one = training.Training("lista", "gaussian", (1,), (1,))
    before, read = training.identity(one), training.recipe("lista", "gaussian")
    read["data"]["init_args"]["batch_size"] = 3
    monkeypatch.setattr(training, "recipe", lambda *_: read)
    assert training.identity(one) != before


def test_ends_of_a_benchmark_that_were_trained_otherwise_are_refused(tmp_path: Path) -> None:
    digits = pairs.PAIRS[0]
    quick = replace(digits, loss=3.0)
    kept = pairs.trained(quick, tmp_path, tmp_path)
    again = pairs.trained(quick, tmp_path, tmp_path)
    assert torch.equal(kept.theta_a, again.theta_a)
    assert kept.settings == again.settings
    slower = replace(quick, model=lambda: ImageClassifier(image_size=8, learning_rate=1e-4))
    for other in (replace(quick, loss=2.9), replace(quick, batch_size=32), slower):
        with pytest.raises(KeptError, match="other settings"):
            pairs.trained(other, tmp_path, tmp_path)
    save_file({"theta_a": kept.theta_a, "theta_b": kept.theta_b}, tmp_path / "digits.safetensors", {"steps": "1"})
    with pytest.raises(KeptError, match="other settings"):
        pairs.trained(quick, tmp_path, tmp_path)


def test_a_row_of_a_finder_with_other_options_or_budget_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Any] = []
    monkeypatch.setattr(compare_finders, "measured", lambda *given: rows.append(given) or {"height": 1.0})
    quick = replace(pairs.PAIRS[0], loss=3.0)
    for samples, budget in ((5, 1.0), (5, 1.0), (7, 1.0), (5, 2.0)):
        monkeypatch.setitem(compare_finders.FINDERS, "LinearPath", LinearPath(samples=samples))
        compare_finders.row_of(quick, "LinearPath", budget, tmp_path, tmp_path)
    assert len(rows) == 3
