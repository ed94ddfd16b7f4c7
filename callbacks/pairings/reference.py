"""The weights of another run as the partner."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl

from lightning_landscape.callbacks.pairings.base import Pairing, Partner
from lightning_landscape.storage.checkpoints import read_reference
from lightning_landscape.storage.snapshots import SnapshotStore


class Reference(Pairing, word="reference"):
    """Compares with another run's weights, from a Lightning checkpoint or a safetensors file.

    Args:
        reference: the file; read once, and never unpickled.

    Raises:
        ValueError: without a file.
    """

    options: ClassVar[frozenset[str]] = frozenset({"reference"})

    def __init__(self, reference: str | os.PathLike[str] | None) -> None:
        if reference is None:
            raise ValueError("pairs='reference' and reference=FILE go together, and no file was given")
        self._path = reference

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, state: Mapping[str, Any] | None) -> None:
        """Forgets what an earlier fit has read."""
        self._partner: Partner | None = None

    def partner(self, store: SnapshotStore) -> Partner:
        """The reference, each time; read on first use, which is on rank zero as training starts.

        Raises:
            SnapshotError: if the file cannot be read.
        """
        if self._partner is None:
            self._partner = read_reference(self._path)
        return self._partner
