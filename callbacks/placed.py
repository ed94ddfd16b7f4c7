"""Which folder a callback writes into, so that no record of another run is ever touched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from lightning_landscape.either_lightning import Callback
from lightning_landscape.storage.atomic import remove_abandoned
from lightning_landscape.storage.claims import Claim
from lightning_landscape.storage.plain_files import shown
from lightning_landscape.storage.run_folders import (
    is_own_folder,
    is_set_aside,
    own_folder,
    set_aside,
    set_aside_before,
)


class PlacedCallback(Callback):
    """Finds, claims and keeps the folder of a run.

    A run writes into the folder that was asked for. What an earlier run left there is moved into ``earlier-1`` in it,
    rows, snapshots and figures together. A run that is resumed goes on in the folder it had. Where that holds what came
    after the checkpoint, or where another run is writing, it gets a folder of its own, ``landscape-2`` beside
    ``landscape``, which starts with what there was up to the checkpoint. A run that was killed makes again, in its
    folder, what it wrote after the checkpoint, and gets a folder of its own at the first difference.

    Attributes:
        files: whether it writes into a folder of its own, into one that several may share, or writes none.
        inner: names of the folders that it makes in its own.
        keeps: names, with ``*``, of what it writes in its folder.
        folder: where the files are; ``None`` before ``setup``.
    """

    files: ClassVar[Literal["own", "shared", "none"]] = "own"
    inner: ClassVar[tuple[str, ...]] = ()
    keeps: ClassVar[tuple[str, ...]] = ()

    def __init__(self, dirpath: str | os.PathLike[str] | None) -> None:
        self.dirpath = dirpath
        self.folder: Path | None = None
        self._asked: Path | None = None  # the folder that the user or the default names
        self._claim: Claim | None = None  # on rank zero

    # What a callback adds, all of it on rank zero

    def holds(self, folder: Path, state: dict[str, Any]) -> bool:
        """Whether the folder has the record that the checkpoint counts."""
        return any(any(folder.glob(pattern)) for pattern in self.keeps)

    def beyond(self, folder: Path, state: dict[str, Any], step: int) -> bool:
        """Whether the folder holds what came after the checkpoint of this step, or another run."""
        return False

    def open(self, folder: Path, resumed: bool) -> Any:
        """Begins the files in the folder, or goes on with them; returns what is gone of them.

        Where it is not ``self.folder``, it is read alone, and :meth:`move` follows.
        """

    def move(self, folder: Path, step: int) -> None:
        """Goes on in another folder, which starts with what there was up to this step."""

    def settle(self, trainer: pl.Trainer, pl_module: pl.LightningModule, gone: Any) -> Any:
        """Puts in order what is in ``self.folder``, which is the run's own by now; returns what is gone of it."""
        return gone

    # What a callback uses

    def part(self, trainer: pl.Trainer, step: int, why: str) -> None:
        """Goes on in a folder of its own, which starts with what there was up to this step."""
        if self._claim is not None:
            self.leave(ended=not self._claim.interrupted)
        self.folder = self._own(trainer, why)
        self.move(self.folder, step)

    def origin(self, state: dict[str, Any] | None) -> Path:
        """Where the record of the run is, or begins."""
        assert self._asked is not None
        if state is None:
            return self._asked
        last = Path(state["folder"])
        goes_on = self._goes_on_in(last)
        places = [place for place in ((last, self._asked) if goes_on else (self._asked, last)) if place.is_dir()]
        found = (
            folder for place in places for folder in (place, *set_aside_before(place)) if self.holds(folder, state)
        )
        some = (place for place in places if any(any(place.glob(pattern)) for pattern in self.keeps))
        return next(found, next(some, self._asked))

    def enter(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> Any:
        """Claims the folder to write into, and opens it; what is gone of the record."""
        origin = self.folder
        assert origin is not None
        beside = [other.folder for other in self._sharing(trainer) if other._claim is not None]
        if beside and beside[0] is not None:
            self._claim = Claim.take(beside[0], trainer)
            folder = beside[0]
        else:
            folder = self._choose(trainer, state, origin)
        self.folder = folder
        for place in (folder, *(folder / inner for inner in self.inner)):
            remove_abandoned(place)
        if state is None:
            origin = folder
        gone = self.open(origin, resumed=state is not None)
        if origin != folder:
            self.move(folder, trainer.global_step)
        return self.settle(trainer, pl_module, gone)

    def leave(self, ended: bool) -> None:
        """Gives up the claim; a run that did not end may be resumed in its folder."""
        claim, self._claim = self._claim, None
        if claim is not None:
            (claim.end if ended else claim.abandon)()

    def _choose(self, trainer: pl.Trainer, state: dict[str, Any] | None, origin: Path) -> Path:
        assert self._asked is not None
        home = origin.parent if is_set_aside(origin) else origin
        home = home if self._goes_on_in(home) else self._asked
        self._claim = claim = Claim.take(home, trainer)
        if claim is None:
            return self._own(trainer, f"another run is writing into {shown(home)}")
        if state is None or origin not in (home, *set_aside_before(home)):
            set_aside(home, self.keeps)
        elif origin != home or (not claim.interrupted and self.beyond(home, state, trainer.global_step)):
            claim.end()
            return self._own(trainer, f"{shown(home)} holds what came after the checkpoint")
        return home

    def _goes_on_in(self, folder: Path) -> bool:
        """Whether a run that wrote there writes there again."""
        assert self._asked is not None
        # Loggers give a resumed run another version, and with it another default folder.
        return self.dirpath is None or folder == self._asked or is_own_folder(folder, self._asked)

    def _own(self, trainer: pl.Trainer, why: str) -> Path:
        assert self._asked is not None
        asked = self._asked
        wanted = [other.folder for other in self._sharing(trainer) if other._claim and other.folder != self.folder]
        if not any(any(asked.glob(pattern)) for pattern in self.keeps):
            wanted.append(asked)
        own = wanted[0] if wanted and wanted[0] is not None else own_folder(asked)
        self._claim = Claim.take(own, trainer)
        if self._claim is None:  # another run began there
            own = own_folder(asked)
            self._claim = Claim.take(own, trainer)
        rank_zero_warn(f"{why}: {type(self).__name__} writes into {shown(own)}")
        return own

    def _sharing(self, trainer: pl.Trainer) -> list[PlacedCallback]:
        """Other callbacks of the trainer that write into the same folder."""
        others: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # declared nowhere by Lightning
        return [
            other
            for other in others
            if isinstance(other, PlacedCallback)
            and other is not self
            and self.files == other.files == "shared"
            and other._asked == self._asked
        ]
