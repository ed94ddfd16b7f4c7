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


def guessed_pairings(house: House) -> list[str]:
    """Places in the callbacks that ask which pairing they hold, by its class or by its name."""
    advice = "asks which pairing it holds: give Pairing a method, with a default, that says what differs"
    return [f"{place}: {advice}" for place, node in house.nodes({"callbacks"}) if _asks_for_pairing(node)]


def trainer_names(house: House, allowed: Collection[str]) -> list[str]:
    """Parameters and variables named ``trainer`` outside the ``allowed`` rooms."""
    return [
        f"{place}: a trainer outside {', '.join(sorted(allowed))}: read it in attach, and hand in what was read"
        for place, node in house.nodes(house.rooms - set(allowed))
        if (isinstance(node, ast.arg) and node.arg == "trainer")
        or (isinstance(node, ast.Name) and node.id == "trainer")
    ]


def trainer_types(house: House, rooms: Collection[str]) -> list[str]:
    """Places in some rooms that name the class ``Trainer``."""
    return [
        f"{place}: names Trainer, and this room knows none: hand in what is needed of it"
        for place, node in house.nodes(rooms)
        if "Trainer" in (getattr(node, "id", None), getattr(node, "attr", None))
        or (isinstance(node, ast.alias) and node.name == "Trainer")
    ]


def declared_rooms(page: str) -> list[str]:
    """Names in the first column of every table whose first header is ``room``, in the order of the page."""
    rooms: list[str] = []
    inside = False
    for line in page.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        first = line.strip("|").split("|")[0].strip()
        if first == "room":
            inside = True
        elif inside:
            rooms += re.findall(r"`(\w+)(?:/|\.py)`", first)
    return rooms


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


def _asks_for_pairing(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
        return _name(node.args[0]).lstrip("_") in {"pairing", "following"}
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        words = any(
            isinstance(part, ast.Constant) and isinstance(part.value, str) for s in sides for part in ast.walk(s)
        )
        return words and any(_name(side) == "pairs" for side in sides)
    return False


def _name(node: ast.AST) -> str:
    return getattr(node, "attr", None) or getattr(node, "id", None) or ""
