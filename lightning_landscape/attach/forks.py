"""Moments of a run that can be trained on from: weights, buffers, optimiser and modes, in files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_landscape.storage.atomic import replacing
from lightning_landscape.storage.run_folders import differs, lacking, last_step, link_or_copy, link_snapshots
from lightning_landscape.storage.snapshots import SharedWeights, SnapshotStore


class Moment(NamedTuple):
    """What a child starts from.

    Attributes:
        state: weights and buffers, as ``module.state_dict()``.
        optimizer_state: the optimiser's ``state_dict()``.
        in_eval: names of the submodules that were in eval mode.
    """

    state: Mapping[str, Tensor]
    optimizer_state: Mapping[str, Any]
    in_eval: frozenset[str]


class KeptMoments:
    """The moments of a run by step, two files each.

    Args:
        folder: where the files are.
        shared: files of other snapshots of the run, of which the weights are links.
    """

    def __init__(self, folder: Path, shared: SharedWeights | None = None) -> None:
        self._folder = folder
        self._shared = shared
        self._store = SnapshotStore(folder, shared)

    def keep(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> str:
        """Writes the present moment, and returns the content hash of its weights."""
        with replacing(self._optimizer_file(step)) as file:
            torch.save(trainer.optimizers[0].state_dict(), file)
        asleep = [name for name, part in module.named_modules() if not part.training]
        snapshot = self._store.save(
            module, step=step, epoch=trainer.current_epoch, name=_name(step), metadata={"eval": asleep}
        )
        return snapshot.content_hash

    def gone(self, forks: Mapping[int, str]) -> list[int]:
        """The steps of those moments, given by content hash, that are not there."""
        names = lacking(self._store, {_name(step): content for step, content in forks.items()})
        return [step for step in forks if _name(step) in names or not self._optimizer_file(step).is_file()]

    def is_later(self, step: int) -> bool:
        """Whether a moment after this step is there."""
        return last_step(self._store) > step

    def differs(self, module: pl.LightningModule, step: int) -> bool:
        """Whether other weights than the module's are kept of this step."""
        name = _name(step)
        return name in self._store and differs(self._store, name, self._store.hash_of(module))

    def linked(self, folder: Path, last: int) -> KeptMoments:
        """These moments, up to a step, in another folder too."""
        there = KeptMoments(folder, self._shared)
        link_snapshots(self._store, there._store, lambda snapshot: snapshot.step <= last)
        for snapshot in there._store:
            path = self._optimizer_file(snapshot.step)
            if path.exists():
                link_or_copy(path, there._optimizer_file(snapshot.step))
        return there

    def weights(self, step: int) -> dict[str, Tensor]:
        """The tensors of a moment alone."""
        return self._store.load(_name(step))

    def moment(self, step: int, content: str, device: torch.device) -> Moment:
        """A moment, with the optimiser's state on the device.

        Raises:
            ValueError: if the weights have another content hash than ``content``.
        """
        snapshot = self._store.open(_name(step))
        if snapshot.content_hash != content:
            raise ValueError(f"{snapshot.path} was replaced by another run: give each run its own dirpath")
        optimizer_state = torch.load(self._optimizer_file(step), map_location=device, weights_only=True)
        return Moment(snapshot.state_dict(), optimizer_state, frozenset(snapshot.metadata["eval"]))

    def _optimizer_file(self, step: int) -> Path:
        return self._folder / f"{_name(step)}-optimizer.pt"


def _name(step: int) -> str:
    return f"step={step:06d}"
