"""Snapshots: the weights of a module at one moment of training, as verified safetensors files."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
import operator
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_landscape.storage.named_tensors import content_hash, mapping_state, module_state, tied_names
from lightning_landscape.storage.plain_files import shown
from lightning_landscape.storage.tensor_files import (
    REPLACE,
    SUFFIX,
    SnapshotError,
    missing,
    read_safetensors,
    write_safetensors,
)

_RECORD, _SEAL = "lightning_landscape.snapshot", "lightning_landscape.sha256"
_FORMAT = 1
_order = operator.attrgetter("step", "name")
__all__ = ["Snapshot", "SnapshotError", "SnapshotStore", "content_hash", "module_state", "tied_names"]


@dataclass(frozen=True)
class Snapshot:
    """The header of one snapshot file; the tensors stay on the disk until :meth:`load`.

    Attributes:
        path: the file.
        name: name of the snapshot in the store, without suffix.
        step: optimizer steps taken so far, ``trainer.global_step``.
        epoch: index of the epoch, from 0.
        loss: the loss that the run logged for these weights, ``None`` if it gave none.
        content_hash: :func:`content_hash` of the tensors.
        metadata: further values that the writer noted, plain JSON.
        aliases: further names of tied tensors, mapped to the stored name.
    """

    path: Path
    name: str
    step: int
    epoch: int
    loss: float | None
    content_hash: str
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)

    def load(self) -> dict[str, Tensor]:
        """The tensors, on the CPU, tied ones once; every load is verified against the content hash.

        Raises:
            SnapshotError: if the file is missing, truncated, altered, or was replaced since it was opened.
        """
        header, tensors = read_safetensors(self.path)
        written = parse_header(self.path, header)
        if written.content_hash != self.content_hash:
            raise SnapshotError(f"{self.path} was replaced since it was opened: open {self.name!r} again")
        if content_hash(tensors) != self.content_hash:
            raise SnapshotError(f"{shown(self.path)} was altered: its tensors do not match its content hash. {REPLACE}")
        if not set(self.aliases.values()) <= tensors.keys():
            raise SnapshotError(f"{shown(self.path)} names tied tensors that it does not hold. {REPLACE}")
        return tensors

    def state_dict(self) -> dict[str, Tensor]:
        """:meth:`load` with tied tensors under all of their names, as ``module.load_state_dict`` wants them.

        Raises:
            SnapshotError: if the file is missing, damaged, altered or replaced; the message says what to do.
        """
        tensors = self.load()
        return tensors | {alias: tensors[name] for alias, name in self.aliases.items()}


class SnapshotStore:
    """A folder of snapshots, one safetensors file each; iterates over them by step, then name.

    A file appears under its name complete or not at all, also when the process is killed: it is written
    under a temporary name in the same folder, flushed to the disk and then renamed.

    Args:
        dirpath: the folder; made by the first :meth:`save`.

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

    def __init__(self, dirpath: str | os.PathLike[str]) -> None:
        self.dirpath = Path(dirpath)
        if self.dirpath.exists() and not self.dirpath.is_dir():
            raise ValueError(f"dirpath must be a folder, and {self.dirpath} is a file")

    def __repr__(self) -> str:
        return f"SnapshotStore({str(self.dirpath)!r})"

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(sorted(map(self.open, self._names()), key=_order))

    def __len__(self) -> int:
        return len(self._names())

    def __contains__(self, name: object) -> bool:
        return name in self._names()

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
            ValueError: for a tensor that safetensors cannot hold, a name that is no plain file name, or a
                header value that is not finite.
            OSError: if the disk refuses, for example when it is full; nothing is left behind then.
        """
        if isinstance(module_or_state, nn.Module):
            state, aliases = module_state(module_or_state), tied_names(module_or_state)
        else:
            state, aliases = mapping_state(module_or_state)
        record = {
            "format": _FORMAT,
            "step": _count("step", step),
            "epoch": _count("epoch", epoch),
            "loss": None if loss is None else _finite("loss", loss),
            "content_hash": content_hash(state),
            "aliases": aliases,
            "metadata": dict(metadata or {}),
        }
        path = self._path(default_name(step=step, epoch=epoch) if name is None else name)
        try:
            text = json.dumps(record, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"metadata must be plain JSON with finite numbers: {error}") from error
        header = {_RECORD: text, _SEAL: hashlib.sha256(text.encode()).hexdigest()}
        write_safetensors(path, state, header)
        return parse_header(path, header)

    def open(self, name: str) -> Snapshot:
        """The snapshot called ``name``; reads its header alone.

        Raises:
            SnapshotError: if the file is missing, truncated, altered or not a snapshot of ours.
            ValueError: if ``name`` is no plain file name.
        """
        path = self._path(name)
        return parse_header(path, read_safetensors(path, tensors=False)[0])

    def load(self, name: str) -> dict[str, Tensor]:
        """The verified tensors of the snapshot called ``name``: ``open(name).load()``."""
        return self.open(name).load()

    def latest(self) -> Snapshot | None:
        """The last snapshot by step and name; ``None`` while there is none."""
        return max(self, key=_order, default=None)

    def delete(self, name: str) -> None:
        """Remove a snapshot, readable or not.

        Raises:
            SnapshotError: if there is none of that name.
            ValueError: if ``name`` is no plain file name.
        """
        path = self._path(name)
        try:
            path.unlink()
        except FileNotFoundError:
            raise missing(path) from None

    def _path(self, name: str) -> Path:
        return self.dirpath / f"{checked_name(name)}{SUFFIX}"

    def _names(self) -> list[str]:
        # A leading dot marks the temporary files.
        return [path.stem for path in self.dirpath.glob(f"[!.]*{SUFFIX}")]


def default_name(*, step: int, epoch: int) -> str:
    """The name of a snapshot that was given none: ``epoch=003-step=000069``."""
    return f"epoch={epoch:03d}-step={step:06d}"


def checked_name(name: str) -> str:
    """The name itself, if it is a plain file name that cannot leave its folder.

    Raises:
        ValueError: if it is empty, hidden, too long, or holds a separator or a control character.
    """
    plain = isinstance(name, str) and name.isprintable() and name.strip() == name and len(name.encode()) <= 200
    if not plain or not name or name.startswith(".") or any(char in name for char in "/\\:"):
        raise ValueError(f"name must be a plain file name such as 'epoch=003-step=000069', got {name!r}")
    return name


def is_snapshot(header: Mapping[str, str]) -> bool:
    """Whether header metadata of a safetensors file says that a :class:`SnapshotStore` wrote it."""
    return _RECORD in header


def parse_header(path: Path, header: Mapping[str, str]) -> Snapshot:
    """The snapshot that header metadata describes.

    Raises:
        SnapshotError: if the metadata is not ours, was altered, or is of a later format.
    """
    if not is_snapshot(header):
        raise SnapshotError(
            f"{shown(path)} was not written by SnapshotStore: move it out of the folder of snapshots, or pass it to "
            "read_reference, which takes any safetensors file"
        )
    text = header[_RECORD]
    if header.get(_SEAL) != hashlib.sha256(text.encode()).hexdigest():
        raise SnapshotError(f"{shown(path)} was altered: its header does not match its checksum. {REPLACE}")
    try:
        record = json.loads(text, parse_constant=_refuse)
        if record["format"] != _FORMAT:
            raise SnapshotError(
                f"{path} has format {record['format']!r}, known is {_FORMAT}: upgrade lightning-landscape"
            )
        return Snapshot(
            path=path,
            name=path.stem,
            step=_count("step", record["step"]),
            epoch=_count("epoch", record["epoch"]),
            loss=None if record["loss"] is None else _finite("loss", record["loss"]),
            content_hash=str(record["content_hash"]),
            metadata=dict(record["metadata"]),
            aliases={str(alias): str(name) for alias, name in record["aliases"].items()},
        )
    except SnapshotError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise SnapshotError(
            f"{shown(path)} has a header that SnapshotStore does not write ({error!r}). {REPLACE}"
        ) from error


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise ValueError(f"{name} must be an integer from 0, got {value!r}")
    return int(value)


def _finite(name: str, value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite or None, got {number}")
    return number


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no finite number")
