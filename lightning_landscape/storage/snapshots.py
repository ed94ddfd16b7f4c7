"""Snapshots: the weights of a module at one moment of training, as verified safetensors files."""

from __future__ import annotations

import contextlib
import json
import operator
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from lightning_landscape.storage.atomic import link, replacing
from lightning_landscape.storage.named_tensors import content_hash, mapping_state, module_state, tied_names
from lightning_landscape.storage.shared_weights import SharedWeights, read_header
from lightning_landscape.storage.snapshot_headers import (
    Snapshot,
    checked_count,
    checked_finite,
    checked_name,
    default_name,
    epoch_of,
    is_snapshot,
    make_header,
    parse_header,
    rounded,
)
from lightning_landscape.storage.tensor_files import SUFFIX, SnapshotError, missing, write_safetensors

StoredDtype = Literal["float32", "bfloat16", "float16"]
_NOTE = ".json"
_order = operator.attrgetter("step", "name")
__all__ = [
    "SharedWeights",
    "Snapshot",
    "SnapshotError",
    "SnapshotStore",
    "StoredDtype",
    "checked_name",
    "content_hash",
    "default_name",
    "epoch_of",
    "is_snapshot",
    "module_state",
    "parse_header",
    "tied_names",
]


class SnapshotStore:
    """A folder of snapshots, one safetensors file each; iterates over them by step, then name.

    A file appears under its name complete or not at all, also when the process is killed: it is written
    under a temporary name in the same folder, flushed to the disk and then renamed.

    Weights that a file of the store holds already, to the last bit, are not written again: the new snapshot is a
    further name of that file, a hard link. What its header says otherwise (of another step, say) is in a note beside
    it, ``NAME.json``. Where the disk has no hard links, the file is written again.

    Args:
        dirpath: the folder; made by the first :meth:`save`.
        shared: the files of other stores on the same disk, of which this one makes links too.
        dtype: round floating-point numbers of more bits to ``"float32"``, ``"bfloat16"`` or ``"float16"``; they are
            rounded in the file, and :meth:`Snapshot.load` gives the rounded ones. ``None``: all bits.

    Raises:
        ValueError: if ``dirpath`` is something else than a folder.

    Example:
        >>> import tempfile
        >>> store = SnapshotStore(tempfile.mkdtemp())
        >>> store.save(nn.Linear(2, 1), step=69, epoch=3, loss=0.25).name
        'epoch=003-step=000069'
        >>> [snapshot.loss for snapshot in store]
        [0.25]
        >>> nn.Linear(2, 1).load_state_dict(store.latest().state_dict())
        <All keys matched successfully>
    """

    def __init__(
        self,
        dirpath: str | os.PathLike[str],
        shared: SharedWeights | None = None,
        dtype: StoredDtype | None = None,
    ) -> None:
        self.dirpath = Path(dirpath)
        self.dtype = dtype
        self._shared = shared if shared is not None else SharedWeights()
        self._looked = False  # whether the files that were there already are known
        if self.dirpath.exists() and not self.dirpath.is_dir():
            raise ValueError(f"dirpath must be a folder, and {self.dirpath} is a file")

    def __repr__(self) -> str:
        return f"SnapshotStore({str(self.dirpath)!r})"

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(sorted(map(self.open, self.names()), key=_order))

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def names(self) -> list[str]:
        """The names of all snapshots, in no order."""
        # A leading dot marks the temporary files.
        return [path.stem for path in self.dirpath.glob(f"[!.]*{SUFFIX}")]

    def save(
        self,
        module_or_state: nn.Module | Mapping[str, Tensor],
        *,
        step: int,
        epoch: int,
        loss: float | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Snapshot:
        """Write a snapshot; one that has the same name is replaced in one step.

        Args:
            module_or_state: a module, or its ``state_dict()``; tied tensors are stored once.
            step: optimizer steps taken so far.
            epoch: index of the epoch, from 0.
            loss: the loss of these weights, finite, if known.
            name: file name without suffix; default ``epoch=003-step=000069``.
            metadata: further plain JSON to keep in the header.

        Raises:
            ValueError: for a tensor that safetensors or ``dtype`` cannot hold, a name that is no plain file name, or a
                header value that is not finite.
            OSError: if the disk refuses, for example when it is full; nothing is left behind then.
        """
        if isinstance(module_or_state, nn.Module):
            state, aliases = module_state(module_or_state), tied_names(module_or_state)
        else:
            state, aliases = mapping_state(module_or_state)
        state, dtypes = rounded(state, self.dtype)
        record: dict[str, Any] = {
            "step": checked_count("step", step),
            "epoch": checked_count("epoch", epoch),
            "loss": None if loss is None else checked_finite("loss", loss),
            "content_hash": content_hash(state),
            "aliases": aliases,
            "metadata": dict(metadata or {}),
        } | ({"dtypes": dtypes} if dtypes else {})
        path = self._path(default_name(step=step, epoch=epoch) if name is None else name)
        header = make_header(record)
        snapshot = parse_header(path, header)
        if not self._link(snapshot):
            write_safetensors(path, state, header)
            self._note(path).unlink(missing_ok=True)
            self._shared.add(snapshot, intact=True)
        return snapshot

    def hash_of(self, module: nn.Module) -> str:
        """The content hash that a snapshot of the module has in this store."""
        return content_hash(rounded(module_state(module), self.dtype)[0])

    def adopt(self, snapshot: Snapshot) -> Snapshot:
        """Has a snapshot of another store under its name here too, as a link, or a copy on another disk.

        Raises:
            SnapshotError: if its file is missing, damaged, altered or was replaced since it was opened.
            OSError: if the disk refuses, for example when it is full; nothing is left behind then.
        """
        own = replace(snapshot, path=self._path(snapshot.name))
        self._shared.add(snapshot, intact=False)
        if not self._link(own):
            stored = replace(snapshot, dtypes={}).load()
            write_safetensors(own.path, stored, make_header(own.record()))
            self._note(own.path).unlink(missing_ok=True)
            self._shared.add(own, intact=True)
        return own

    def open(self, name: str) -> Snapshot:
        """The snapshot called ``name``; reads its header alone.

        Raises:
            SnapshotError: if the file is missing, truncated, altered or not a snapshot of ours.
            ValueError: if ``name`` is no plain file name.
        """
        path = self._path(name)
        snapshot = read_header(path)
        try:
            noted = parse_header(path, json.loads(self._note(path).read_bytes()))
        except (OSError, ValueError, AttributeError, TypeError):
            return snapshot
        # A note of other weights is of a snapshot that was replaced.
        return noted if noted.content_hash == snapshot.content_hash else snapshot

    def load(self, name: str) -> dict[str, Tensor]:
        """The verified tensors of the snapshot called ``name``: ``open(name).load()``."""
        return self.open(name).load()

    def latest(self) -> Snapshot | None:
        """The last snapshot by step and name; ``None`` while there is none."""
        return max(self, key=_order, default=None)

    def delete(self, name: str) -> None:
        """Remove a snapshot, readable or not; weights that another one shares stay.

        Raises:
            SnapshotError: if there is none of that name.
            ValueError: if ``name`` is no plain file name.
        """
        path = self._path(name)
        try:
            path.unlink()
        except FileNotFoundError:
            raise missing(path) from None
        self._note(path).unlink(missing_ok=True)
        self._shared.remove(path)

    def tidy(self) -> None:
        """Removes notes of snapshots that are gone, as a killed process leaves them."""
        for note in self.dirpath.glob(f"[!.]*{_NOTE}"):
            if not note.with_suffix(SUFFIX).exists():
                note.unlink(missing_ok=True)

    def _link(self, wanted: Snapshot) -> bool:
        """Makes the snapshot a name of a file that has its weights already; whether there is one."""
        if not self._looked:
            self._looked = True
            for name in self.names():
                with contextlib.suppress(SnapshotError):
                    self._shared.add(read_header(self._path(name)), intact=False)
        there = self._shared.find(wanted)
        if there is None:
            return False
        note = self._note(wanted.path)
        if there.record() == wanted.record():
            note.unlink(missing_ok=True)
        else:
            with replacing(note) as file:
                file.write(json.dumps(make_header(wanted.record())).encode())
        if not link(there.path, wanted.path):
            return False
        self._shared.add(wanted, intact=True)
        return True

    def _path(self, name: str) -> Path:
        return self.dirpath / f"{checked_name(name)}{SUFFIX}"

    def _note(self, path: Path) -> Path:
        return path.with_name(f"{path.stem}{_NOTE}")
