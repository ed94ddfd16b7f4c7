"""The house: which room may import which. The order is the table of docs/architecture.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import networkx
import pytest

PACKAGE = "lightning_landscape"
ROOT = Path(__file__).parents[1]
LOOSE = 6  # modules at the root of the package beside these
DOORS = {"__init__", "__main__", "cli"}
LONGEST = 350

Imports = Mapping[str, set[str]]


def modules(root: Path) -> dict[str, Path]:
    """Files of the package by dotted name; its symlinks are folders like any other."""
    found = {}
    for folder in [root, *(link for link in root.iterdir() if link.is_symlink())]:
        for file in folder.rglob("*.py"):
            parts = (PACKAGE, *file.relative_to(root).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports_of(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """What each module imports of the package, inside of functions and for type checkers alone too."""
    arrows: dict[str, set[str]] = {}
    for name, file in files.items():
        arrows[name] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    arrows[name].add(whole if whole in files else node.module)
            elif isinstance(node, ast.Import):
                arrows[name] |= {alias.name for alias in node.names if alias.name in files}
        arrows[name].discard(name)
    return arrows


def room(module: str) -> str:
    """The room of a module: the first name below the package; the package's own face is a room too."""
    return module.split(".")[1] if "." in module else PACKAGE


def circles(arrows: Imports) -> list[list[str]]:
    """Groups of modules that import each other, directly or by a detour."""
    graph = networkx.DiGraph([(start, end) for start, ends in arrows.items() for end in ends])
    return [sorted(group) for group in networkx.strongly_connected_components(graph) if len(group) > 1]


def rooms_of(arrows: Imports) -> dict[str, set[str]]:
    """The arrows between rooms."""
    found: dict[str, set[str]] = {}
    for start, ends in arrows.items():
        found.setdefault(room(start), set()).update(room(end) for end in ends if room(end) != room(start))
    return found


def upward(arrows: Imports, order: list[str]) -> list[str]:
    """Imports of a room that does not stand above in the order, as text."""
    place = {name: number for number, name in enumerate(order)}
    return [
        f"{start} imports {end}: {room(end)} must stand above {room(start)} in docs/architecture.md, or the import goes"
        for start, ends in sorted(arrows.items())
        for end in sorted(ends)
        if room(end) != room(start) and not place[room(end)] < place[room(start)]
    ]


def order_on_the_page() -> list[str]:
    """The rooms of the page's table, ground first."""
    return re.findall(r"^\| `([a-z_]+)(?:/|\.py)?` \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    return modules(ROOT / PACKAGE)


@pytest.fixture(scope="module")
def arrows(files: dict[str, Path]) -> dict[str, set[str]]:
    return imports_of(files)


def test_every_room_is_on_the_page(arrows: Imports) -> None:
    assert sorted(order_on_the_page()) == sorted({room(module) for module in arrows})


def test_no_circle_of_files_or_rooms(arrows: Imports) -> None:
    assert circles(arrows) == []
    assert circles(rooms_of(arrows)) == []


def test_every_arrow_goes_down(arrows: Imports) -> None:
    assert upward(arrows, order_on_the_page()) == []


def test_nobody_but_the_command_line_imports_callbacks(arrows: Imports) -> None:
    users = {room(start) for start, ends in arrows.items() if any(room(end) == "callbacks" for end in ends)}
    assert users <= {"callbacks", "cli"}


def test_few_modules_are_loose(files: Mapping[str, Path]) -> None:
    loose = {file.stem for file in files.values() if file.parent == ROOT / PACKAGE} - DOORS
    assert len(loose) <= LOOSE, f"{sorted(loose)} are loose at the root of the package: put one into a room"


def test_no_file_is_long(files: Mapping[str, Path]) -> None:
    scripts = [*(ROOT / "scripts").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
    lines = {file: len(file.read_text().splitlines()) for file in [*files.values(), *scripts]}
    assert {str(file): count for file, count in lines.items() if count > LONGEST} == {}


def test_pairings_are_asked_and_not_told_apart(files: Mapping[str, Path]) -> None:
    for name, file in files.items():
        if room(name) == "callbacks":
            text = file.read_text()
            assert not re.search(r"isinstance\([^)]*, Twin\)", text), f"{file} asks for a Twin: ask the Pairing"
            assert not re.search(r"pairs == .twin.", text), f"{file} asks for a twin by name: ask the Pairing"


def test_only_what_runs_beside_a_fit_knows_a_trainer(files: Mapping[str, Path]) -> None:
    for name, file in files.items():
        if room(name) in ("storage", "path", "connection", "surface", "alignment", "finders", "components", "report"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef) and room(name) != "surface":
                    taken = [argument.arg for argument in node.args.args]
                    assert "trainer" not in taken, f"{file}:{node.lineno} takes a trainer: that belongs to attach"


def test_the_checks_find_what_they_look_for(tmp_path: Path) -> None:
    root = tmp_path / PACKAGE
    real = tmp_path / "attic"
    for folder in (root / "ground", real):
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    (root / "__init__.py").touch()
    (root / "attic").symlink_to(real)
    (root / "ground" / "a.py").write_text(f"def late():\n    from {PACKAGE}.ground import b\n")
    (root / "ground" / "b.py").write_text(f"from {PACKAGE}.ground.a import late\nfrom {PACKAGE}.attic import c\n")
    (real / "c.py").write_text(f"import {PACKAGE}.ground.a\n")
    found = imports_of(modules(root))
    assert found[f"{PACKAGE}.ground.a"] == {f"{PACKAGE}.ground.b"}
    assert circles(found) == [[f"{PACKAGE}.attic.c", f"{PACKAGE}.ground.a", f"{PACKAGE}.ground.b"]]
    assert circles(rooms_of(found)) == [["attic", "ground"]]
    (problem,) = upward(found, [PACKAGE, "ground", "attic"])
    assert problem.startswith(f"{PACKAGE}.ground.b imports {PACKAGE}.attic.c: attic must stand above ground")
