"""The weights of another run as the partner."""

from __future__ import annotations

import os
from typing import ClassVar

from torch import nn

from lightning_landscape.attach.frozen import require_equal_frozen
from lightning_landscape.callbacks.pairings.base import Pairing, Partner
from lightning_landscape.storage.checkpoints import read_reference
from lightning_landscape.storage.snapshots import SnapshotStore
from lightning_landscape.surface.matching import matched_state


class Reference(Pairing, word="reference"):
    """Compares with another run's weights, from a Lightning checkpoint or a safetensors file.

    Args:
        reference: the file; read once, and never unpickled.

    Raises:
        ValueError: without a file.
    """

    options: ClassVar[frozenset[str]] = frozenset({"reference"})

    _partner: Partner  # on rank zero

    def __init__(self, reference: str | os.PathLike[str] | None) -> None:
        if reference is None:
            raise ValueError("pairs='reference' and reference=FILE go together, and no file was given")
        self._path = reference

    def read(self, module: nn.Module) -> Partner:
        """Reads the file.

        Raises:
            SnapshotError: if the file cannot be read.
            ValueError: naming the file and the tensors that are no state of the module, or differ where the module is
                frozen.
        """
        self._partner = read_partner(self._path, module)
        return self._partner

    def partner(self, store: SnapshotStore) -> Partner:
        """The reference, each time."""
        return self._partner

    def needed(self) -> dict[str, str]:
        """No snapshot of the run."""
        return {}


def read_partner(path: str | os.PathLike[str], module: nn.Module) -> Partner:
    """The weights of a file, under the module's names, once they are known to be a state of the module.

    Args:
        path: a Lightning checkpoint or a safetensors file.
        module: the module that trains.

    Raises:
        SnapshotError: if the file cannot be read.
        ValueError: naming the file and the tensors that do not fit.
    """
    state = read_reference(path)
    try:
        partner = matched_state(module, state)
        require_equal_frozen(module, partner)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)} cannot be compared: {error}") from error
    return partner
