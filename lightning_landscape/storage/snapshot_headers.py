"""What a snapshot says of itself: the header of its file, sealed by a checksum."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_landscape.storage.named_tensors import content_hash
from lightning_landscape.storage.plain_files import shown
from lightning_landscape.storage.tensor_files import REPLACE, SnapshotError, read_safetensors

_RECORD, _SEAL = "lightning_landscape.snapshot", "lightning_landscape.sha256"
_FORMAT = 1
_LONG = {"float64": "float64", "float32": "float32"}  # kinds of numbers that may be rounded


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
        dtypes: kinds of numbers, such as ``"float32"``, of tensors that are stored in a shorter one.
    """

    path: Path
    name: str
    step: int
    epoch: int
    loss: float | None
    content_hash: str
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    dtypes: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)

    def load(self) -> dict[str, Tensor]:
        """The tensors, on the CPU, tied ones once; every load is verified against the content hash.

        Numbers that were stored in a shorter kind are as they were rounded, in the kind that they had.

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
        if not self.dtypes.keys() <= tensors.keys():
            raise SnapshotError(f"{shown(self.path)} names rounded tensors that it does not hold. {REPLACE}")
        return {name: _widened(tensor, self.dtypes.get(name)) for name, tensor in tensors.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """:meth:`load` with tied tensors under all of their names, as ``module.load_state_dict`` wants them.

        Raises:
            SnapshotError: if the file is missing, damaged, altered or replaced; the message says what to do.
        """
        tensors = self.load()
        return tensors | {alias: tensors[name] for alias, name in self.aliases.items()}

    def record(self) -> dict[str, Any]:
        """All that the header says, as :func:`make_header` takes it."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "loss": self.loss,
            "content_hash": self.content_hash,
            "aliases": dict(self.aliases),
            "metadata": dict(self.metadata),
        } | ({"dtypes": dict(self.dtypes)} if self.dtypes else {})


def rounded(tensors: Mapping[str, Tensor], dtype: str | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors with floating-point numbers of more bits rounded to ``dtype``, and what those were.

    Raises:
        ValueError: if a finite number becomes infinite.

    Example:
        >>> rounded({"w": torch.tensor([1.0, 1 / 3])}, "bfloat16")
        ({'w': tensor([1.0000, 0.3340], dtype=torch.bfloat16)}, {'w': 'float32'})
    """
    if dtype is None:
        return dict(tensors), {}
    kind: torch.dtype = getattr(torch, dtype)
    shorter = {name: tensor.to(kind) for name, tensor in tensors.items() if _is_longer(tensor.dtype, kind)}
    for name, tensor in shorter.items():
        if not torch.equal(tensor.isfinite(), tensors[name].isfinite()):
            raise ValueError(f"{name} holds numbers that {dtype} has not (they overflow): keep snapshots in 'bfloat16'")
    return dict(tensors) | shorter, {name: str(tensors[name].dtype).removeprefix("torch.") for name in shorter}


def default_name(*, step: int, epoch: int) -> str:
    """The name of a snapshot that was given none: ``epoch=003-step=000069``."""
    return f"epoch={epoch:03d}-step={step:06d}"


def epoch_of(name: str) -> int:
    """The epoch in a name of :func:`default_name`.

    Example:
        >>> epoch_of(default_name(step=69, epoch=3))
        3
    """
    return int(name.partition("-")[0].removeprefix("epoch="))


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
            step=checked_count("step", record["step"]),
            epoch=checked_count("epoch", record["epoch"]),
            loss=None if record["loss"] is None else checked_finite("loss", record["loss"]),
            content_hash=str(record["content_hash"]),
            metadata=dict(record["metadata"]),
            aliases={str(alias): str(name) for alias, name in record["aliases"].items()},
            dtypes={str(name): _LONG[dtype] for name, dtype in record.get("dtypes", {}).items()},
        )
    except SnapshotError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise SnapshotError(
            f"{shown(path)} has a header that SnapshotStore does not write ({error!r}). {REPLACE}"
        ) from error


def make_header(record: Mapping[str, Any]) -> dict[str, str]:
    """Header metadata for a record, with its seal; :func:`parse_header` reads it.

    Raises:
        ValueError: if the record is no plain JSON with finite numbers.
    """
    try:
        text = json.dumps({"format": _FORMAT, **record}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be plain JSON with finite numbers: {error}") from error
    return {_RECORD: text, _SEAL: hashlib.sha256(text.encode()).hexdigest()}


def checked_count(name: str, value: Any) -> int:
    """The value as an integer from 0, or a ``ValueError`` that names it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise ValueError(f"{name} must be an integer from 0, got {value!r}")
    return int(value)


def checked_finite(name: str, value: Any) -> float:
    """The value as a finite float, or a ``ValueError`` that names it."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite or None, got {number}")
    return number


def _is_longer(own: torch.dtype, kind: torch.dtype) -> bool:
    return own.is_floating_point and own.itemsize > kind.itemsize


def _widened(tensor: Tensor, dtype: str | None) -> Tensor:
    return tensor if dtype is None else tensor.to(getattr(torch, dtype))


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no finite number")
