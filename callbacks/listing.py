"""The list of what a recorder has saved, through kills, resumes and moves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from lightning_landscape.attach.options import check_dtype
from lightning_landscape.attach.shared import shared_weights
from lightning_landscape.callbacks.base import LandscapeCallback, OnError
from lightning_landscape.callbacks.keeping import check_keep
from lightning_landscape.storage.plain_files import shown
from lightning_landscape.storage.run_folders import differs, lacking, last_step, link_snapshots
from lightning_landscape.storage.snapshots import SharedWeights, Snapshot, SnapshotError, SnapshotStore, StoredDtype


class ListingCallback(LandscapeCallback):
    """Saves snapshots into a folder that several may share, and knows which of them are its own.

    Args:
        keep: ``"all"``: every snapshot stays on the disk; or a number: the last so many of this recorder.
        dtype: see :class:`~lightning_landscape.storage.snapshots.SnapshotStore`.
        dirpath: folder of the snapshots.
        name: sets apart several of these callbacks.
        on_error: whether a failure is a warning or ends the run.
    """

    files: ClassVar[Literal["own", "shared", "none"]] = "shared"
    keeps: ClassVar[tuple[str, ...]] = tuple(
        f"*epoch=[0-9]*-step=[0-9]*.{ending}" for ending in ("safetensors", "json")
    )

    _shared: SharedWeights  # files of weights of all callbacks of the trainer; on rank zero
    _hashes: dict[str, str]  # what was saved and kept, by name
    _lost: set[str]  # what of it was gone when the run went on

    def __init__(
        self,
        keep: Literal["all"] | int,
        dtype: StoredDtype | None,
        dirpath: str | os.PathLike[str] | None,
        name: str | None,
        on_error: OnError,
    ) -> None:
        check_keep(keep, ("all",))
        check_dtype(dtype)
        self.keep = keep
        self.dtype = dtype
        super().__init__(dirpath, name, on_error)

    @property
    def snapshots(self) -> list[Snapshot]:
        """What this recorder has saved and kept, in the order of saving; in rank zero's process alone.

        A run that goes on in another folder has the earlier ones there too, as further names of their files.

        Raises:
            SnapshotError: if a file is gone or unreadable, or holds other weights than were saved.
        """
        if self.store is None:
            return []
        found = [self.store.open(name) for name in self._hashes if name not in self._lost]
        for snapshot in found:
            if snapshot.content_hash != self._hashes[snapshot.name]:
                raise SnapshotError(f"{snapshot.path} was replaced by another run: give each run its own dirpath")
        return found

    def forget(self) -> None:
        """Nothing saved."""
        self.store: SnapshotStore | None = None
        self._hashes, self._lost = {}, set()
        self._found = frozenset[str]()  # names that were there as a run was resumed
        self._repeated = -1  # the last step of these

    def restore(self, state: dict[str, Any]) -> None:
        """What was saved."""
        self._hashes = dict(state["snapshots"])

    def state(self) -> dict[str, Any]:
        """Names and hashes of what was saved."""
        return {"snapshots": dict(self._hashes)}

    def follow(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Finds the files of the other callbacks."""
        self._shared = shared_weights(trainer)
        self._others = [other for other in trainer.callbacks if isinstance(other, ListingCallback)]  # type: ignore[attr-defined]

    def holds(self, folder: Path, state: dict[str, Any]) -> bool:
        """Whether one of the snapshots that the checkpoint lists is there, where it lists any."""
        listed = state["snapshots"]
        return not listed or len(lacking(SnapshotStore(folder), listed)) < len(listed)

    def beyond(self, folder: Path, state: dict[str, Any], step: int) -> bool:
        """Whether snapshots of later steps are there."""
        return last_step(SnapshotStore(folder)) > step

    def open(self, folder: Path, resumed: bool) -> Any:
        """The folder of the snapshots; names of those that are gone, but for those that ``keep`` has removed."""
        self.store = store = SnapshotStore(folder, self._shared, self.dtype)
        gone = lacking(store, self._hashes)
        if isinstance(self.keep, int):
            self._hashes = {name: content for name, content in self._hashes.items() if name not in gone}
        if not gone or isinstance(self.keep, int):
            return None
        what = f"of the snapshots of the resumed run {', '.join(gone)} are gone from {shown(folder)}"
        if self.on_error == "raise":
            raise SnapshotError(f"{what}: put the files back, or pass the dirpath= that they are in now")
        rank_zero_warn(f"{what}: snapshots lists the others. Put the files back and resume again to have them listed")
        return gone

    def lose(self, gone: Any) -> None:
        """The list goes on without these snapshots, of which checkpoints know."""
        self._lost = set(gone)

    def move(self, folder: Path, step: int) -> None:
        """The snapshots so far are linked."""
        assert self.store is not None
        store = SnapshotStore(folder, self._shared, self.dtype)
        link_snapshots(self.store, store, lambda snapshot: snapshot.name in self._hashes and snapshot.step <= step)
        self.store, self._found = store, frozenset()

    def settle(self, trainer: pl.Trainer, pl_module: pl.LightningModule, gone: Any) -> Any:
        """Removes what a killed process left beside the snapshots."""
        assert self.store is not None
        self.store.tidy()
        self._found, self._repeated = frozenset(self.store.names()), last_step(self.store)
        return gone

    def save(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        name: str,
        epoch: int,
        loss: float | None,
        metadata: Mapping[str, Any],
    ) -> bool:
        """Whether the snapshot is there: a full disk must not end training.

        Where the folder has other weights under the name, the run goes on in a folder of its own.
        """
        step = trainer.global_step

        def save() -> Snapshot | None:
            assert self.store is not None
            if name in self.store and differs(self.store, name, self.store.hash_of(pl_module)):
                self.part(trainer, step - 1, f"the weights at step {step} are not those that were saved there before")
            return self.store.save(pl_module, step=step, epoch=epoch, loss=loss, name=name, metadata=metadata)

        snapshot = self.attempt(save, self.warning(f"{type(self).__name__} could not save {name}", None))
        if snapshot is None:
            return False
        self._hashes.pop(name, None)
        self._hashes[name] = snapshot.content_hash
        self._lost.discard(name)
        what = f"{type(self).__name__} could not remove old snapshots"
        self.attempt(lambda: self._prune(repeats=step <= self._repeated), self.warning(what, None))
        return True

    def _prune(self, repeats: bool) -> None:
        """Removes what is older than ``keep`` allows, where no other recorder keeps it."""
        assert self.store is not None
        if self.keep == "all":
            return
        for name in list(self._hashes)[: -self.keep]:
            if repeats and name in self._found:
                continue
            beside = any(
                other is not self and other.folder == self.folder and name in other._hashes for other in self._others
            )
            if not beside and name in self.store:
                self.store.delete(name)
            del self._hashes[name]
