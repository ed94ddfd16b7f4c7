"""Every recipe runs, and trains the same weights with our callbacks and without them."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
import yaml
from torch import Tensor

from lightning_landscape.cli import main

RECIPES = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
OURS = "lightning_landscape.callbacks."
# Large files and networks.
SLOW = (
    "cifar10", "resnet20", "mnist", "ptb", "snap_dblp", "lista_12", "lista_adversarial", "lista_cpss",
    "lista_mnist_patches",
)  # fmt: skip
EPOCHS = 2
STEPS = 2  # of an epoch
# Draws its figures, starts W&B and times loop against vmap, which one recipe shows as well as all.
WHOLE = "digits"

SHORT_TRAINER = {
    "max_epochs": EPOCHS,
    "limit_train_batches": STEPS,
    "limit_val_batches": 1,
    "num_sanity_val_steps": 0,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 1,
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
SHORT_CALLBACK = {"every_n_epochs": 1, "num_batches": 1, "overhead": 0.25, "on_error": "raise", "at_steps": [0, 3]}
SHORT_DATA = {"batch_size": 8, "num_nodes": 60}


@dataclass
class Trained:
    """What a run leaves behind and nobody else may change."""

    weights: dict[str, Tensor]
    optimizers: list[Any]
    random_states: list[Any]


def parameters_of(class_path: str) -> set[str]:
    module, _, name = class_path.rpartition(".")
    return set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)


def override(part: dict[str, Any], values: dict[str, Any]) -> None:
    """Sets those of ``values`` that the class of ``part`` knows."""
    known = parameters_of(part["class_path"])
    part.setdefault("init_args", {}).update({key: value for key, value in values.items() if key in known})


def shortened(recipe: dict[str, Any], cache: Path, source: Path | None) -> dict[str, Any]:
    """The recipe with a few batches, its data and its landscape searches cut down; its files go where they went."""
    recipe = copy.deepcopy(recipe)
    override(recipe["data"], SHORT_DATA | {"root": str(cache)} | ({} if source is None else {"source": str(source)}))
    recipe["trainer"] |= SHORT_TRAINER
    for callback in recipe["trainer"]["callbacks"]:
        if callback["class_path"].startswith(OURS):
            override(callback, SHORT_CALLBACK)
    return recipe


def fit(recipe: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Runs ``landscape fit`` in ``folder``, which has no link with the repository."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["landscape"])
    end = {"dirpath": str(folder / "end"), "filename": "end", "every_n_train_steps": STEPS * EPOCHS}
    recipe = copy.deepcopy(recipe)
    recipe["trainer"]["callbacks"].append(
        {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": end}
    )
    (folder / "short.yaml").write_text(yaml.safe_dump(recipe))
    main(["fit", "--config", "short.yaml"])
    wandb.finish()
    states = [torch.get_rng_state(), random.getstate(), np.random.get_state()]  # noqa: NPY002
    (checkpoint,) = (folder / "end").iterdir()
    saved = torch.load(checkpoint, weights_only=True)
    return Trained(saved["state_dict"], saved["optimizer_states"], states)


def assert_same(ours: Any, plain: Any) -> None:
    """Equal in every bit."""
    if isinstance(plain, Trained):
        ours, plain = vars(ours), vars(plain)
    assert type(ours) is type(plain)
    if isinstance(plain, dict):
        assert list(ours) == list(plain)
        ours, plain = list(ours.values()), list(plain.values())
    if isinstance(plain, list | tuple):
        assert len(ours) == len(plain)
        for mine, other in zip(ours, plain, strict=True):
            assert_same(mine, other)
    elif isinstance(plain, Tensor | np.ndarray):
        mine, other = np.asarray(ours), np.asarray(plain)
        assert (mine.dtype, mine.shape, mine.tobytes()) == (other.dtype, other.shape, other.tobytes())
    else:
        assert ours == plain


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=pytest.mark.slow if p.stem in SLOW else ()) for p in RECIPES]
)
def test_recipe_trains_the_same_with_its_landscape_callbacks_and_without(
    path: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if path.stem != WHOLE:
        request.getfixturevalue("blank_figures")
        monkeypatch.setenv("WANDB_MODE", "disabled")
    text = path.read_text()
    assert f"landscape fit --config configs/{path.name}" in text.partition("seed_everything")[0]
    recipe = yaml.safe_load(text)
    needs_files = "source" in recipe["data"].get("init_args", {})
    source: Path | None = request.getfixturevalue("data_root") if needs_files else None
    of_cifar = recipe["data"]["class_path"].endswith("CIFAR10DataModule")
    cache: Path = request.getfixturevalue("unpacked_cifar10" if of_cifar else "unpacked")
    recipe = shortened(recipe, cache, source)

    ours = fit(recipe, tmp_path / "ours", monkeypatch)
    closing = capsys.readouterr().out
    callbacks = recipe["trainer"]["callbacks"]
    assert any(callback["class_path"].startswith(OURS) for callback in callbacks)
    checked = [callback for callback in callbacks if callback["class_path"] == f"{OURS}LevelSetConnectivity"]
    assert ("verdict" in closing) == bool(checked)
    for callback in checked:
        lines = Path(callback["init_args"]["dirpath"], "checks.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        # The first check of a lagged pairing has no partner yet.
        assert len(rows) == (EPOCHS if callback["init_args"].get("pairs") == "twin" else EPOCHS - 1)
        assert all(row["reason"] != "error" and row["height"] >= row["loss_a"] for row in rows)
    # Whatever a recipe writes lies in its own folder.
    folder = Path(recipe["trainer"]["default_root_dir"])
    assert folder.parts[0] == "runs"
    assert {p.name for p in Path().iterdir()} <= {"short.yaml", "end", "runs"}
    assert list(Path("runs").iterdir()) == [folder]

    recipe["trainer"]["logger"] = False  # that a logger is left as it is was shown above
    recipe["trainer"]["callbacks"] = [
        callback for callback in recipe["trainer"]["callbacks"] if not callback["class_path"].startswith(OURS)
    ]
    assert_same(ours, fit(recipe, tmp_path / "plain", monkeypatch))


def test_there_are_recipes() -> None:
    names = {"digits", "quadratic", "cubic", "mnist", "cifar10", "resnet20", "ptb"}
    names |= {"sbm_gnn", "sbm_lgnn", "sbm_landscape"}
    assert names <= {path.stem for path in RECIPES}
