"""Which snapshots a callback keeps, and when the others are removed."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pytorch_lightning as pl
from torch import nn

from lightning_landscape.attach.options import check_choice, check_count
from lightning_landscape.attach.shared import shared_weights
from lightning_landscape.callbacks.searching import SearchingCallback
from lightning_landscape.storage.rows import NumberedRows
from lightning_landscape.storage.snapshots import Snapshot, SnapshotError, SnapshotStore, StoredDtype, default_name

Keep = Literal["needed", "all"] | int


class KeepingCallback(SearchingCallback):
    """Keeps snapshots in its folder, and removes those that nothing needs any more.

    What stays: the present snapshots, those that :meth:`needed` names, and those that it named when the latest
    checkpoint was saved, so that a run which is killed goes on from there. Files of another callback or of an earlier
    run are never removed.

    Args:
        keep: ``"needed"``; or ``"all"``; or a number: those of the last so many moments too.
        dtype: see :class:`~lightning_landscape.storage.snapshots.SnapshotStore`.
        options: of :class:`~lightning_landscape.callbacks.searching.SearchingCallback`.

    Raises:
        ValueError: for arguments out of range.
    """

    inner: ClassVar[tuple[str, ...]] = ("snapshots",)

    record: ClassVar[str]  # the file of rows in its folder

    _log: NumberedRows | None  # on rank zero, as are the next three
    _store: SnapshotStore | None
    _held: list[list[str]]  # names of the snapshots that may be removed one day, by moments
    _pinned: frozenset[str]  # needed by the latest checkpoint

    def __init__(self, keep: Keep, dtype: StoredDtype | None, **options: Any) -> None:
        check_keep(keep, ("needed", "all"))
        check_dtype(dtype)
        self.keep = keep
        self.dtype = dtype
        super().__init__(**options)

    @abstractmethod
    def needed(self) -> set[str] | None:
        """Names of the snapshots that will be asked for later; ``None``: of all."""

    def wanted(self, names: Sequence[str]) -> set[str]:
        """Those of another callback's snapshots of companions, in the order of saving, that it will ask for."""
        return set()

    def forget(self) -> None:
        """Nothing saved."""
        super().forget()
        self._log = self._store = None
        self._held = []
        self._pinned = frozenset()
        self._beside: list[KeepingCallback] = []  # all such callbacks of the trainer
        self._start: int | None = None  # the step at which a run goes on whose snapshots are known

    def restore(self, state: dict[str, Any]) -> None:
        """The snapshots that this rule has saved; those of a checkpoint that knows no rule are left as they are."""
        super().restore(state)
        self._held = [list(names) for names in state.get("held", [])]
        self._start = -1 if "held" in state else None

    def define(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Draws the probe set, and finds what the callbacks of the trainer share."""
        super().define(trainer, pl_module, state)
        self._shared = shared_weights(trainer)
        self._beside = [other for other in trainer.callbacks if isinstance(other, KeepingCallback)]  # type: ignore[attr-defined]
        self._start = None if self._start is None else trainer.global_step

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the record so far, in rank zero's process."""
        return self._log.rows if self._log is not None else []

    def begin(self, folder: Path, resumed: bool, count: int) -> SnapshotStore:
        """Begins the record and the snapshots in a folder, or goes on after ``count`` rows."""
        self._store = SnapshotStore(folder / "snapshots", self._shared, self.dtype)
        self._log = NumberedRows(folder / self.record)
        if resumed:
            self._log.resume(count)
        else:
            self._log.start()
        return self._store

    def state(self) -> dict[str, Any]:
        """The names of what may be removed; the snapshots stay in their files."""
        return super().state() | {"held": [list(names) for names in self._held]}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keeps, until the next checkpoint, what a run needs that goes on from this one."""
        if self.active and self._store is not None:
            self._pinned = frozenset(self.needed() or ())

    def save(self, module: nn.Module, step: int, epoch: int, lead: str = "") -> Snapshot:
        """Saves the present weights, and then, by what leads their names, those of models that train beside them."""
        assert self._store is not None
        name = default_name(step=step, epoch=epoch)
        own = f"{lead}-{name}" if lead else name
        snapshot = self._store.save(module, step=step, epoch=epoch, name=own)
        self._hold(own, first=not lead)
        return snapshot

    def sweep(self) -> None:
        """Removes, as a run goes on, what a killed process wrote after the checkpoint and nothing needs."""
        if self._store is None or self._start is None or self.keep == "all":
            return
        needed = self.needed()
        if needed is None:
            return
        known = needed.union(*self._held)
        for name in self._store.names():
            with contextlib.suppress(SnapshotError):  # not ours
                if name not in known and self._store.open(name).step >= self._start:
                    self._store.delete(name)
        self._store.tidy()
        self._pinned = frozenset(needed)
        self.prune()

    def prune(self, coming: int = 0) -> None:
        """Removes what neither the rule nor a later check nor the latest checkpoint names.

        Args:
            coming: how many moments are about to be saved.
        """
        needed = self.needed()
        if self._store is None or self.keep == "all" or needed is None:
            return
        last = max(0, (1 if self.keep == "needed" else self.keep) - coming)
        recent = self._held[len(self._held) - last :] if last else []
        stay = needed.union(self._pinned, *recent)
        for names in self._held:
            for name in [name for name in names if name not in stay]:
                with contextlib.suppress(SnapshotError):  # gone already
                    self._store.delete(name)
                names.remove(name)
        self._held = [names for names in self._held if names]

    def _hold(self, name: str, first: bool) -> None:
        if self.keep == "all":
            return
        for names in self._held:
            if name in names:  # saved again
                names.remove(name)
        self._held = [names for names in self._held if names]
        if first:
            self._held.append([])
        self._held[-1].append(name)


def check_keep(keep: Keep, words: Sequence[str]) -> None:
    """Raises a ``ValueError`` for anything but one of the words or a number from 1."""
    if isinstance(keep, str):
        check_choice("keep", keep, words)
    else:
        check_count("keep", keep)


def check_dtype(dtype: StoredDtype | None) -> None:
    """Raises a ``ValueError`` for what no snapshot is stored in."""
    if dtype is not None:
        check_choice("dtype", dtype, get_args(StoredDtype))


def spread(names: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of the names, evenly spread, with the first and the last."""
    if len(names) <= count:
        return list(names)
    return [names[round(place)] for place in np.linspace(0, len(names) - 1, count)]


def left(names: Sequence[str], keep: Keep, most: int) -> list[str]:
    """The points of a tree among all the snapshots there were: the last ``keep``, all, or :func:`thinned` ones."""
    if isinstance(keep, int):
        return list(names[-keep:])
    return thinned(names, most) if keep == "needed" else list(names)


def thinned(names: Sequence[str], most: int) -> list[str]:
    """At most ``most`` of the names, evenly spread, and the last; what goes once is not asked for again.

    Every 2^j-th is left. With one more name the result has no other than before and the new one, so that what is left
    out may be removed from the disk.

    Example:
        >>> thinned("abcdefg", 4)
        ['a', 'c', 'e', 'g']
        >>> thinned("abcdefghi", 4)
        ['a', 'e', 'i']
    """
    stride = 1
    while len(names) > most * stride:
        stride *= 2
    left = list(names[::stride])
    return left if len(names) % stride == 1 or stride == 1 else [*left, *names[-1:]]
