"""The contract of a pairing: what the present weights are compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_landscape.storage.snapshots import Snapshot, SnapshotStore

Partner = Mapping[str, Tensor]  # the other point of a pair, as named tensors
PAIRINGS: dict[str, type[Pairing]] = {}  # by the word that ``pairs=`` takes


class Pairing(ABC):
    """Chooses the partner of the present weights, through the whole life of a run.

    A callback asks :meth:`check` in ``setup``, calls :meth:`setup` on every rank and :meth:`read` on rank zero as
    training starts, tells :meth:`keep`, :meth:`follow` and :meth:`step` of each batch and optimiser step, and at each
    check asks :meth:`partner` and then tells :meth:`record`, on rank zero. Only :meth:`partner` has to be written.

    ``class Mine(Pairing, word="mine")`` enters a pairing into ``PAIRINGS``, so that ``pairs="mine"`` asks for it. In
    this package it is a file, and a line in ``callbacks/pairings/__init__.py`` that imports it.

    Attributes:
        options: arguments of the callback that the constructor takes, by name.
        accompanied: whether it trains :meth:`companions`.
        failure: what has ended the pairing's own work, ``None`` while nothing has.
    """

    options: ClassVar[frozenset[str]] = frozenset()
    accompanied: ClassVar[bool] = False
    failure: Exception | None = None

    def __init_subclass__(cls, word: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if word is None:
            return
        if PAIRINGS.setdefault(word, cls).__qualname__ != cls.__qualname__:
            raise TypeError(
                f"pairs={word!r} is {PAIRINGS[word].__qualname__} already: give {cls.__name__} another word"
            )
        PAIRINGS[word] = cls

    def check(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:  # noqa: B027 - most refuse nothing
        """Refuses runs that it cannot follow, before anything is spent.

        Raises:
            MisconfigurationException: saying what to change.
        """

    def setup(  # noqa: B027 - most need nothing
        self, trainer: pl.Trainer, module: pl.LightningModule, state: Mapping[str, Any] | None
    ) -> None:
        """Makes ready as training starts.

        Args:
            trainer: the trainer, whose fit begins.
            module: the module that trains.
            state: of :meth:`state_dict`, where a run goes on; ``None`` where it begins.
        """

    def read(self, module: nn.Module) -> Partner | None:
        """Reads, on rank zero as training starts, what it compares with from elsewhere; ``None`` for most.

        Raises:
            ValueError: if that cannot be read, or is no state of the module.
        """
        return None

    def keep(self, batch: Any) -> None:  # noqa: B027 - most need no batches
        """Sees a batch before the module trains on it."""

    def follow(self, optimizer: Optimizer) -> None:  # noqa: B027 - most take no steps
        """Sees the optimiser with which the module is about to step."""

    def step(self, batch_idx: int) -> None:  # noqa: B027 - most take no steps
        """Does its own work of a batch, after the module's; what goes wrong is kept in ``failure``."""

    @abstractmethod
    def partner(self, store: SnapshotStore) -> Partner | None:
        """The point to compare with, ``None`` while there is none yet.

        Args:
            store: the snapshots of the run's checks.
        """

    def missing(self) -> int:
        """How many snapshots have to be recorded, after :meth:`setup`, before the first comparison."""
        return 0

    def record(self, snapshot: Snapshot) -> None:  # noqa: B027 - most need no note
        """Takes note of the snapshot of the present weights, after the check."""

    def lose(self, why: str) -> None:  # noqa: B027 - most look for nothing
        """Goes on, on every rank, without the snapshot that :meth:`partner` did not find as a run was resumed.

        Args:
            why: the words of the error.
        """

    def needed(self) -> Mapping[str, str] | None:
        """Content hashes, by name, of the snapshots that :meth:`partner` will ask for; ``None``: it may ask for all."""
        return None

    def companions(self) -> Mapping[str, nn.Module]:
        """Models of its own that are saved at each check, by what leads the names of their snapshots."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What has to survive a resume; plain data."""
        return {}
