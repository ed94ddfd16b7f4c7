"""Finders as a recipe names them, by class_path."""

from __future__ import annotations

from typing import Any

import pytest
from jsonargparse import ArgumentParser

from lightning_landscape.finders import BezierCurve, DynamicStringSampling, Ladder, LinearPath, PathFinder


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("LinearPath", {"samples": 5}),
        ("DynamicStringSampling", {"alpha": 0.9, "shorten": 2}),
        ("PolygonalChain", {"bends": 2, "draws": 3, "shorten": 0}),
        ("BezierCurve", {"bends": 3, "max_steps": 200, "seed": 7}),
        ("AutoNEB", {"cycles": 4, "steps": 20, "stiffness": 0.1}),
        ("SimplifiedString", {"beads": 5, "climb_after": 1.0}),
        ("Ladder", {"align": True, "samples": 7}),
    ],
)
def test_every_finder_is_made_from_a_class_path(name: str, arguments: dict[str, Any]) -> None:
    parser = ArgumentParser()
    parser.add_argument("--finder", type=PathFinder)
    config = {"class_path": f"lightning_landscape.finders.{name}", "init_args": arguments}
    made = parser.instantiate_classes(parser.parse_object({"finder": config})).finder
    assert type(made).__name__ == name
    assert {key: getattr(made, key) for key in arguments} == arguments


def test_rungs_are_finders_with_arguments_of_their_own() -> None:
    parser = ArgumentParser()
    parser.add_argument("--finder", type=PathFinder)
    rungs = [
        {"class_path": "lightning_landscape.finders.BezierCurve", "init_args": {"bends": 2}},
        {"class_path": "lightning_landscape.finders.DynamicStringSampling"},
    ]
    config = {"class_path": "lightning_landscape.finders.Ladder", "init_args": {"rungs": rungs}}
    ladder = parser.instantiate_classes(parser.parse_object({"finder": config})).finder
    assert isinstance(ladder, Ladder)
    first, last = ladder.rungs
    assert isinstance(first, BezierCurve)
    assert isinstance(last, DynamicStringSampling)
    assert first.bends == 2


def test_the_line_has_nothing_to_shorten() -> None:
    with pytest.raises(TypeError, match="shorten"):
        LinearPath(shorten=2)  # type: ignore[call-arg]
