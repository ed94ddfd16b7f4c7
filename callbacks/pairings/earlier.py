"""An earlier moment of the same run as the partner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl

from lightning_landscape.callbacks.pairings.base import Pairing, Partner
from lightning_landscape.storage.snapshots import Snapshot, SnapshotError, SnapshotStore


class _Remembered(Pairing):
    """Compares with one earlier snapshot, known by name and content hash."""

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, state: Mapping[str, Any] | None) -> None:
        self._name: str | None = None
        self._hash: str | None = None
        self._lost: str | None = None  # why the partner cannot be read any more
        if state is not None:
            self._name, self._hash, self._lost = state["name"], state["hash"], state.get("lost")

    def missing(self) -> int:
        return 1 if self._name is None and self._lost is None else 0

    def partner(self, store: SnapshotStore) -> Partner | None:
        if self._lost is not None:
            raise SnapshotError(f"{self._lost}; from here on checks compare with what is saved now")
        if self._name is None:
            return None
        try:
            snapshot = store.open(self._name)
        except SnapshotError as error:
            raise SnapshotError(f"{error} (a run resumes with the dirpath in which it began)") from error
        if snapshot.content_hash != self._hash:
            raise SnapshotError(
                f"{snapshot.path} holds other weights than this run saved there: give each run its own dirpath"
            )
        return snapshot.load()

    def lose(self, why: str) -> None:
        """The next check fails for this reason; those after it compare with the snapshot recorded then."""
        self._name, self._hash, self._lost = None, None, why

    def needed(self) -> dict[str, str]:
        """The one that the next check compares with."""
        return {} if self._name is None or self._hash is None else {self._name: self._hash}

    def state_dict(self) -> dict[str, Any]:
        return {"name": self._name, "hash": self._hash, "lost": self._lost}

    def _remember(self, snapshot: Snapshot) -> None:
        self._name, self._hash, self._lost = snapshot.name, snapshot.content_hash, None


class Lagged(_Remembered, word="lagged"):
    """Compares with the weights of the previous check: is the run still moving between basins?"""

    def record(self, snapshot: Snapshot) -> None:
        """The next check compares with this one."""
        self._remember(snapshot)


class First(_Remembered, word="first"):
    """Compares with the weights of the first check: has the run left the basin it started in?"""

    def record(self, snapshot: Snapshot) -> None:
        """Keeps the first, whatever comes after."""
        if self._name is None:
            self._remember(snapshot)
