"""Instability analysis: from which step on does a run no longer depend on the order of its data?"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lightning_landscape.attach.child import Portion, Schedule, train_child
from lightning_landscape.attach.copies import require_no_closure, require_steady_groups
from lightning_landscape.attach.options import check_batches, check_choice, check_count, check_names, check_seed
from lightning_landscape.attach.probe import TrainingData, UnreadableTwice, run_surface
from lightning_landscape.attach.ranks import on_rank_zero
from lightning_landscape.attach.shared import shared_weights
from lightning_landscape.callbacks.base import OnError
from lightning_landscape.callbacks.stability import StabilityCallback, between
from lightning_landscape.either_lightning import MisconfigurationException
from lightning_landscape.report.fork_figure import fork_figure
from lightning_landscape.report.stability import Below, checked_below, stability_conclusion
from lightning_landscape.report.style import save_figure
from lightning_landscape.surface import LossFunction, LossSurface, NoiseMode
from lightning_landscape.surface.classification_error import classification_error
from lightning_landscape.surface.random_states import isolated_rng


class ForkStability(StabilityCallback):
    """Forks a run at chosen steps and measures how far the order of the data drives two children apart.

    At step k the weights, buffers and optimiser are kept in a file. When training ends, two children go on from
    there, with other orders of the data (and other dropout and augmentation), for as many steps as the run had left,
    under the hyperparameters (learning rate, momentum) that the run had at each step. On the straight line between
    them ::

        barrier = max_t [ L(t) - (1 - t) L(0) - t L(1) ]

    is measured for the loss and for the error (linear mode connectivity, Frankle et al. 2020, arXiv 1912.05671,
    Sec. 2, which subtracts the mean of the two ends instead). Near 0 the run is stable: from step k on all orders end
    in one linearly connected valley. Logged at step k are ``landscape/fork/loss_barrier``, ``error_barrier``,
    ``linear_height``, ``child_loss``, ``child_error`` (means of the two) and ``seconds``; ``forks.jsonl`` and
    ``forks.png`` are in the folder. ``stable_step`` is the first fork from which error barriers stay low, if any.

    Training stays bit-identical: weights, logged metrics, data order and random states are those of the run
    without the callback. The children of a fork at step k of n cost 2 (n - k) training steps and, while they train,
    the memory of one more model and optimiser. Under DDP rank zero trains them, on as many batches a step as all
    ranks together. A run that is killed while they train goes on with the forks that are not in ``forks.jsonl`` when
    it is resumed from a checkpoint that leaves it a step to train: Lightning calls nobody for a finished run.

    Args:
        at_steps: optimiser steps (``trainer.global_step``) at which to fork; 0 is the start.
        num_steps: steps that a child trains at most; ``None``: to the end of the run.
        num_batches: training batches on which loss and error are measured, drawn once without replacement.
        batches: the batches themselves; ``num_batches`` is then unused. Held-out ones give the test error of the paper.
        loss_fn: ``loss_fn(module, batch)`` returns the mean loss; ``None``: the module's ``training_step``.
        error_fn: the same for the error; ``None``: the share of
            examples ``(inputs, labels)`` whose largest logit is not the label's.
        samples: points of the grid on the line that is refined around its peaks, as in
            :class:`~lightning_landscape.finders.LinearPath`.
        dirpath: folder of the results; default ``landscape/fork`` in the run's folder.
        name: sets apart several of these callbacks in one trainer.
        seed: of the measuring batches and the children's orders.
        on_error: ``"warn"``: a failing fork becomes a warning and a row with its message; ``"raise"``: it ends the run.
        noise: ``"frozen"``: a loss that draws random numbers draws the same at every point; ``"refuse"``: an error.
        buffers: names of buffers, with ``*``, that both children take from the run, such as pruning masks.
        stable_below: error barrier up to which a fork is stable, 2% as in the paper; ``"spread"``: twice the mean
            difference between the errors of two children.
        summary: print the table of all forks and the first stable step when the fit is over.

    Raises:
        ValueError: for arguments out of range.
        MisconfigurationException: when training starts, for strategies that shard weights, several or manual
            optimisers, data that the children could not read again (a stream, several loaders) and modules whose
            loss or error is not defined.

    Example:
        >>> callback = ForkStability(at_steps=[0, 100, 1000])
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, enable_checkpointing=False)
    """

    place: ClassVar[str] = "landscape/fork"
    metrics: ClassVar[tuple[str, ...]] = (
        *("loss_barrier", "error_barrier", "linear_height", "child_loss", "child_error", "seconds"),
    )

    _schedule: Schedule
    _pending: int  # batches since the last step
    _loss: LossSurface | None  # on rank zero, as is the next
    _error: LossSurface | None

    def __init__(
        self,
        at_steps: Sequence[int] = (0,),
        num_steps: int | None = None,
        num_batches: int = 8,
        batches: Sequence[Any] | None = None,
        loss_fn: LossFunction | None = None,
        error_fn: LossFunction | None = None,
        samples: int = 15,
        dirpath: str | os.PathLike[str] | None = None,
        name: str | None = None,
        seed: int = 0,
        on_error: OnError = "warn",
        noise: NoiseMode = "frozen",
        buffers: Sequence[str] = (),
        stable_below: Below = 0.02,
        summary: bool = True,
    ) -> None:
        steps = list(at_steps) if isinstance(at_steps, Sequence) and not isinstance(at_steps, str) else []
        if not steps or any(isinstance(step, bool) or not isinstance(step, int) or step < 0 for step in steps):
            raise ValueError(f"at_steps must be steps from 0, at least one, such as [0, 100], got {at_steps!r}")
        if num_steps is not None:
            check_count("num_steps", num_steps)
        check_count("num_batches", num_batches)
        check_count("samples", samples)
        check_batches(batches)
        check_seed(seed)
        check_choice("noise", noise, get_args(NoiseMode))
        check_names("buffers", buffers)
        self.stable_below = checked_below(stable_below)
        self.says = summary
        self.at_steps = sorted(set(steps))
        self.num_steps = num_steps
        self.num_batches = num_batches
        self.batches = batches
        self.loss_fn = loss_fn
        self.error_fn = error_fn or classification_error
        self.samples = samples
        self.seed = seed
        self.noise = noise
        self.buffers = buffers
        super().__init__(dirpath, name, on_error)

    @property
    def state_key(self) -> str:
        """Names this callback's state in a checkpoint."""
        return self._generate_state_key(at_steps=self.at_steps, num_steps=self.num_steps, name=self.name)

    # Life of a fit

    def refuse(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuses what no child can be trained by."""
        if not pl_module.automatic_optimization:
            raise MisconfigurationException("ForkStability cannot train children by manual optimisation: leave it out")
        if trainer.precision == "16-mixed":
            raise MisconfigurationException("ForkStability has no loss scaling for 16-mixed: use 'bf16-mixed' or 32")
        require_steady_groups(trainer, "ForkStability")

    def forget(self) -> None:
        """No fork."""
        super().forget()
        self._schedule = Schedule()
        self._pending = 0
        self.rows: list[dict[str, Any]] = []
        self._loss = self._error = None

    def restore(self, state: dict[str, Any]) -> None:
        """The forks there were."""
        super().restore(state)
        self._schedule.load_state_dict(state["schedule"])

    def define(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Draws the measuring batches, and checks loss and error on them."""
        self._shared = shared_weights(trainer)
        if len(trainer.optimizers) != 1:
            raise MisconfigurationException(
                f"ForkStability trains children with one optimiser, and the module has {len(trainer.optimizers)}"
            )
        with isolated_rng(self.seed):
            require_no_closure(trainer.optimizers[0], "a child of ForkStability")
        try:
            training = TrainingData(trainer)
        except UnreadableTwice as failure:
            raise MisconfigurationException(
                f"ForkStability trains children on the data of the run in another order, and has to read them again: "
                f"{failure}; train from one DataLoader over a map-style data set, or leave ForkStability out"
            ) from failure
        options: dict[str, Any] = {"vectorize": False, "noise": self.noise, "seed": self.seed, "buffers": self.buffers}
        with isolated_rng(self.seed):
            batches = training.take(self.num_batches) if self.batches is None else self.batches
            self._loss = run_surface(pl_module, batches, None, self.loss_fn, **options)
        try:
            with isolated_rng(self.seed):
                self._error = run_surface(pl_module, list(self._loss.batches), None, self.error_fn, **options)
        except Exception as failure:  # whatever an error_fn raises
            raise MisconfigurationException(f"ForkStability cannot measure the error: {failure}") from failure

    def state(self) -> dict[str, Any]:
        """The forks, and the changes of the hyperparameters."""
        return super().state() | {"schedule": self._schedule.state_dict()}

    def release(self) -> None:
        """Frees the copies of the module."""
        self._loss = self._error = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Makes ready, and forks if this is the step."""
        super().on_train_start(trainer, pl_module)
        self._fork_if_due(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batches of a step for the children."""
        self._pending += 1

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Notes the hyperparameters and batches of the moment for the children."""
        if self.active and self._forks:
            portion = Portion(self._pending, trainer.accumulate_grad_batches, trainer.current_epoch)
            self._schedule.note(trainer.global_step, optimizer, portion)
        self._pending = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Forks when the step is reached."""
        self._fork_if_due(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Trains and measures the children of all forks."""
        if not self.active:
            return
        missed = [step for step in self.at_steps if step not in self._forks]
        if missed:
            rank_zero_warn(f"ForkStability took no fork at steps {missed}; training ended at {trainer.global_step}")
        due = [step for step in self.at_steps if step in self._forks]
        self.announce(trainer, due)
        self.rows = on_rank_zero(trainer, lambda: self._examine(trainer, pl_module, due), "ForkStability")
        self.close(trainer)

    # A fork, on rank zero

    def _fork_if_due(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = trainer.global_step
        if not self.active or step not in self.at_steps or step in self._forks:
            return
        warning = self.warning(f"ForkStability could not fork at step {step}", None)

        def keep() -> str | None:
            return self.attempt(lambda: self._keep(trainer, pl_module, step), warning)

        content = on_rank_zero(trainer, keep, f"the fork at step {step}")
        if content is not None:
            self._forks[step] = content

    def _keep(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> str:
        return self.keep(trainer, pl_module, step)

    def _examine(self, trainer: pl.Trainer, pl_module: pl.LightningModule, due: Sequence[int]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for step in due:
            last = trainer.global_step
            if self.num_steps is not None:
                last = min(last, step + self.num_steps)
            rows.append(self._outcome(trainer, pl_module, step, last))
            # A full disk or a logger's service must not end training either.
            self.attempt(
                lambda: self._publish(trainer, rows),
                self.warning(f"the fork at step {step} could not be published", None),
            )
        return rows

    def _outcome(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, last: int) -> dict[str, Any]:
        """The row of a fork: that of the record, or one that is measured now."""
        record = self._record
        assert record is not None

        def found() -> dict[str, Any]:
            key = self._key(step, last)
            row = record.get(key)
            if row is None:
                row = self._measure(trainer, pl_module, step, last)
                record.put(key, row)
            return row

        def failed(error: Exception) -> dict[str, Any]:
            message = f"{type(error).__name__}: {error}"
            return {"step": step, "reason": "error", "message": message, **dict.fromkeys(self.metrics)}

        return self.attempt(found, failed)

    def _key(self, step: int, last: int) -> str:
        """What the outcome of a fork depends on: a row of this key is not measured again."""
        assert self._store is not None
        start = self._store.weights(step)
        measured = [f"{surface.loss(surface.point(start)):.4g}" for surface in (self._loss, self._error) if surface]
        parts = [step, last, self._forks[step], self.seed, self.samples, measured, self._schedule.state_dict()]
        return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()

    def _measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, last: int) -> dict[str, Any]:
        assert self._loss is not None
        assert self._error is not None
        began = time.perf_counter()
        data = "loader" if self.batches is None else "given"
        row: dict[str, Any] = {"step": step, "child_steps": last - step, "data": data, "reason": None, "message": None}
        children = [self._child(trainer, pl_module, step, last, number) for number in (1, 2)]
        surfaces = {"loss": self._loss, "error": self._error}
        row |= between(pl_module, surfaces, children, self.samples, self.seed)
        row["seconds"] = time.perf_counter() - began
        return row

    def _child(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, last: int, number: int
    ) -> Mapping[str, Tensor]:
        assert self._store is not None
        moment = self._store.moment(step, self._forks[step], pl_module.device)
        # Scattered, so that no order is that of the run or of another fork.
        seed = (self.seed + 2654435761 * (2 * step + number)) % 2**32
        with isolated_rng(seed), self.progress(trainer, f"fork at step {step}, child {number} of 2") as tell:
            return train_child(trainer, pl_module, *moment, copy.copy(self._schedule), step, last, tell)

    def _publish(self, trainer: pl.Trainer, rows: list[dict[str, Any]]) -> None:
        assert self.folder is not None
        figure = fork_figure(rows, "two orders of the data from one fork")
        save_figure(figure, self.folder / "forks.png")
        said = {"conclusion": stability_conclusion(rows, self.stable_below)}
        self.publish(trainer, [*rows[:-1], rows[-1] | said], len(rows), rows[-1]["step"], {"forks": figure})
