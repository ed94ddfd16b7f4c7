"""Lightning comes as two packages, ``pytorch_lightning`` and ``lightning``, with the same classes twice.

A module, trainer or logger of one is no instance of the other's class of that name, so that ``isinstance`` has to ask
for both. ``pytorch_lightning`` is always installed. ``lightning`` is imported where it is installed: jsonargparse and
``except`` want true subclasses, which have to be made before anyone uses them, and beside ``pytorch_lightning`` the
import takes a tenth of a second.
"""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

import pytorch_lightning as pl
from lightning_fabric.utilities import exceptions

T = TypeVar("T")
_TWIN_PACKAGES = {"pytorch_lightning": "lightning.pytorch", "lightning_fabric": "lightning.fabric"}


def both(kind: type[T]) -> tuple[type[T], ...]:
    """The classes to hand to ``isinstance``: ``kind``, and its twin where ``lightning`` is installed.

    The twin is declared to be of type ``kind``, whose attributes and methods it has.

    Args:
        kind: a class of ``pytorch_lightning`` or ``lightning_fabric``.

    Example:
        >>> isinstance(pl.LightningModule(), both(pl.LightningModule))
        True
    """
    twin = _module(kind.__module__)
    return (kind,) if twin is None else (kind, getattr(twin, kind.__name__))


@cache  # a module that is not there is searched anew at every import
def _module(name: str) -> ModuleType | None:
    package, _, place = name.partition(".")
    try:
        return importlib.import_module(f"{_TWIN_PACKAGES[package]}.{place}")
    except ImportError:  # of what cannot be imported there are no objects
        return None


def alike(kind: type[T], module: pl.LightningModule) -> type[T]:
    """``kind`` from the package whose LightningModule ``module`` is: only with its like does it train.

    Args:
        kind: a class of ``pytorch_lightning`` or ``lightning_fabric``.
        module: a module of either package.

    Example:
        >>> alike(pl.Trainer, pl.LightningModule()) is pl.Trainer
        True
    """
    owners = zip(both(kind), both(pl.LightningModule), strict=True)
    return next(found for found, owner in owners if isinstance(module, owner))


if TYPE_CHECKING:
    from lightning_fabric.utilities.exceptions import MisconfigurationException as MisconfigurationException
    from pytorch_lightning.callbacks import Callback as Callback
else:

    class Callback(*both(pl.Callback)):
        """A callback for the trainers and the command lines of both packages."""

    class MisconfigurationException(*both(exceptions.MisconfigurationException)):
        """What both packages raise for a wrong setting, caught under either name."""
