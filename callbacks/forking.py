"""The kept states of a run's forks and the record of what came of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from lightning_landscape.attach.forks import KeptMoments
from lightning_landscape.callbacks.base import LandscapeCallback
from lightning_landscape.storage.plain_files import shown
from lightning_landscape.storage.rows import KeyedRows
from lightning_landscape.storage.run_folders import copy
from lightning_landscape.storage.snapshots import SharedWeights, SnapshotError


class ForkingCallback(LandscapeCallback):
    """Keeps states of the run in the folder ``states``, and rows by key in ``forks.jsonl``."""

    inner: ClassVar[tuple[str, ...]] = ("states",)
    keeps: ClassVar[tuple[str, ...]] = ("forks.jsonl", "forks.png", "states")

    _forks: dict[int, str]  # content hash of the kept state by step
    _shared: SharedWeights  # on rank zero, as are the next two
    _store: KeptMoments | None
    _record: KeyedRows | None

    def forget(self) -> None:
        """No fork."""
        self._forks = {}
        self._store = self._record = None

    def restore(self, state: dict[str, Any]) -> None:
        """The forks there were."""
        self._forks = {int(step): content for step, content in state["forks"].items()}

    def state(self) -> dict[str, Any]:
        """Hashes of the kept states, which stay in their files, and the number of rows."""
        forks = {str(step): content for step, content in self._forks.items()}
        return {"forks": forks, "results": 0 if self._record is None else len(self._record)}

    def holds(self, folder: Path, state: dict[str, Any]) -> bool:
        """Whether the states that the checkpoint knows are there."""
        forks = {int(step): content for step, content in state["forks"].items()}
        return not KeptMoments(folder / "states").gone(forks)

    def beyond(self, folder: Path, state: dict[str, Any], step: int) -> bool:
        """Whether forks of later steps, or more rows, are there."""
        results = len(KeyedRows(folder / "forks.jsonl"))
        return results > state.get("results", 0) or KeptMoments(folder / "states").is_later(step)

    def open(self, folder: Path, resumed: bool) -> Any:
        """The kept states, and the forks that are measured already; the steps of those whose state is gone."""
        self._store = KeptMoments(folder / "states", self._shared)
        self._record = KeyedRows(folder / "forks.jsonl")
        gone = self._store.gone(self._forks)
        if not gone:
            return None
        what = f"{shown(folder / 'states')} lacks what was kept at the steps {', '.join(map(str, gone))}"
        if self.on_error == "raise":
            raise SnapshotError(f"{what}: put the files back, or pass the dirpath= that they are in now")
        rank_zero_warn(f"{what}: these forks are left out")
        return gone

    def lose(self, gone: Any) -> None:
        """These forks are left out."""
        for step in gone:
            del self._forks[step]

    def move(self, folder: Path, step: int) -> None:
        """States are linked, and rows copied: by their keys they are good for every run."""
        assert self._store is not None
        assert self._record is not None
        if self._record.path.exists():
            copy(self._record.path, folder / "forks.jsonl")
        self._record = KeyedRows(folder / "forks.jsonl")
        self._store = self._store.linked(folder / "states", step)

    def keep(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> str:
        """Keeps the present state; where another one is kept of this step, in a folder of its own."""
        assert self._store is not None
        if self._store.differs(pl_module, step):
            self.part(trainer, step - 1, f"the weights at step {step} are not those that were saved there before")
        return self._store.keep(trainer, pl_module, step)
