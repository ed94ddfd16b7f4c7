"""Recipes that no run can have: each is refused with what to write instead."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from lightning_landscape.__main__ import main
from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.recipes import RecipeError, add_recipe, build_recipe, callback_entry, parse, read_recipe
from lightning_landscape.report.plain_help import PlainArgumentParser

MODEL = "model: {class_path: package.Net}\n"
NET = "package.Net"
RUN = "give the recipe of the run"
ENTRY = r"must be as \{class_path: package.Class"
NO_FILES = {  # what landscape fit could not have read, for commands and scripts alike
    "no mapping": ("[1]", "no section 'model'"),
    "a number": ("3", "no section 'model'"),
    "nothing": ("", "no section 'model'"),
    "no bytes of text": (b"\xff\xfe\x00\x01", "Give the recipe"),
    "zero bytes": (b"\x00\x00", "Give the recipe"),
    "a key twice": (MODEL + MODEL, "the key 'model' stands twice"),
    "a key twice, deep": (MODEL + "trainer: {callbacks: [{a: 1, a: 2}]}", "the key 'a' stands twice"),
    "a list as key": ("? [1]\n: 2\n" + MODEL, "Give the recipe"),
    "an object of Python": ("model: !!python/object:os.system {}", "Give the recipe"),
    "a call of Python": ("model: !!python/object/apply:os.mkdir [made]", "Give the recipe"),
    "a tag of one's own": ("model: !net 3", "Give the recipe"),
    "bytes": (MODEL + "data: !!binary aGk=", "neither a mapping, a list, text nor a number"),
    "a set": (MODEL + "data: !!set {a}", "neither a mapping, a list, text nor a number"),
    "two documents": (MODEL + "---\n" + MODEL, "Give the recipe"),
    "it holds itself": ("model: &m {class_path: package.Net, init_args: *m}", "holds itself"),
    "a bomb": ("a0: &a0 [1, 1]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(40)), "too large"),
    "deep": ("[" * 3000, "Give the recipe"),
    "model is a number": ("model: 3", ENTRY),
    "model is empty": ("model:", "no section 'model'"),
    "model is a list": ("model: [1]", ENTRY),
    "model has no class": ("model: {init_args: {}}", ENTRY),
    "model has a number as class": ("model: {class_path: 3}", ENTRY),
    "model has a list of arguments": ("model: {class_path: package.Net, init_args: []}", ENTRY),
    "data are a number": (MODEL + "data: 3", ENTRY),
    "data have no class": (MODEL + "data: {}", ENTRY),
    "trainer is a list": (MODEL + "trainer: [1]", "trainer must be a section"),
    "trainer is text": (MODEL + "trainer: cpu", "trainer must be a section"),
}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "recipe.yaml"


def written(file: Path, text: str | bytes) -> Path:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize(("text", "message"), NO_FILES.values(), ids=NO_FILES)
def test_a_file_that_is_no_recipe_is_refused(recipe: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as refused:
        read_recipe(written(recipe, text))
    assert str(refused.value).startswith(str(recipe))
    assert not (recipe.parent / "made").exists()


@pytest.mark.parametrize(
    "name", ["a call of Python", "a key twice", "model has a number as class", "trainer is a list"]
)
def test_the_commands_refuse_it_too(recipe: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    written(recipe, NO_FILES[name][0])
    with pytest.raises(SystemExit, match="2"):
        main(["connect", "a.ckpt", "b.ckpt", f"--config={recipe}"])
    assert str(recipe) in capsys.readouterr().err


CALLBACKS: dict[str, tuple[Any, str]] = {
    "no trainer": (None, "add one"),
    "trainer is empty": ({}, "add one"),
    "trainer is a list": ([1], "trainer must be a section"),
    "callbacks are empty": ({"callbacks": None}, "add one"),
    "callbacks are a mapping": ({"callbacks": {"a": 1}}, "must be a list"),
    "callbacks are a number": ({"callbacks": 3}, "must be a list"),
    "callbacks are text": ({"callbacks": "LevelSetConnectivity"}, "must be a list"),
    "an entry is text": ({"callbacks": ["LevelSetConnectivity"]}, ENTRY),
    "an entry is empty": ({"callbacks": [None]}, ENTRY),
    "an entry has no class": ({"callbacks": [{"init_args": {}}]}, ENTRY),
    "an entry has a number as class": ({"callbacks": [{"class_path": 3}]}, ENTRY),
    "an entry has a list of arguments": (
        {"callbacks": [{"class_path": "LevelSetConnectivity", "init_args": [1]}]},
        ENTRY,
    ),
    "other callbacks alone": ({"callbacks": [{"class_path": "package.Other"}]}, "add one"),
}


@pytest.mark.parametrize(("trainer", "message"), CALLBACKS.values(), ids=CALLBACKS)
def test_callbacks_that_are_none_are_refused(trainer: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        callback_entry({"model": NET, "trainer": trainer}, LevelSetConnectivity)


def test_an_entry_without_arguments_has_none() -> None:
    entry = {"class_path": "package.LevelSetConnectivity"}
    found = callback_entry({"trainer": {"callbacks": [entry]}}, LevelSetConnectivity)
    assert found == {**entry, "init_args": {}}
    found["init_args"]["seed"] = 1
    assert entry == {"class_path": "package.LevelSetConnectivity"}


def test_values_are_those_that_a_fit_reads(recipe: Path) -> None:
    """A rate without a point is a number, a date is text, and one mapping may take over another's entries."""
    text = MODEL + "base: &b {rate: 1e-3, day: 2020-01-01}\nown: {<<: *b, rate: -2E5}\n"
    read = read_recipe(written(recipe, text))
    assert read["base"] == {"rate": 0.001, "day": "2020-01-01"}
    assert read["own"] == {"rate": -200000.0, "day": "2020-01-01"}


class Rates(pl.LightningModule):
    def __init__(self, rate: float, names: dict[str, Any], text: str) -> None:
        super().__init__()
        self.given = rate, names, text


def test_numbers_that_are_not_finite_and_text_like_a_number_reach_the_model(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"model: {{class_path: {__name__}.Rates, "
        "init_args: {rate: .inf, names: {low: -.inf, none: null}, text: '1e-3'}}"
    )
    parser = PlainArgumentParser(prog="landscape")
    add_recipe(parser)
    model = build_recipe(parser, parse(parser, ["--config", str(path)])).model
    assert isinstance(model, Rates)
    assert model.given == (math.inf, {"low": -math.inf, "none": None}, "1e-3")
    path.write_text(f"model: {{class_path: {__name__}.Rates, init_args: {{rate: .nan, names: {{}}, text: é}}}}")
    model = build_recipe(parser, parse(parser, ["--config", str(path)])).model
    assert isinstance(model, Rates)
    assert math.isnan(model.given[0])
    assert model.given[2] == "é"
