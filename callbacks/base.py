"""The life that all landscape callbacks share; a callback adds only what is its own."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.utilities import rank_zero_warn
from rich.console import Console, RenderableType

from lightning_landscape.attach.folders import require_writable, resolve_folder
from lightning_landscape.attach.options import check_choice
from lightning_landscape.attach.ranks import on_rank_zero
from lightning_landscape.attach.strategies import require_replicated_weights
from lightning_landscape.callbacks.placed import PlacedCallback
from lightning_landscape.connection import Connection
from lightning_landscape.either_lightning import MisconfigurationException
from lightning_landscape.report.loggers import report
from lightning_landscape.report.progress import search_progress
from lightning_landscape.storage.snapshots import checked_name
from lightning_landscape.surface.work import Progress

T = TypeVar("T")
OnError = Literal["warn", "raise"]


class LandscapeCallback(PlacedCallback):
    """Name, folder, resume, rank zero, errors and loggers of a callback that examines a run and leaves it as it is.

    In the life of a fit, in this order: :meth:`refuse` in ``setup``; as training starts :meth:`forget`,
    :meth:`restore` where the run goes on and :meth:`follow` on every rank, :meth:`define` and :meth:`open` on rank
    zero, :meth:`lose` on every rank where files are gone; :meth:`state` for every checkpoint; :meth:`release` at the
    end, also after an error. ``fast_dev_run`` is a rehearsal: what would be refused is refused, nothing is written, and
    ``active`` stays false.

    Args:
        dirpath: folder of what it writes; ``None``: ``place``, in the run's folder.
        name: sets apart several callbacks of one class in one trainer.
        on_error: ``"warn"``: what fails becomes a warning; ``"raise"``: it ends the run.

    Attributes:
        place: the folder by default, and what leads the names of the logged numbers.
        metrics: names of the logged numbers, which are fields of a row.
        active: whether a fit, and no rehearsal, is running or has run.

    Raises:
        ValueError: for arguments out of range.
        MisconfigurationException: in ``setup``, for strategies that shard weights, and names or folders that two
            callbacks share; as training starts, for a folder that cannot be written.
    """

    place: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = ()
    says: bool = True  # whether it prints its summary when the fit is over

    def __init__(self, dirpath: str | os.PathLike[str] | None, name: str | None, on_error: OnError) -> None:
        super().__init__(dirpath)
        check_choice("on_error", on_error, get_args(OnError))
        self.name = None if name is None else checked_name(name)
        self.on_error = on_error
        self.active = False
        self._prefix = self.place if name is None else f"{self.place}/{name}"
        self._restored: dict[str, Any] | None = None
        self._before: Path | None = None  # the folder of the fit before
        self._followed: weakref.ref[pl.LightningModule] | None = None  # the module of the latest fit
        self.forget()

    # What a callback adds

    def refuse(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuses runs that it cannot examine, before anything is spent."""

    def forget(self) -> None:
        """Begins anew: nothing seen, nothing found."""

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from :meth:`state`."""

    def follow(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Makes ready on every rank what follows training step by step; ``state`` as in :meth:`define`."""

    def define(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Makes on rank zero what will be measured; ``state`` is that of a run that goes on, else ``None``."""

    def lose(self, gone: Any) -> None:
        """Goes on, on every rank, without what :meth:`open` did not find; under ``on_error="warn"``."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep; plain data, small."""
        return {}

    def release(self) -> None:
        """Frees copies of the module; what a checkpoint saved after the fit needs stays."""

    # The life of a fit

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuses what could not work, before anything is spent, and finds the folder."""
        if stage != "fit":
            return
        require_replicated_weights(trainer, type(self).__name__)
        self.refuse(trainer, pl_module)
        if self.files != "none":
            default = self.place if self.files == "shared" else self._prefix
            self._before = self.folder
            self.folder = self._asked = resolve_folder(trainer, self.dirpath, default)
        self._require_own_place(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Makes ready, from the start or from where a run was interrupted."""
        assert self.folder is not None  # set in setup
        # A second fit of the same trainer and module goes on where the first ended; another module begins.
        same = self._followed is not None and self._followed() is pl_module
        state = self._restored
        if state is None and same and trainer.global_step > 0 and self.active:
            state = self.state_dict() | {"folder": str(self._before)}
        rehearsal = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        self._followed = weakref.ref(pl_module)
        self._restored = None
        self.active = False
        self.forget()
        if not rehearsal:
            self.folder = on_rank_zero(trainer, lambda: self.origin(state), f"the folder of {type(self).__name__}")
            if state is not None:
                self.restore(state)
            self.follow(trainer, pl_module, state)

        def prepare() -> tuple[Path | None, Any]:
            assert self._asked is not None
            require_writable(self._asked)
            self.define(trainer, pl_module, state)
            gone = None if rehearsal else self.enter(trainer, pl_module, state)
            return self.folder, gone

        self.folder, gone = on_rank_zero(trainer, prepare, f"the start of {type(self).__name__}")
        if rehearsal:
            self.release()
        elif gone:
            self.lose(gone)
        self.active = not rehearsal

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Frees the copies of the module, and lets go of the folder; after an error Lightning calls no teardown."""
        # What was refused has changed nothing: a folder of a run that ended stays one.
        self.leave(ended=not self.active and self._claim is not None and not self._claim.interrupted)
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Frees the copies of the module; the rest goes into a checkpoint saved after the fit."""
        self.release()
        if stage == "fit":
            self.leave(ended=True)
        # A validation loads the states of callbacks too, which is no resume.
        self._restored = None

    def state_dict(self) -> dict[str, Any]:
        """The folder, and what the callback itself has to keep; files stay where they are."""
        return {"folder": str(self.folder), **self.state()} if self.active else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until training starts."""
        self._restored = state_dict or None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says what was found."""
        if self.active and self.says and trainer.is_global_zero and (found := self.summary()) is not None:
            Console().print(found)

    def summary(self) -> RenderableType | None:
        """What was found and where the files are, for printing with rich; ``None`` for nothing to say."""
        return None

    # What a callback uses

    def attempt(self, compute: Callable[[], T], otherwise: Callable[[Exception], T]) -> T:
        """The result of ``compute``, or of ``otherwise`` with the error, which ``on_error="raise"`` lets through."""
        try:
            return compute()
        except Exception as error:  # whatever goes wrong beside a run, it is not the training's fault
            if self.on_error == "raise":
                raise
            return otherwise(error)

    def warning(self, what: str, result: T) -> Callable[[Exception], T]:
        """For :meth:`attempt`: warns that ``what`` came of the error, and gives ``result``."""

        def warn(error: Exception) -> T:
            rank_zero_warn(f"{what}: {type(error).__name__}: {error}")
            return result

        return warn

    def scalars(self, row: Mapping[str, Any]) -> dict[str, float]:
        """The logged numbers of a row under their full names; NaN where nothing was measured."""
        return {f"{self._prefix}/{key}": math.nan if row[key] is None else float(row[key]) for key in self.metrics}

    def publish(
        self,
        trainer: pl.Trainer,
        rows: Sequence[Mapping[str, Any]],
        number: int,
        step: int,
        figures: Mapping[str, Figure],
        connection: Connection | None = None,
    ) -> None:
        """Reports the last of ``rows``, the ``number``-th, to every logger; on rank zero."""
        for logger in trainer.loggers:
            report(
                logger,
                prefix=self._prefix,
                scalars={f"{self._prefix}/check": number, **self.scalars(rows[-1])},
                rows=rows,
                connection=connection,
                figures=figures,
                step=step,
            )

    def expose(self, trainer: pl.Trainer, scalars: Mapping[str, float]) -> None:
        """Puts numbers among the trainer's metrics at moments when Lightning's own ``log`` is closed."""
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in scalars.items()})

    @contextmanager
    def progress(self, trainer: pl.Trainer, title: str) -> Iterator[Progress | None]:
        """A bar that goes when the block ends; ``None`` on other ranks, and where the trainer's own is switched off."""
        bar = trainer.progress_bar_callback
        if bar is None or not getattr(bar, "is_enabled", True) or not trainer.is_global_zero:
            yield None
            return
        with search_progress(title) as progress:
            yield progress

    def _require_own_place(self, trainer: pl.Trainer) -> None:
        kind = type(self).__name__
        for other in trainer.callbacks:  # type: ignore[attr-defined]  # declared nowhere by Lightning
            if other is self or not isinstance(other, LandscapeCallback) or self.files == other.files == "shared":
                continue
            if "shared" not in (self.files, other.files):
                if type(other) is type(self) and other.name == self.name:
                    raise MisconfigurationException(
                        f"two {kind} callbacks are named {self.name!r} and would log under one name: give each its own "
                        "name="
                    )
                if other._prefix == self._prefix:
                    raise MisconfigurationException(
                        f"{kind} and {type(other).__name__} would both log under {self._prefix}: give one another name="
                    )
            mine, theirs = self._places(), other._places()
            if mine & theirs:
                whose = f"two {kind} callbacks" if type(other) is type(self) else f"{kind} and {type(other).__name__}"
                raise MisconfigurationException(
                    f"{whose} would write into {min(mine & theirs)}: give each its own dirpath="
                )

    def _places(self) -> set[Path]:
        """The folders that it writes into, links followed."""
        if self.folder is None:
            return set()
        folder = self.folder.resolve()
        return {folder / inner for inner in ("", *self.inner)}
