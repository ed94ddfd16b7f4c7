"""What the present weights are compared with."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_landscape.storage.checkpoints import read_reference
from lightning_landscape.storage.snapshots import Snapshot, SnapshotError, SnapshotStore

Partner = Mapping[str, Tensor]  # the other point of a pair, as named tensors


class Pairing(ABC):
    """Chooses the partner of the present weights; one small class for each choice."""

    @abstractmethod
    def partner(self, store: SnapshotStore) -> Partner | None:
        """The point to compare with, ``None`` while there is none yet."""

    def record(self, snapshot: Snapshot) -> None:  # noqa: B027 - most need no note
        """Takes note of the snapshot of the present weights, after the check."""

    def state_dict(self) -> dict[str, Any]:
        """What has to survive a resume; plain data."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - nothing was kept
        """Goes on from :meth:`state_dict`."""


class _Remembered(Pairing):
    """Compares with one earlier snapshot, known by name and content hash."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._hash: str | None = None

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

    def state_dict(self) -> dict[str, Any]:
        return {"name": self._name, "hash": self._hash}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._name, self._hash = state["name"], state["hash"]

    def _remember(self, snapshot: Snapshot) -> None:
        self._name, self._hash = snapshot.name, snapshot.content_hash


class Lagged(_Remembered):
    """Compares with the weights of the previous check: is the run still moving between basins?"""

    def record(self, snapshot: Snapshot) -> None:
        """The next check compares with this one."""
        self._remember(snapshot)


class First(_Remembered):
    """Compares with the weights of the first check: has the run left the basin it started in?"""

    def record(self, snapshot: Snapshot) -> None:
        """Keeps the first, whatever comes after."""
        if self._name is None:
            self._remember(snapshot)


class Reference(Pairing):
    """Compares with another run's weights, from a Lightning checkpoint or a safetensors file.

    Args:
        path: the file; read once, and never unpickled.

    Raises:
        SnapshotError: if the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._partner: Partner | None = None

    def partner(self, store: SnapshotStore) -> Partner:
        """The reference, each time; read on first use, which is on rank zero as training starts."""
        if self._partner is None:
            self._partner = read_reference(self._path)
        return self._partner
