"""A small package, written for one test."""

from __future__ import annotations

from pathlib import Path

from tests.architecture import House


def toy_house(folder: Path, **files: str) -> House:
    """The package ``toy`` in a folder; ``room__in__a="..."`` is the text of ``toy/room/a.py``."""
    for name, text in files.items():
        file = folder / "toy" / f"{name.replace('__in__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return House(folder / "toy")
