"""Finished work on the disk, each piece with the settings that made it: read again only for the same settings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_landscape.storage.atomic import replacing

_SHOWN = 60  # characters of a setting in a message


class KeptError(ValueError):
    """A kept result cannot be used; the message names the file and says what to do."""


def keep(path: Path, settings: Mapping[str, Any], result: Any) -> None:
    """Writes a result with its settings; a process that dies leaves the file as it was.

    Args:
        path: the file.
        settings: all that the result depends on, plain JSON.
        result: plain JSON.
    """
    with replacing(path) as file:
        file.write(json.dumps({"settings": settings, "result": result}, indent=1).encode())


def read(path: Path) -> tuple[dict[str, Any], Any]:
    """The settings and the result that a file holds.

    Raises:
        KeptError: if the file is damaged, or of another kind.
        FileNotFoundError: if there is none.
    """
    try:
        found = json.loads(path.read_text())
        return {**found["settings"]}, found["result"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise KeptError(f"{path} is damaged ({error!r}): delete it, and it is made anew") from error


def finished(path: Path, settings: Mapping[str, Any]) -> Any | None:
    """The result of a file that was made with these settings, ``None`` if there is no file.

    Args:
        path: the file.
        settings: those that the result must have been made with, plain JSON.

    Raises:
        KeptError: if the file was made with other settings, or is damaged.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "sum.json"
        >>> keep(path, {"seed": 0}, 3.5)
        >>> finished(path, {"seed": 0}), finished(path.with_name("other.json"), {})
        (3.5, None)
    """
    if not path.exists():
        return None
    known, result = read(path)
    wanted = json.loads(json.dumps(settings))  # tuples become lists, as they did in the file
    if known != wanted:
        names = [name for name in {**known, **wanted} if known.get(name) != wanted.get(name)]
        changes = "; ".join(f"{name}: {_short(known.get(name))}, now {_short(wanted.get(name))}" for name in names)
        raise KeptError(
            f"{path} was made with other settings ({changes}): give another --out, or delete it to make it anew"
        )
    return result


def once(path: Path, settings: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """The result that was made with these settings before, or that ``make`` makes now and that is then kept.

    Args:
        path: the file that holds it.
        settings: all that the result depends on, plain JSON.
        make: does the work; its result is plain JSON.

    Raises:
        KeptError: if the file was made with other settings, or is damaged.
    """
    result = finished(path, settings)
    if result is None:
        result = make()
        keep(path, settings, result)
    return result


def file_of(folder: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """A file for a piece of work with these settings alone, so that pieces with others may lie beside it.

    Args:
        folder: of all pieces.
        name: of the piece, for people who look into the folder.
        settings: all that the result depends on, plain JSON.

    Example:
        >>> one, other = (file_of(Path("rows"), "BP, known", {"seed": seed}) for seed in (0, 1))
        >>> one.name[:10], one == other
        ('BP-known-a', False)
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return folder / f"{re.sub('[^A-Za-z0-9.]+', '-', name)}-{digest}.json"


def described(value: Any) -> Any:
    """An object with its attributes as plain JSON, for settings.

    Args:
        value: plain data, a tensor, or an object whose attributes are such; private attributes are left out.

    Example:
        >>> from lightning_landscape.community import LaplacianSpectral
        >>> described(LaplacianSpectral())
        {'class': 'LaplacianSpectral', 'disassortative': False, 'seed': 0}
    """
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [described(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): described(part) for key, part in value.items()}
    own = {key: described(part) for key, part in vars(value).items() if not key.startswith("_")}
    return {"class": type(value).__name__, **own}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
