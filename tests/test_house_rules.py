"""Planted faults that the rules of the house see, and what they leave alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import house_rules
from tests.cases.toy_house import toy_house

PAIRINGS = {
    "callbacks__in__pairings__in__base": "class Pairing: ...\n",
    "callbacks__in__pairings__in__twin": "class Twin: ...\nclass First: ...\n'twin' == pairs\n",
}


@pytest.mark.parametrize(
    "question",
    [
        "isinstance(self._pairing, Twin)",
        "isinstance(pairing, (Other, Another))",
        "isinstance(x, twin.Twin)",
        "isinstance(x, (Twin, First))",
        "isinstance(x, pairings.twin.Twin | None)",
        "issubclass(kind, Twin)",
        "type(x) is Twin",
        "type(x).__name__ == 'Twin'",
        "hasattr(self._following, 'module')",
        "from toy.callbacks.pairings.twin import Twin as Second",
        "self.pairs == 'twin'",
        "'twin' != pairs",
        "pairs in ('twin', 'first')",
        "str(self.pairs).lower() == 'twin'",
        "self.pairs.startswith('tw')",
        "{'twin': 1, 'first': 2}[self.pairs]",
        "{'twin': 1}.get(pairs)",
        "match pairs:\n    case 'twin': pass",
        "match self.pairs:\n    case 'twin' | 'first': pass\n    case _: pass",
        "match x:\n    case Twin(): pass",
    ],
)
def test_questions_for_the_pairing(tmp_path: Path, question: str) -> None:
    fine = (
        "self._pairing.failure is not None\nisinstance(finder, PathFinder)\nkind = PAIRINGS[pairs]\n"
        "isinstance(x, Pairing)\nself.pairs = pairs\nmatch reason:\n    case 'depth': pass\n"
    )
    assert not house_rules.guessed_pairings(toy_house(tmp_path, callbacks__in__a=fine, **PAIRINGS))
    messages = house_rules.guessed_pairings(toy_house(tmp_path, callbacks__in__a=f"{fine}{question}\n", **PAIRINGS))
    assert messages
    assert all("toy/callbacks/a.py:" in message and "asks which pairing" in message for message in messages)
    assert any(int(message.split(":")[1]) >= 8 for message in messages)


@pytest.mark.parametrize(
    "reach",
    [
        "module.trainer",
        "self._trainer",
        "self.surface.module.trainer.current_epoch",
        "getattr(module, 'trainer', None)",
        "module._trainer = None",
    ],
)
def test_trainers_that_a_room_reaches_for(tmp_path: Path, reach: str) -> None:
    files = {f"{room}__in__a": f"'the trainer'\n{reach}\n" for room in ("surface", "attach", "alignment")}
    house = toy_house(tmp_path, surface__in__b=reach, **files)
    allowed = {"surface.b": "a reason"}
    places = [message.split(": ")[0] for message in house_rules.trainer_attributes(house, {"attach"}, allowed)]
    assert sorted(place.split("toy/")[1] for place in places) == ["alignment/a.py:2", "surface/a.py:2"]


def test_a_permission_that_nobody_needs_is_taken_back(tmp_path: Path) -> None:
    house = toy_house(tmp_path, surface__in__a="pl.trainer.states\n")
    messages = house_rules.trainer_attributes(house, set(), {"surface.a": "once", "surface.gone": "once"})
    assert sorted(message.split(" is allowed")[0] for message in messages) == ["surface.a", "surface.gone"]


def test_names_and_types_of_trainers(tmp_path: Path) -> None:
    text = "import lightning as pl\nfrom lightning import Trainer\ndef f(trainer: pl.Trainer): ...\n"
    house = toy_house(tmp_path, attach__in__a=text, surface__in__a=text)
    (message,) = house_rules.trainer_names(house, {"attach"})
    assert "surface/a.py:3:" in message
    assert [problem.split(":")[1] for problem in house_rules.trainer_types(house, {"attach"})] == ["2", "3"]


def test_one_package_of_lightning_is_not_enough(tmp_path: Path) -> None:
    head = "import pytorch_lightning as pl\nfrom pytorch_lightning.loggers import WandbLogger as W\n"
    house = toy_house(
        tmp_path,
        surface__in__a=head + "isinstance(x, W)\nisinstance(x, (int, pl.Trainer))\nraise W(1)\n",
        attach__in__a=head + "isinstance(x, both(W))\nisinstance(x, (int, *both(pl.Trainer)))\nraise ValueError(W)\n",
        models__in__a=head + "isinstance(x, W)\n",
    )
    places = [message.split(": ")[0] for message in house_rules.one_package_alone(house, {"models"})]
    assert sorted(place.split("toy/")[1] for place in places) == [f"surface/a.py:{line}" for line in (3, 4, 5)]
