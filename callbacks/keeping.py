"""Which snapshots a callback keeps, and when the others are removed."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
from torch import nn

from lightning_landscape.attach.options import check_choice, check_count
from lightning_landscape.callbacks.recording import RecordingCallback
from lightning_landscape.storage.run_folders import last_step
from lightning_landscape.storage.snapshots import Snapshot, SnapshotError, StoredDtype

Keep = Literal["needed", "all"] | int


class KeepingCallback(RecordingCallback):
    """Keeps snapshots in its folder, and removes those that nothing needs any more.

    What stays: the present snapshots, those that :meth:`needed` names, and those that it named when the latest
    checkpoint was saved, so that a run which is killed goes on from there. Files of another callback or of an earlier
    run are never removed, nor, while a resumed run repeats what was made before a kill, what it found.

    Args:
        keep: ``"needed"``; or ``"all"``; or a number: those of the last so many moments too.
        options: of :class:`~lightning_landscape.callbacks.recording.RecordingCallback`.

    Raises:
        ValueError: for arguments out of range.
    """

    _held: list[list[str]]  # names of the snapshots that may be removed one day, by moments; on rank zero, as all here
    _pinned: frozenset[str]  # needed by the latest checkpoint
    _found: frozenset[str]  # there as a run was resumed
    _repeated: int  # the last step of these

    def __init__(self, keep: Keep, dtype: StoredDtype | None, **options: Any) -> None:
        check_keep(keep, ("needed", "all"))
        self.keep = keep
        super().__init__(dtype, **options)

    @abstractmethod
    def needed(self) -> set[str] | None:
        """Names of the snapshots that will be asked for later; ``None``: of all."""

    def wanted(self, names: Sequence[str]) -> set[str]:
        """Those of another callback's snapshots of companions, in the order of saving, that it will ask for."""
        return set()

    def forget(self) -> None:
        """Nothing saved."""
        super().forget()
        self._held = []
        self._pinned = self._found = frozenset()
        self._repeated = -1
        self._beside: list[KeepingCallback] = []  # all such callbacks of the trainer

    def restore(self, state: dict[str, Any]) -> None:
        """The snapshots that this rule has saved; those of a checkpoint that knows no rule are left as they are."""
        super().restore(state)
        self._held = [list(names) for names in state.get("held", [])]

    def define(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Draws the probe set, and finds what the callbacks of the trainer share."""
        super().define(trainer, pl_module, state)
        self._beside = [other for other in trainer.callbacks if isinstance(other, KeepingCallback)]  # type: ignore[attr-defined]

    def settle(self, trainer: pl.Trainer, pl_module: pl.LightningModule, gone: Any) -> Any:
        """Looks at what a killed run has left."""
        gone = super().settle(trainer, pl_module, gone)
        assert self._store is not None
        self._found, self._repeated = frozenset(self._store.names()), last_step(self._store)
        self._pinned = frozenset(self.needed() or ())
        return gone

    def move(self, folder: Path, step: int) -> None:
        """What is in the other folder are names of its own."""
        super().move(folder, step)
        self._found = frozenset()

    def state(self) -> dict[str, Any]:
        """The names of what may be removed; the snapshots stay in their files."""
        return super().state() | {"held": [list(names) for names in self._held]}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keeps, until the next checkpoint, what a run needs that goes on from this one."""
        if self.active and self._store is not None:
            self._pinned = frozenset(self.needed() or ())

    def save(self, trainer: pl.Trainer, modules: Mapping[str, nn.Module], epoch: int) -> Snapshot:
        """Saves modules as one moment."""
        snapshot = super().save(trainer, modules, epoch)
        if self.keep != "all":
            saved = [f"{lead}{snapshot.name}" for lead in modules]
            before = [[name for name in names if name not in saved] for names in self._held]
            self._held = [*filter(None, before), saved]
        return snapshot

    def circumstances(self, trainer: pl.Trainer, epoch: int) -> dict[str, Any]:
        """What every row says of when and under what it is made."""
        return {
            "check": self._made + 1,
            "epoch": epoch,
            "step": trainer.global_step,
            "data": self._data,
            "noise": self.present_noise,
            "keep": self.keep,
            "dtype": self.dtype,
        }

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
        if self._examined <= self._repeated:
            stay |= self._found
        for names in self._held:
            for name in [name for name in names if name not in stay]:
                with contextlib.suppress(SnapshotError):  # gone already
                    self._store.delete(name)
                names.remove(name)
        self._held = [names for names in self._held if names]


def check_keep(keep: Keep, words: Sequence[str]) -> None:
    """Raises a ``ValueError`` for anything but one of the words or a number from 1."""
    if isinstance(keep, str):
        check_choice("keep", keep, words)
    else:
        check_count("keep", keep)


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
