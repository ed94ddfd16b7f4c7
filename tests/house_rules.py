"""Says where a package looks at what its rooms must not know: a trainer, a pairing, one of Lightning's packages."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping

from tests.architecture import House, name_of

_TRAINER = {"trainer", "_trainer"}  # Lightning's names for it
_LIGHTNING = ("pytorch_lightning", "lightning_fabric")
_ASKING = {"isinstance", "issubclass", "hasattr", "getattr", "type"}


def trainer_names(house: House, allowed: Collection[str]) -> list[str]:
    """Parameters and variables named ``trainer`` outside the ``allowed`` rooms."""
    return [
        f"{place}: a trainer outside {', '.join(sorted(allowed))}: read it in attach, and hand in what was read"
        for place, node in house.nodes(house.rooms - set(allowed))
        if (isinstance(node, ast.arg) and node.arg in _TRAINER) or (isinstance(node, ast.Name) and node.id in _TRAINER)
    ]


def trainer_attributes(house: House, allowed: Collection[str], modules: Mapping[str, str]) -> list[str]:
    """Places outside the ``allowed`` rooms that reach for the trainer of something, ``module.trainer``.

    Args:
        house: the package.
        allowed: rooms that may.
        modules: files that may, by the name of the module below the package, each with its reason.
    """
    files = {".".join(module.split(".")[1:]): str(file) for module, file in house.files.items()}
    exempt = {files[module]: module for module in modules if module in files}
    reached = [place for place, node in house.nodes(house.rooms - set(allowed)) if _reaches_for_trainer(node)]
    needed = {exempt.get(place.rpartition(":")[0]) for place in reached}
    return [
        f"{place}: reaches for a trainer in a room that knows none: read it in attach, and hand in what was read"
        for place in reached
        if place.rpartition(":")[0] not in exempt
    ] + [f"{module} is allowed a trainer and reads none: take it off the list" for module in modules.keys() - needed]


def trainer_types(house: House, allowed: Collection[str]) -> list[str]:
    """Places outside the ``allowed`` rooms that name the class ``Trainer``."""
    return [
        f"{place}: names Trainer, and this room knows none: hand in what is needed of it"
        for place, node in house.nodes(house.rooms - set(allowed))
        if "Trainer" in (getattr(node, "id", None), getattr(node, "attr", None))
        or (isinstance(node, ast.alias) and node.name == "Trainer")
    ]


def one_package_alone(house: House, exempt: Collection[str]) -> list[str]:
    """Places outside the ``exempt`` rooms that ask for a class of one of Lightning's packages, or raise its error."""
    found = []
    for module, tree in house.trees.items():
        if house.room(module) in exempt:
            continue
        nodes = list(ast.walk(tree))
        imports = [node for node in nodes if isinstance(node, ast.ImportFrom | ast.Import)]
        names = {
            alias.asname or alias.name
            for node in imports
            for alias in node.names
            if (getattr(node, "module", None) or alias.name).startswith(_LIGHTNING)
        }
        for node in nodes:
            place = f"{house.files[module]}:{getattr(node, 'lineno', 1)}"
            if isinstance(node, ast.Call) and name_of(node.func) in ("isinstance", "issubclass"):
                kinds = [kind for argument in node.args[1:] for kind in _outside_calls(argument)]
                if any(isinstance(kind, ast.Name) and kind.id in names for kind in kinds):
                    found.append(f"{place}: asks for the class of one package of two: isinstance(x, both(Kind))")
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and name_of(node.exc.func) in names:
                found.append(f"{place}: raises the error of one package of two: take that of either_lightning.py")
    return found


def _outside_calls(node: ast.AST) -> Iterator[ast.AST]:
    if not isinstance(node, ast.Call):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _outside_calls(child)


def guessed_pairings(house: House) -> list[str]:
    """Places in the callbacks, outside ``callbacks/pairings``, that ask which pairing they hold.

    By its class: no class of a pairing is named there at all, but for the contract in ``base``. By its word:
    ``pairs`` is not compared, matched or looked up in a table of the callback's own.
    """
    inside = [module for module in house.files if module.split(".")[1:3] == ["callbacks", "pairings"]]
    classes = {
        node.name
        for module in inside
        if not module.endswith(".base")
        for node in house.trees[module].body
        if isinstance(node, ast.ClassDef)
    }
    elsewhere = {str(house.files[module]) for module in inside}
    advice = "asks which pairing it holds: give Pairing a method, with a default, that says what differs"
    return [
        f"{place}: {advice}"
        for place, node in house.nodes({"callbacks"})
        if place.rpartition(":")[0] not in elsewhere and (_names(node, classes) or _asks_for_pairing(node))
    ]


def _reaches_for_trainer(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and name_of(node.func) in {"getattr", "hasattr", "setattr", "attrgetter"}:
        return any(isinstance(arg, ast.Constant) and arg.value in _TRAINER for arg in node.args)
    return isinstance(node, ast.Attribute) and node.attr in _TRAINER and not _is_library(node.value)


def _is_library(node: ast.AST) -> bool:
    """``pl.trainer`` is a module of Lightning's."""
    return name_of(node) in {"pl", "pytorch_lightning"}


def _names(node: ast.AST, classes: Collection[str]) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and node.value in classes
    return name_of(node) in classes or (isinstance(node, ast.alias) and node.name in classes)


def _asks_for_pairing(node: ast.AST) -> bool:
    if isinstance(node, ast.Match):
        return _mentions(node.subject, {"pairs"})
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        return any(_mentions(side, {"pairs"}) for side in sides) and any(map(_has_words, sides))
    if isinstance(node, ast.Subscript):
        return isinstance(node.value, ast.Dict) and _mentions(node.slice, {"pairs"})
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner, method = node.func.value, node.func.attr
        if isinstance(owner, ast.Dict):
            return any(_mentions(arg, {"pairs"}) for arg in node.args)
        return name_of(owner) == "pairs" and method.startswith(("starts", "ends", "find", "index", "count", "__"))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _ASKING and node.args:
        return name_of(node.args[0]).lstrip("_") in {"pairing", "following"}
    return False


def _mentions(node: ast.AST, names: Collection[str]) -> bool:
    return any(name_of(part).lstrip("_") in names for part in ast.walk(node))


def _has_words(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in ast.walk(node))
