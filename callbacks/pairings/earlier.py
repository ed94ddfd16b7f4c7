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
        if state is not None:
            self._name, self._hash = state["name"], state["hash"]

    def missing(self) -> int:
        return 1 if self._name is None else 0

    def partner(self, store: SnapshotStore) -> Partner | None:
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

    def lose(self) -> None:
        """Compares with the next snapshot that is recorded."""
        self._name = self._hash = None

    def needed(self) -> dict[str, str]:
        """The one that the next check compares with."""
        return {} if self._name is None or self._hash is None else {self._name: self._hash}

    def state_dict(self) -> dict[str, Any]:
        return {"name": self._name, "hash": self._hash}

    def _remember(self, snapshot: Snapshot) -> None:
        self._name, self._hash = snapshot.name, snapshot.content_hash


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
