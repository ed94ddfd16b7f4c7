"""The package keeps the rules of docs/architecture.md, and the reader of imports sees what breaks them."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from tests import architecture, house_rules
from tests.architecture import House
from tests.cases.toy_house import toy_house

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "architecture.md"
MOST_LINES = 350
# A LightningDataModule has a trainer by Lightning's own design; the others run beside a fit, or start one.
WITH_TRAINER = {"attach", "callbacks", "recipes", "cli", "datamodules"}
READ_A_TRAINER = {"surface.detached": "takes the copy of a module off its trainer, and gives it a stand-in"}


@pytest.fixture(scope="module")
def house() -> House:
    return House(REPOSITORY / "lightning_landscape")


def require(problems: list[str]) -> None:
    assert not problems, "\n".join(problems).replace(f"{REPOSITORY}/", "")


def test_links_to_rooms_are_followed(house: House) -> None:
    assert {"callbacks", "datamodules", "finders", "path"} <= house.rooms
    assert "lightning_landscape.callbacks.pairings.twin" in house.files


def test_few_modules_are_loose_at_the_root(house: House) -> None:
    require(architecture.loose_modules(house, 6))


def test_no_circle_of_files_or_rooms(house: House) -> None:
    require(architecture.circles(house))


def test_every_import_goes_down_in_the_order_of_the_page(house: House) -> None:
    require(architecture.upward(house, architecture.declared_rooms(PAGE.read_text())))


def test_every_room_imports_what_the_page_says_and_nothing_else(house: House) -> None:
    require(architecture.undeclared(house, architecture.declared_imports(PAGE.read_text())))


def test_the_drawing_shows_imports_that_exist(house: House) -> None:
    drawn = architecture.drawn_arrows(PAGE.read_text())
    assert drawn
    arrows = {(house.room(found.source), house.room(found.target)) for found in house.between_rooms()}
    require([f"docs/architecture.md: draws {a} --> {b}, which is no import: remove it" for a, b in drawn - arrows])


def test_only_callbacks_and_cli_import_callbacks(house: House) -> None:
    require(architecture.importers(house, "callbacks", {"cli"}))


def test_no_file_is_long(house: House) -> None:
    others = chain.from_iterable((REPOSITORY / folder).rglob("*.py") for folder in ("scripts", "examples", "tests"))
    require(architecture.long_files([*house.files.values(), *others], MOST_LINES))


def test_both_packages_of_lightning_are_asked_for(house: House) -> None:
    # Models and data modules that come with the package are pytorch_lightning's.
    require(house_rules.one_package_alone(house, {"models", "datamodules"}))


def test_no_callback_asks_which_pairing_it_holds(house: House) -> None:
    require(house_rules.guessed_pairings(house))


def test_trainers_stay_where_runs_are_attended(house: House) -> None:
    require(house_rules.trainer_names(house, WITH_TRAINER))
    require(house_rules.trainer_types(house, WITH_TRAINER))
    # A LightningModule may ask its own trainer.
    require(house_rules.trainer_attributes(house, {*WITH_TRAINER, "models"}, READ_A_TRAINER))


class TestReader:
    """What the reader finds in small packages."""

    def test_a_circle_of_files_names_their_lines(self, tmp_path: Path) -> None:
        house = toy_house(
            tmp_path,
            room__in__a="x = 1\nfrom toy.room import b\n",
            room__in__b="def f():\n    from toy.room.c import y\n",
            room__in__c="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import toy.room.a\n",
            room__in__d="from toy.room import a\n",
        )
        (message,) = architecture.circles(house)
        assert message.startswith("a circle of files: take")
        assert sorted(line.split("/")[-1].split(": ")[0] for line in message.splitlines()[1:]) == [
            "a.py:2",
            "b.py:2",
            "c.py:3",
        ]

    def test_a_circle_of_rooms_needs_no_circle_of_files(self, tmp_path: Path) -> None:
        files = {"low__in__a": "", "low__in__b": "import toy.high.a", "high__in__a": "from toy.low.a import x"}
        (message,) = architecture.circles(toy_house(tmp_path, **files))
        assert message.startswith("a circle of rooms: ")
        assert "b.py:1: toy.low.b imports toy.high.a" in message

    def test_each_knot_shows_its_shortest_circle(self, tmp_path: Path) -> None:
        files = {
            "a": "import toy.b",
            "b": "import toy.c, toy.a",
            "c": "import toy.a",
            "d": "import toy.e",
            "e": "import toy.d",
        }
        messages = [
            message.splitlines() for message in architecture.circles(toy_house(tmp_path, room__in__x="", **files))
        ]
        assert [len(lines) for lines in messages] == [3, 3, 3, 3]  # two knots of files, which are rooms too

    def test_a_straight_house_has_no_circle(self, tmp_path: Path) -> None:
        assert not architecture.circles(toy_house(tmp_path, a="import os", b="import toy.a", c="from toy import a, b"))

    def test_relative_imports_are_resolved(self, tmp_path: Path) -> None:
        house = toy_house(
            tmp_path, room____in__init="", room__in__a="from . import b", room__in__b="from ..c import x", c=""
        )
        targets = {found.source: found.target for found in house.imports}
        assert targets == {"toy.room.a": "toy.room.b", "toy.room.b": "toy.c"}

    def test_an_arrow_up_names_file_line_and_remedy(self, tmp_path: Path) -> None:
        house = toy_house(tmp_path, low__in__a="\n\nfrom toy.high.b import x\n", high__in__b="")
        assert architecture.upward(house, ["high", "low"]) == []
        (message,) = architecture.upward(house, ["low", "high"])
        assert message.startswith(f"{tmp_path}/toy/low/a.py:3: toy.low.a imports toy.high.b, but high comes after low")

    def test_the_order_lacks_no_room_and_names_none_that_is_gone(self, tmp_path: Path) -> None:
        new, gone = architecture.upward(toy_house(tmp_path, a="", b=""), ["a", "old"])
        assert "toy/b: not in the tables" in new
        assert "there is no room old" in gone

    def test_importers_of_a_room(self, tmp_path: Path) -> None:
        house = toy_house(tmp_path, callbacks__in__a="", cli="import toy.callbacks.a", report="import toy.callbacks.a")
        (message,) = architecture.importers(house, "callbacks", {"cli"})
        assert "report.py:1:" in message

    def test_loose_modules(self, tmp_path: Path) -> None:
        house = toy_house(tmp_path, a="", b="", cli="", __init__="", __main__="", room__in__c="")
        assert not architecture.loose_modules(house, 2)
        (message,) = architecture.loose_modules(house, 1)
        assert "2 loose modules (a, b)" in message

    def test_long_files(self, tmp_path: Path) -> None:
        house = toy_house(tmp_path, short="x = 1\n" * 350, long="x = 1\n" * 351)
        (message,) = architecture.long_files(house.files.values(), 350)
        assert "long.py:351: 351 lines" in message

    def test_imports_that_the_page_does_not_name(self, tmp_path: Path) -> None:
        house = toy_house(tmp_path, low="", middle="import toy.low", high="from toy import middle")
        assert not architecture.undeclared(house, {"low": set(), "middle": {"low"}, "high": {"middle"}})
        new, gone = architecture.undeclared(house, {"low": set(), "middle": set(), "high": {"middle", "low"}})
        assert "middle.py:1: toy.middle imports toy.low, which docs/architecture.md does not grant middle" in new
        assert "high no longer imports low" in gone

    def test_imports_by_a_name_in_quotes(self, tmp_path: Path) -> None:
        text = "import importlib\nimportlib.import_module('toy.low')\n__import__('toy.low')\nimport_module(name)\n"
        found = [str(one) for one in toy_house(tmp_path, low="", high=text).imports]
        assert [one.split("toy/")[1] for one in found] == [f"high.py:{n}: toy.high imports toy.low" for n in (2, 3)]

    def test_columns_of_a_page(self) -> None:
        page = "| room | for | imports |\n| --- | --- | --- |\n| `a/` | x | none |\n| `b.py` | `d/` | `a`, `c` |\n"
        assert architecture.declared_imports(page) == {"a": set(), "b": {"a", "c"}}

    def test_rooms_of_a_page(self) -> None:
        page = "| room | for |\n| --- | --- |\n| `a/` | x |\n| `b.py`, `c.py` | `d/` |\n\n| other |\n| `e/` |\n"
        assert architecture.declared_rooms(page) == ["a", "b", "c"]

    def test_arrows_of_a_drawing(self) -> None:
        page = "```mermaid\nflowchart TD\n  a --> b & c\n  b --> c\n```\na --> d\n"
        assert architecture.drawn_arrows(page) == {("a", "b"), ("a", "c"), ("b", "c")}
