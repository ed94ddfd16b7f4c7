"""What --help says of every class that a recipe or a command can name: plain words, without markup."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from lightning_landscape import callbacks, datamodules, finders, models
from lightning_landscape.callbacks.pairings import PAIRINGS
from lightning_landscape.cli import main
from lightning_landscape.finders import PathFinder
from lightning_landscape.report.plain_help import without_markup

MARKUP = re.compile(r"`|:[a-z]+:~?`|:class:|:func:|:meth:|:mod:|:attr:")
EVASIONS = re.compile(r"likewise|[Ss]ee the class|: [Aa]s above|: as in\b")


def shown(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    return capsys.readouterr().out


def classes(package: object) -> list[type]:
    return [item for item in vars(package).values() if inspect.isclass(item)]


FINDERS = [item for item in classes(finders) if issubclass(item, PathFinder) and item is not PathFinder]
OPTIONS = [
    *((["connect"], "finder", item) for item in FINDERS),
    *((["fit"], "model", item) for item in classes(models)),
    *((["fit"], "data", item) for item in classes(datamodules)),
    *((["fit"], "trainer.callbacks", item) for item in classes(callbacks)),
]


@pytest.mark.parametrize(("command", "option", "item"), OPTIONS, ids=lambda value: getattr(value, "__name__", None))
def test_help_of_a_class_is_plain(
    command: list[str], option: str, item: type, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown([*command, f"--{option}.help={item.__module__}.{item.__qualname__}"], capsys)
    described = set(inspect.signature(item).parameters) - {"args", "kwargs"}
    assert all(f".{name} " in text for name in described)
    assert not MARKUP.findall(text)
    assert not EVASIONS.findall(text)


def test_help_and_refusal_name_every_pairing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "lightning_landscape.callbacks.LevelSetConnectivity"
    choices = "{lagged,first,reference,twin}"
    assert f".pairs {choices}" in shown(["fit", f"--trainer.callbacks.help={name}"], capsys)
    recipe = tmp_path / "typo.yaml"
    recipe.write_text(f"trainer: {{callbacks: [{{class_path: {name}, init_args: {{pairs: twins}}}}]}}")
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(recipe)])
    assert stopped.value.code == 2
    refused = capsys.readouterr().err
    assert "twins" in refused
    assert all(repr(word) in refused for word in PAIRINGS)


@pytest.mark.parametrize("command", [["connect"], ["average"], ["components"], ["fit"], []], ids=" ".join)
def test_help_of_a_command_is_plain(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = shown([*command, "--help"], capsys)
    assert text.startswith("usage: landscape")
    assert not MARKUP.findall(text)


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        (":class:`~a.b.C`", "C"),
        (":class:`~C`", "C"),
        (":func:`a.b`", "a.b"),
        (":py:meth:`~a.b.\n    C`", "C"),
        (":meth:`text <a.b.C>`", "text"),
        ("``x < 3`` and ``y > 1``", "x < 3 and y > 1"),
        ("a `page <https://b.c>`__.", "a page."),
        ("at 10:30: one: two", "at 10:30: one: two"),
    ],
)
def test_markup_is_replaced_by_what_a_page_shows(marked: str, plain: str) -> None:
    assert without_markup(marked) == plain
