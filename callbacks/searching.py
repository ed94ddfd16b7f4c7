"""What the callbacks that search paths at the end of epochs have in common."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from lightning_landscape.attach.options import (
    check_batches,
    check_choice,
    check_count,
    check_level,
    check_names,
    check_seed,
    check_share,
)
from lightning_landscape.attach.plan import Plan
from lightning_landscape.attach.probe import TrainingData, UnreadableTwice, run_surface
from lightning_landscape.attach.ranks import on_rank_zero
from lightning_landscape.attach.recorded import RecordedData
from lightning_landscape.callbacks.account import Account
from lightning_landscape.callbacks.base import LandscapeCallback, OnError
from lightning_landscape.either_lightning import MisconfigurationException
from lightning_landscape.finders import PathFinder, default_finder
from lightning_landscape.surface import BatchNormMode, LossFunction, LossSurface, NoiseMode
from lightning_landscape.surface.random_states import isolated_rng

DataSource = Literal["loader", "recorded", "given"]


class SearchingCallback(LandscapeCallback):
    """Counts epochs and batches of training, and has the loss surface of the run and a finder at hand.

    E is the mean over a few batches: those that are given, or batches drawn from a private reader of the run's
    loader, or, where a second reader would disturb the data (a stream, several loaders), copies of the first that pass
    in training. Searches train on the rest: on passes of the reader, or on a random sample of what has passed.

    Args:
        every_n_epochs: :meth:`examine` is called at the end of every n-th epoch; ``None`` is 1, or never where
            ``every_n_steps`` is given.
        every_n_steps: it is called at every n-th optimiser step (``trainer.global_step``) instead.
        finder: how a path is searched; ``None`` is :class:`~lightning_landscape.finders.CurveThenBeads`.
        level: the level u; ``None`` derives it from the losses and ``margin``.
        margin: how far above the largest loss that level lies, as a share of it.
        overhead: the share of training's work, one step a batch, that all its work may come to; ``None``: no limit.
        num_batches: training batches that define E, drawn once without replacement.
        batches: the batches themselves.
        memory: MiB of the CPU's memory for copies of batches, where they have to be recorded.
        loss_fn: ``loss_fn(module, batch)`` returns the mean loss; ``None``: the module's ``training_step``.
        batch_norm: where batch norm has its statistics from, see :class:`~lightning_landscape.surface.LossSurface`.
        vectorize: how stacks of points are evaluated; ``None``: by a rule, equal in equal runs.
        noise: what is done about a loss that draws random numbers.
        buffers: names of buffers that all models share.
        seed: of the probe set and the search.
        dirpath: folder of what it writes.
        name: sets apart several callbacks of one class in one trainer.
        on_error: whether a failure is a warning or ends the run.

    Raises:
        ValueError: for arguments out of range.
    """

    examines_end: ClassVar[bool] = False  # whether it does so at the end of training, too

    _epochs: int  # ended so far
    _account: Account  # of all work
    _examined: int  # the step of the latest examination
    _data: DataSource  # where batches come from; on every rank
    _recorded: RecordedData | None  # on rank zero, as is the next
    _surface: LossSurface | None  # ``None`` until recorded batches are needed
    _vectorized: dict[str, bool]  # how stacks of points were evaluated

    def __init__(
        self,
        *,
        every_n_epochs: int | None,
        every_n_steps: int | None,
        finder: PathFinder | None,
        level: float | None,
        margin: float,
        overhead: float | None,
        num_batches: int,
        batches: Sequence[Any] | None,
        memory: float,
        loss_fn: LossFunction | None,
        batch_norm: BatchNormMode,
        vectorize: bool | None,
        noise: NoiseMode,
        buffers: Sequence[str],
        seed: int,
        dirpath: str | os.PathLike[str] | None,
        name: str | None,
        on_error: OnError,
    ) -> None:
        if every_n_epochs is not None and every_n_steps is not None:
            raise ValueError(
                f"give every_n_epochs or every_n_steps, got every_n_epochs={every_n_epochs!r} and "
                f"every_n_steps={every_n_steps!r}"
            )
        if every_n_steps is not None:
            check_count("every_n_steps", every_n_steps)
        elif every_n_epochs is None:
            every_n_epochs = 1
        if every_n_epochs is not None:
            check_count("every_n_epochs", every_n_epochs)
        check_count("num_batches", num_batches)
        if finder is not None and not isinstance(finder, PathFinder):
            raise ValueError(f"finder must be a PathFinder such as CurveThenBeads(), got {finder!r}")
        check_batches(batches)
        check_choice("batch_norm", batch_norm, get_args(BatchNormMode))
        check_choice("noise", noise, get_args(NoiseMode))
        check_names("buffers", buffers)
        check_share("margin", margin, optional=False)
        check_share("overhead", overhead)
        check_share("memory", memory, optional=False)
        check_level(level)
        check_seed(seed)
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.finder = finder if finder is not None else default_finder()
        self.level = level
        self.margin = margin
        self.overhead = overhead
        self.num_batches = num_batches
        self.batches = batches
        self.memory = memory
        self.loss_fn = loss_fn
        self.batch_norm = batch_norm
        self.vectorize = vectorize
        self.noise = noise
        self.buffers = buffers
        self.seed = seed
        super().__init__(dirpath, name, on_error)

    @abstractmethod
    def examine(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """What is due at the end of an epoch or of a step, on every rank."""

    @abstractmethod
    def lacking(self, trainer: pl.Trainer) -> int:
        """How many examinations have to come, for anything to be compared in this run."""

    def accept(self, pl_module: pl.LightningModule, surface: LossSurface) -> None:
        """Refuses on rank zero what does not fit the surface, before the first step."""

    def refuse(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuses modules whose training is no descent of one loss."""
        if self.loss_fn is None and not pl_module.automatic_optimization:
            raise MisconfigurationException(
                f"{type(pl_module).__name__} optimises manually, so that its training_step is not one loss: pass "
                f"{type(self).__name__}(loss_fn=lambda module, batch: <scalar mean loss>)"
            )

    @property
    def rhythm(self) -> dict[str, int | None]:
        """``every_n_epochs`` or ``every_n_steps``, whichever it is."""
        if self.every_n_steps is not None:
            return {"every_n_steps": self.every_n_steps}
        return {"every_n_epochs": self.every_n_epochs}

    def forget(self) -> None:
        """No epoch has ended, no batch was seen."""
        self._epochs = self._examined = 0
        self._account = Account(self.overhead)
        self._data = "loader"
        self._tried = False
        self._recorded = None
        self._surface = None
        self._vectorized = {}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on counting."""
        self._epochs = state["epochs"]
        self._account.restore(state)
        self._examined = state.get("examined", 0)  # not there in checkpoints of 0.1
        self._vectorized = dict(state["vectorized"])

    def follow(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Counts epochs and steps from the present ones where the run did not have this callback before."""
        if state is None:
            self._epochs, self._examined = trainer.current_epoch, trainer.global_step

    def define(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Draws the probe set and checks that the loss is well defined; recorded batches come with the first step."""
        with isolated_rng(self.seed):
            if self.batches is not None:
                self._data = "given"
            try:
                training = TrainingData(trainer) if self.batches is None else None
            except UnreadableTwice:
                self._data = "recorded"
                self._recorded = RecordedData(self.num_batches, self.memory, self.seed)
                if state is not None and state.get("recorded") is not None:
                    assert self.folder is not None
                    self._recorded.load_state_dict(self.folder, state["recorded"])
                return
            batches = self.batches
            if batches is None:
                assert training is not None
                batches = training.take(self.num_batches)
            self._surface = self._defined(pl_module, batches, training)
        self.accept(pl_module, self._surface)

    def state(self) -> dict[str, Any]:
        """Counters, and how stacks of points are evaluated; recorded batches go into a file."""
        recorded = None
        if self._recorded is not None and self.folder is not None:
            recorded = self._recorded.state_dict(self.folder)
        return self._account.state() | {
            "epochs": self._epochs,
            "examined": self._examined,
            "vectorized": self._surface.choice() if self._surface is not None else self._vectorized,
            "recorded": recorded,
        }

    def release(self) -> None:
        """Frees the surface's copy of the module, and the sample of the data."""
        self._surface = None
        if self._recorded is not None:
            self._recorded.thin()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Makes ready, and examines what an interrupted run has left open."""
        super().on_train_start(trainer, pl_module)
        if not self.active:
            return
        self._data = on_rank_zero(trainer, lambda: self._data)
        self._say_if_nothing_comes(trainer, pl_module)
        # Lightning does not end an epoch again whose checkpoint was saved after its last batch.
        if self._epochs < trainer.current_epoch:
            self._end_epoch(trainer, pl_module, trainer.current_epoch - 1)
        self._end_step(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Records the batch, if nobody may read it again; the first also tells whether the loss is well defined."""
        if not self.active or self._data != "recorded":
            return
        if not self._tried:
            self._tried = True
            on_rank_zero(trainer, lambda: self._try(pl_module, batch))
        elif self._recorded is not None:
            recorded = self._recorded
            self.attempt(lambda: recorded.keep(batch), self.warning("a batch could not be recorded", None))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the work of training, and examines the run when the step is reached."""
        self._account.batches += 1
        if self.active:
            self._end_step(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Examines the run when it is time."""
        if self.active:
            self._end_epoch(trainer, pl_module, trainer.current_epoch)

    def present_surface(self, pl_module: pl.LightningModule) -> LossSurface:
        """The loss surface over the module as it is now, on rank zero."""
        if self._surface is not None:
            self._surface = self._surface.with_module(pl_module)
            return self._surface
        recorded = self._recorded
        assert recorded is not None
        if not recorded.probe:
            raise ValueError("no batch has passed yet on which E could be defined")
        recorded.settle()
        if len(recorded.probe) < self.num_batches:
            rank_zero_warn(
                f"E is the mean over {len(recorded.probe)} recorded batches, not num_batches={self.num_batches}: no "
                f"more had passed before the first comparison, or fit into memory={self.memory} MiB"
            )
        with isolated_rng(self.seed):
            self._surface = self._defined(pl_module, recorded.probe, recorded)
        return self._surface

    @property
    def present_noise(self) -> str | None:
        """``"frozen"`` where the loss draws random numbers, ``"none"`` where not, ``None`` before that is known."""
        return self._surface.noise if self._surface is not None else None

    def _defined(self, pl_module: pl.LightningModule, batches: Sequence[Any], training: Any) -> LossSurface:
        surface = self._over(pl_module, batches, training)
        surface.adopt(self._vectorized)  # a resumed run rounds as it did
        surface.choice()
        self._account.prepare(surface)
        return surface

    def _over(self, pl_module: pl.LightningModule, batches: Sequence[Any], training: Any) -> LossSurface:
        return run_surface(
            pl_module,
            batches,
            training,
            self.loss_fn,
            batch_norm=self.batch_norm,
            vectorize=self.vectorize,
            noise=self.noise,
            seed=self.seed,
            buffers=self.buffers,
        )

    def _try(self, pl_module: pl.LightningModule, batch: Any) -> None:
        """Records the first batch and computes its loss, so that what cannot work is refused before a step is taken."""
        assert self._recorded is not None
        try:
            self._recorded.keep(batch)
        except Exception as error:  # whatever a user's batch raises
            raise MisconfigurationException(
                f"the data cannot be read twice, and a batch cannot be copied ({type(error).__name__}: {error}): pass "
                "batches=[...], a list of batches as your training_step takes them"
            ) from error
        with isolated_rng(self.seed):
            surface = self._over(pl_module, self._recorded.probe[:1], None)
        self.accept(pl_module, surface)

    def _say_if_nothing_comes(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        plan, needed = Plan.of(trainer, pl_module), self.lacking(trainer)
        if self.every_n_steps is not None:
            shortage = plan.steps_short(self.every_n_steps, trainer.global_step, needed, self.examines_end)
        else:
            assert self.every_n_epochs is not None
            shortage = plan.epochs_short(self.every_n_epochs, self._epochs, needed, self.examines_end)
        if shortage is not None:
            rank_zero_warn(f"{type(self).__name__} will compare nothing in this run: {shortage}")

    def _end_epoch(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        self._epochs = epoch + 1
        if self.every_n_epochs is not None and self._epochs % self.every_n_epochs == 0:
            self._examine(trainer, pl_module, epoch)

    def _end_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Once a step, also where several batches make one; a batch of manual optimisation may make several.
        every = self.every_n_steps
        if every is not None and trainer.global_step // every > self._examined // every:
            self._examine(trainer, pl_module, trainer.current_epoch)

    def _examine(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        self._examined = trainer.global_step
        self.examine(trainer, pl_module, epoch)
