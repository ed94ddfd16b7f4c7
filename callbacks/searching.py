"""What the callbacks that search paths at the end of epochs have in common."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, get_args

import pytorch_lightning as pl

from lightning_landscape.attach.options import (
    check_batches,
    check_choice,
    check_count,
    check_level,
    check_seed,
    check_share,
)
from lightning_landscape.attach.probe import probe_surface
from lightning_landscape.attach.rng import isolated_rng
from lightning_landscape.callbacks.base import LandscapeCallback, OnError
from lightning_landscape.either_lightning import MisconfigurationException
from lightning_landscape.finders import Budget, DynamicStringSampling, PathFinder
from lightning_landscape.surface import BatchNormMode, LossFunction, LossSurface


class SearchingCallback(LandscapeCallback):
    """Counts epochs and batches of training, and has the loss surface of the run and a finder at hand.

    Args:
        every_n_epochs: :meth:`examine` is called at the end of every n-th epoch.
        finder: how a path is searched; ``None`` is :class:`~lightning_landscape.finders.DynamicStringSampling`.
        level: the level u; ``None`` derives it from the losses and ``margin``.
        margin: how far above the largest loss that level lies, as a share of it.
        overhead: the share of the training steps that a search may spend; ``None``: no limit.
        num_batches: training batches that define E, drawn once without replacement.
        batches: the batches themselves, for data that cannot be read twice.
        loss_fn: ``loss_fn(module, batch)`` returns the mean loss; ``None``: the module's ``training_step``.
        batch_norm: where batch norm has its statistics from, see :class:`~lightning_landscape.surface.LossSurface`.
        seed: of the probe set and the search.
        dirpath: folder of what it writes.
        name: sets apart several callbacks of one class in one trainer.
        on_error: whether a failure is a warning or ends the run.

    Raises:
        ValueError: for arguments out of range.
    """

    _epochs: int  # ended so far
    _batches_seen: int  # trained on, since when a subclass decides
    _surface: LossSurface | None  # on rank zero

    def __init__(
        self,
        *,
        every_n_epochs: int,
        finder: PathFinder | None,
        level: float | None,
        margin: float,
        overhead: float | None,
        num_batches: int,
        batches: Sequence[Any] | None,
        loss_fn: LossFunction | None,
        batch_norm: BatchNormMode,
        seed: int,
        dirpath: str | os.PathLike[str] | None,
        name: str | None,
        on_error: OnError,
    ) -> None:
        check_count("every_n_epochs", every_n_epochs)
        check_count("num_batches", num_batches)
        if finder is not None and not isinstance(finder, PathFinder):
            raise ValueError(f"finder must be a PathFinder such as DynamicStringSampling(), got {finder!r}")
        check_batches(batches)
        check_choice("batch_norm", batch_norm, get_args(BatchNormMode))
        check_share("margin", margin, optional=False)
        check_share("overhead", overhead)
        check_level(level)
        check_seed(seed)
        self.every_n_epochs = every_n_epochs
        self.finder = finder if finder is not None else DynamicStringSampling()
        self.level = level
        self.margin = margin
        self.overhead = overhead
        self.num_batches = num_batches
        self.batches = batches
        self.loss_fn = loss_fn
        self.batch_norm = batch_norm
        self.seed = seed
        super().__init__(dirpath, name, on_error)

    @abstractmethod
    def examine(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """What is due at the end of an epoch, on every rank."""

    def refuse(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuses modules whose training is no descent of one loss."""
        if self.loss_fn is None and not pl_module.automatic_optimization:
            raise MisconfigurationException(
                f"{type(pl_module).__name__} optimises manually, so that its training_step is not one loss: pass "
                f"{type(self).__name__}(loss_fn=lambda module, batch: <scalar mean loss>)"
            )

    def forget(self) -> None:
        """No epoch has ended, no batch was seen."""
        self._epochs = self._batches_seen = 0
        self._surface = None

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on counting."""
        self._epochs, self._batches_seen = state["epochs"], state["batches"]

    def follow(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Counts epochs from the present one where the run did not have this callback before."""
        if state is None:
            self._epochs = trainer.current_epoch

    def define(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Draws the probe set and checks that the loss is well defined."""
        with isolated_rng(self.seed):
            surface = probe_surface(trainer, pl_module, self.batches, self.num_batches, self.loss_fn, self.batch_norm)
            # Chosen by the clock: a resumed run goes on with the choice it had.
            surface.adopt(state["vectorized"] if state else {})
            surface.choice()
        self._surface = surface

    def state(self) -> dict[str, Any]:
        """Counters, and how stacks of points are evaluated."""
        vectorized = self._surface.choice() if self._surface is not None else {}
        return {"epochs": self._epochs, "batches": self._batches_seen, "vectorized": vectorized}

    def release(self) -> None:
        """Frees the surface's copy of the module."""
        self._surface = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Makes ready, and ends the epoch that an interrupted run has left open."""
        super().on_train_start(trainer, pl_module)
        # Lightning does not end an epoch again whose checkpoint was saved after its last batch.
        if self.active and self._epochs < trainer.current_epoch:
            self._end_epoch(trainer, pl_module, trainer.current_epoch - 1)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the work of training."""
        self._batches_seen += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Examines the run when it is time."""
        if self.active:
            self._end_epoch(trainer, pl_module, trainer.current_epoch)

    def present_surface(self, pl_module: pl.LightningModule) -> LossSurface:
        """The loss surface over the module as it is now, on rank zero."""
        assert self._surface is not None
        self._surface = self._surface.with_module(pl_module)
        return self._surface

    def allowance(self, batches: float, max_seconds: float | None = None) -> Budget:
        """What a search may spend after so many batches of training."""
        return Budget(None if self.overhead is None else self.overhead * batches, max_seconds)

    def _end_epoch(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        self._epochs = epoch + 1
        if self._epochs % self.every_n_epochs == 0:
            self.examine(trainer, pl_module, epoch)
