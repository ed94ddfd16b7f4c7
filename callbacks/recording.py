"""What the callbacks that keep rows and snapshots of a run have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from torch import nn

from lightning_landscape.attach.options import check_dtype
from lightning_landscape.attach.shared import shared_weights
from lightning_landscape.callbacks.searching import SearchingCallback
from lightning_landscape.storage.rows import LostRowsError, NumberedRows, ranges
from lightning_landscape.storage.run_folders import copy, differs, lacking, last_step, link_or_copy, link_snapshots
from lightning_landscape.storage.snapshots import (
    SharedWeights,
    Snapshot,
    SnapshotStore,
    StoredDtype,
    default_name,
    epoch_of,
)


class RecordingCallback(SearchingCallback):
    """Appends a row to a file at each examination, and keeps snapshots in the folder ``snapshots`` beside it."""

    record: ClassVar[str]  # the file of rows in its folder
    counted: ClassVar[str]  # what the rows are: the key of their number in a checkpoint
    works: ClassVar[tuple[str, ...]] = ()  # names of files of finished work, good for every run
    inner: ClassVar[tuple[str, ...]] = ("snapshots",)

    _made: int  # rows so far
    _epochs_of: list[int]  # of the rows
    _lost: list[int]  # numbers of the rows that are gone
    _digest: str | None  # of the rows, as the checkpoint has it
    _shared: SharedWeights  # files of weights of all callbacks of the trainer; on rank zero, as are the next two
    _store: SnapshotStore | None
    _log: NumberedRows | None

    def __init__(self, dtype: StoredDtype | None, **options: Any) -> None:
        check_dtype(dtype)
        self.dtype = dtype
        super().__init__(**options)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the record so far, in rank zero's process."""
        return self._log.rows if self._log is not None else []

    def forget(self) -> None:
        """No row, no snapshot."""
        super().forget()
        self._made = 0
        self._epochs_of, self._lost = [], []
        self._digest = None
        self._store = self._log = None

    def restore(self, state: dict[str, Any]) -> None:
        """The rows there were, by their numbers."""
        super().restore(state)
        self._made = state[self.counted]
        # Checkpoints of 0.1 have none of these.
        self._epochs_of, self._lost = list(state.get("epochs_of", [])), list(state.get("lost", []))
        self._digest = state.get("digest")

    def define(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Draws the probe set, and finds the files of weights that the callbacks of the trainer share."""
        super().define(trainer, pl_module, state)
        self._shared = shared_weights(trainer)

    def state(self) -> dict[str, Any]:
        """The number of rows and what they are known by; the rows stay in their file."""
        digest = self._log.digest if self._log is not None else None
        own = {self.counted: self._made, "epochs_of": list(self._epochs_of), "lost": list(self._lost), "digest": digest}
        return super().state() | own

    def known(self, state: dict[str, Any]) -> Mapping[str, str]:
        """Content hashes, by name, of snapshots that the checkpoint knows."""
        return dict(state.get("snapshots", {}))

    def holds(self, folder: Path, state: dict[str, Any]) -> bool:
        """Whether the rows that the checkpoint counts are there or, where it counts none, one of its snapshots."""
        try:
            self._resumed(folder, state)
        except ValueError:
            return False
        known = {} if state[self.counted] else self.known(state)
        return not known or len(lacking(SnapshotStore(folder / "snapshots"), known)) < len(known)

    def beyond(self, folder: Path, state: dict[str, Any], step: int) -> bool:
        """Whether there are more rows, or snapshots of later steps."""
        try:
            ahead = self._resumed(folder, state).ahead
        except LostRowsError as error:
            if error.foreign:
                return True
            ahead = []
        return bool(ahead) or last_step(SnapshotStore(folder / "snapshots")) > step

    def open(self, folder: Path, resumed: bool) -> Any:
        """Begins the record or goes on with it; ``on_error="warn"`` goes on without rows that are gone."""
        self._store = self._store_in(folder)
        self._log = log = NumberedRows(folder / self.record)
        if not resumed:
            log.start()
            return None
        self.attempt(lambda: log.resume(self._made, self._lost, self._digest), self._do_without)
        return None

    def settle(self, trainer: pl.Trainer, pl_module: pl.LightningModule, gone: Any) -> Any:
        """Has the record end with a whole row, and removes what a killed process left beside the snapshots."""
        assert self._log is not None
        assert self._store is not None
        self._log.repair()
        self._store.tidy()
        return super().settle(trainer, pl_module, gone)

    def move(self, folder: Path, step: int) -> None:
        """The rows so far are written there, finished work is copied, and weights are linked."""
        assert self._log is not None
        assert self._store is not None
        left = self._log.path.parent
        for pattern in self.works:
            for path in left.glob(pattern):
                copy(path, folder / path.name)
        for path in left.glob("recorded-*.pt"):
            link_or_copy(path, folder / path.name)
        self._log.continue_in(folder / self.record)
        here = self._store_in(folder)
        link_snapshots(self._store, here, lambda snapshot: snapshot.step <= step)
        self._store = here

    def append(self, trainer: pl.Trainer, row: dict[str, Any]) -> None:
        """Adds a row; where the file has another one in its place, the run goes on in a folder of its own."""
        assert self._log is not None
        if not self._log.repeats(row):
            what = f"row {row['check']} is not the one that was made after the checkpoint"
            self.part(trainer, trainer.global_step, what)
        self._log.append(row)

    def save(self, trainer: pl.Trainer, modules: Mapping[str, nn.Module], epoch: int) -> Snapshot:
        """Saves modules by what leads the names of their snapshots; the snapshot of the first.

        Where the folder has other weights under one of the names, the run goes on in a folder of its own.
        """
        assert self._store is not None
        step = trainer.global_step
        names = {lead: f"{lead}{default_name(step=step, epoch=epoch)}" for lead in modules}
        known = [(names[lead], module) for lead, module in modules.items() if names[lead] in self._store]
        if any(differs(self._store, name, self._store.hash_of(module)) for name, module in known):
            what = f"the weights at step {step} are not those that were saved after the checkpoint"
            self.part(trainer, step - 1, what)
        saved = [self._store.save(module, step=step, epoch=epoch, name=names[lead]) for lead, module in modules.items()]
        return saved[0]

    def recovered(self, trainer: pl.Trainer, pl_module: nn.Module, wanted: Mapping[str, str]) -> list[str]:
        """Saves again what is gone and is the weights that the run goes on with; the names of the rest.

        Args:
            trainer: the trainer.
            pl_module: the module.
            wanted: content hashes by name.
        """
        assert self._store is not None
        gone = lacking(self._store, wanted)
        if gone:
            present = self._store.hash_of(pl_module)
            for name in [name for name in gone if wanted[name] == present]:
                self._store.save(pl_module, step=trainer.global_step, epoch=epoch_of(name), name=name)
                gone.remove(name)
        return gone

    def _store_in(self, folder: Path) -> SnapshotStore:
        return SnapshotStore(folder / "snapshots", self._shared, self.dtype)

    def _resumed(self, folder: Path, state: dict[str, Any]) -> NumberedRows:
        log = NumberedRows(folder / self.record)
        log.resume(state[self.counted], state.get("lost", []), state.get("digest"))
        return log

    def _do_without(self, error: Exception) -> None:
        assert self._log is not None
        if not isinstance(error, LostRowsError):
            raise error
        self._log.salvage(self._made, self._digest)
        self._lost = sorted({*range(1, self._made + 1)} - {row["check"] for row in self._log.rows})
        epochs = sorted({self._epochs_of[number - 1] for number in self._lost if number <= len(self._epochs_of)})
        of = f" of epochs {ranges(epochs)}" if epochs else ""
        rank_zero_warn(f"{error}; the run goes on without {self.counted} {ranges(self._lost)}{of}")
