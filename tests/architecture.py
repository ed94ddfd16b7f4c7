"""Reads the imports of a package, and says where its files leave the rules of docs/architecture.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FACE = "__init__"  # the room of the package's own __init__.py
TOP = (FACE, "__main__", "cli")  # modules whose place is the root


@dataclass(frozen=True)
class Import:
    """One import: ``source`` imports ``target``, both dotted names of modules of the package."""

    source: str
    target: str
    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.source} imports {self.target}"


class House:
    """A package: its modules, their syntax trees and what they import of each other.

    Imports inside functions and under ``TYPE_CHECKING`` count too: they need the other file as much.

    Args:
        root: folder of the package; links to folders inside it are followed, and files are named as under the link.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = {_module(root, file): file for file in _python_files(root)}
        self.trees = {module: ast.parse(file.read_text()) for module, file in self.files.items()}
        self.imports = [found for module in self.files for found in self._imports(module)]

    def room(self, module: str) -> str:
        """The folder or loose module at the root that a module lies in."""
        parts = module.split(".")
        return parts[1] if len(parts) > 1 else FACE

    def nodes(self, rooms: Collection[str]) -> Iterator[tuple[str, ast.AST]]:
        """Each piece of syntax in some rooms, after ``file:line``."""
        for module, tree in self.trees.items():
            if self.room(module) in rooms:
                for node in ast.walk(tree):
                    yield f"{self.files[module]}:{getattr(node, 'lineno', 1)}", node

    @property
    def rooms(self) -> set[str]:
        """Names of all rooms."""
        return {self.room(module) for module in self.files}

    def between_rooms(self) -> list[Import]:
        """Imports that leave their room."""
        return [found for found in self.imports if self.room(found.source) != self.room(found.target)]

    def _imports(self, module: str) -> Iterator[Import]:
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                targets = {self._known(alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                start = self._start(module, node)
                targets = {self._known(f"{start}.{alias.name}") for alias in node.names}
            elif isinstance(node, ast.Call) and name_of(node.func) in {"import_module", "__import__"}:
                targets = {self._known(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)}
            else:
                continue
            for target in sorted(targets - {None, module}):
                yield Import(module, target, self.files[module], node.lineno)

    def _start(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = module.split(".") + [""] * (self.files[module].name == "__init__.py")
        return ".".join([*parts[: -node.level], *([node.module] if node.module else [])])

    def _known(self, name: str) -> str | None:
        """The module that a dotted name lies in, ``None`` outside the package."""
        while name and name not in self.files:
            name = name.rpartition(".")[0]
        return name or None


def loose_modules(house: House, most: int) -> list[str]:
    """The modules at the root of the package, if there are more than ``most`` beside those of ``TOP``."""
    loose = sorted(room for room in house.rooms - set(TOP) if (house.root / f"{room}.py").exists())
    if len(loose) <= most:
        return []
    return [f"{house.root}: {len(loose)} loose modules ({', '.join(loose)}), at most {most}: move one into a room"]


def circles(house: House) -> list[str]:
    """Files, and rooms, that import each other in a circle."""
    files = [(found.source, found.target, found) for found in house.imports]
    rooms = [(house.room(found.source), house.room(found.target), found) for found in house.between_rooms()]
    return _circles("files", files) + _circles("rooms", rooms)


def upward(house: House, order: list[str]) -> list[str]:
    """Imports of rooms that come later in ``order``, rooms that it lacks and rooms that are gone."""
    places = {room: place for place, room in enumerate(order)}
    problems = [
        f"{house.root / room}: not in the tables of docs/architecture.md: add a row at the height where it stands"
        for room in sorted(house.rooms - places.keys())
    ]
    problems += [
        f"docs/architecture.md: there is no room {room}: remove its row" for room in places.keys() - house.rooms
    ]
    for found in house.between_rooms():
        here, there = house.room(found.source), house.room(found.target)
        if {here, there} <= places.keys() and places[there] > places[here]:
            problems.append(
                f"{found}, but {there} comes after {here} on the page: move down what both need, or hand it in"
            )
    return problems


def importers(house: House, room: str, allowed: Collection[str]) -> list[str]:
    """Imports of a room from any but itself and the ``allowed``."""
    return [
        f"{found}, but only {', '.join(sorted(allowed))} may import {room}: move what is needed into a lower room"
        for found in house.between_rooms()
        if house.room(found.target) == room and house.room(found.source) not in allowed
    ]


def long_files(files: Iterable[Path], most: int) -> list[str]:
    """Files of more than ``most`` lines."""
    lengths = ((file, len(file.read_text().splitlines())) for file in files)
    return [
        f"{file}:{most + 1}: {length} lines, at most {most}: give the second idea in it a file of its own"
        for file, length in lengths
        if length > most
    ]


def undeclared(house: House, declared: Mapping[str, set[str]]) -> list[str]:
    """Imports between rooms that the tables lack, and those that they name and nobody makes."""
    made: dict[tuple[str, str], Import] = {}
    for found in house.between_rooms():
        made.setdefault((house.room(found.source), house.room(found.target)), found)
    named = {(room, target) for room, targets in declared.items() for target in targets}
    return [
        f"{made[arrow]}, which docs/architecture.md does not grant {arrow[0]}: do without, or add it to its row"
        for arrow in sorted(made.keys() - named)
    ] + [
        f"docs/architecture.md: {room} no longer imports {target}: take it out of the column imports"
        for room, target in sorted(named - made.keys())
    ]


def declared_rooms(page: str) -> list[str]:
    """Names in the first column of every table whose first header is ``room``, in the order of the page."""
    return [room for cells in _table_rows(page) for room in re.findall(r"`(\w+)(?:/|\.py)`", cells["room"])]


def declared_imports(page: str) -> dict[str, set[str]]:
    """What each room of the tables may import: the names in the column ``imports``, which may be missing."""
    return {
        room: set(re.findall(r"`(\w+)`", cells.get("imports", "")))
        for cells in _table_rows(page)
        for room in re.findall(r"`(\w+)(?:/|\.py)`", cells["room"])
    }


def _table_rows(page: str) -> Iterator[dict[str, str]]:
    """The rows, by header, of every table whose first header is ``room``."""
    headers: list[str] = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if cells and headers[:1] == ["room"]:
            yield dict(zip(headers, cells, strict=True))
        else:
            headers = cells if not headers or not cells else headers


def drawn_arrows(page: str) -> set[tuple[str, str]]:
    """Arrows ``a --> b`` of the mermaid drawings of a page."""
    drawings = re.findall(r"^```mermaid\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    return {
        (left, right)
        for drawing in drawings
        for tail, head in re.findall(r"^ *(\w[\w &]*) --> (\w[\w &]*)$", drawing, flags=re.MULTILINE)
        for left in tail.split(" & ")
        for right in head.split(" & ")
    }


def _python_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _python_files(path)
        elif path.suffix == ".py":
            yield path


def _module(root: Path, file: Path) -> str:
    parts = (root.name, *file.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _circles(what: str, arrows: list[tuple[str, str, Import]]) -> list[str]:
    """A message for each knot, names of which each reaches every other, with one of its shortest circles."""
    graph: dict[str, dict[str, Import]] = {}
    for source, target, found in arrows:
        graph.setdefault(source, {}).setdefault(target, found)
    shortest: dict[frozenset[str], list[Import]] = {}
    reach = {name: _ways(graph, name) for name in graph}
    for name, ways in reach.items():
        if name in ways:
            knot = frozenset(other for other in ways if name in reach.get(other, ()))
            shortest[knot] = min(shortest.get(knot, ways[name]), ways[name], key=len)
    return [
        f"a circle of {what}: take one of these imports out\n  " + "\n  ".join(map(str, circle))
        for circle in shortest.values()
    ]


def _ways(graph: Mapping[str, Mapping[str, Import]], start: str) -> dict[str, list[Import]]:
    """A shortest way to every name that can be reached; to ``start`` itself only where a circle leads back."""
    ways: dict[str, list[Import]] = {}
    waiting: list[tuple[str, list[Import]]] = [(start, [])]
    for name, way in waiting:
        for target, found in graph.get(name, {}).items():
            if target not in ways:
                ways[target] = [*way, found]
                waiting.append((target, ways[target]))
    return ways


def name_of(node: ast.AST) -> str:
    """The name that a piece of syntax ends in, empty if it has none."""
    return getattr(node, "attr", None) or getattr(node, "id", None) or ""
