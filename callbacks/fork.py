"""Instability analysis: from which step on does a run no longer depend on the order of its data?"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lightning_landscape.attach.copies import Schedule, train_child
from lightning_landscape.attach.folders import resolve_folder
from lightning_landscape.attach.probe import probe_surface
from lightning_landscape.attach.ranks import on_rank_zero
from lightning_landscape.attach.rng import isolated_rng
from lightning_landscape.attach.strategies import require_replicated_weights
from lightning_landscape.finders import LinearPath
from lightning_landscape.report.fork_figure import fork_figure
from lightning_landscape.report.loggers import report
from lightning_landscape.report.style import save_figure
from lightning_landscape.storage.atomic import replacing
from lightning_landscape.storage.rows import Record
from lightning_landscape.storage.snapshots import SnapshotStore, checked_name
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.objective import LossFunction

METRICS = ("loss_barrier", "error_barrier", "linear_height", "child_loss", "child_error", "seconds")


def classification_error(module: Any, batch: Any) -> Tensor:
    """Share of the examples of a batch ``(inputs, labels)`` whose largest logit is not the label's, in [0, 1].

    Logits have shape (N, C, ...) and labels, integers, (N, ...).

    Raises:
        ValueError: for a batch or an output of another kind, saying to pass ``error_fn``.
    """
    advice = "pass ForkStability(error_fn=lambda module, batch: <scalar mean error>)"
    if not isinstance(batch, list | tuple) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise ValueError(f"the error is counted on batches (inputs, labels), got {type(batch).__name__}: {advice}")
    inputs, labels = batch
    logits = module(inputs)
    if labels.is_floating_point() or not isinstance(logits, Tensor) or logits.ndim < 2:
        raise ValueError(f"the error needs logits (N, C, ...) and integer labels: {advice}")
    if logits.shape[:1] + logits.shape[2:] != labels.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} are not (N, C, ...) and (N, ...): {advice}"
        )
    wrong: Tensor = logits.argmax(1) != labels
    return wrong.double().mean()


class ForkStability(Callback):
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
    ``forks.png`` are in the folder.

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
        error_fn: the same for the error; ``None``: :func:`classification_error`.
        samples: points of the grid on the line that is refined around its peaks, as in
            :class:`~lightning_landscape.finders.LinearPath`.
        dirpath: folder of the results; default ``landscape/fork`` in the run's folder.
        name: sets apart several of these callbacks in one trainer.
        seed: of the measuring batches and the children's orders.
        on_error: ``"warn"``: a failing fork becomes a warning and a row with its message; ``"raise"``: it ends the run.

    Raises:
        ValueError: for arguments out of range.
        MisconfigurationException: when training starts, for strategies that shard weights, several or manual
            optimisers, data that cannot be read twice and modules whose loss or error is not defined.

    Example:
        >>> callback = ForkStability(at_steps=[0, 100, 1000])
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, enable_checkpointing=False)
    """

    _forks: dict[int, str]  # content hash of the kept state by step
    _schedule: Schedule
    _loss: LossSurface | None  # on rank zero, as are the next three
    _error: LossSurface | None
    _store: SnapshotStore | None
    _record: Record | None

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
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        steps = list(at_steps) if isinstance(at_steps, Sequence) and not isinstance(at_steps, str) else []
        if not steps or any(isinstance(step, bool) or not isinstance(step, int) or step < 0 for step in steps):
            raise ValueError(f"at_steps must be steps from 0, at least one, such as [0, 100], got {at_steps!r}")
        for argument, count in (("num_steps", num_steps or 1), ("num_batches", num_batches), ("samples", samples)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"{argument} must be an integer from 1, got {count!r}")
        if num_steps == 0:
            raise ValueError("num_steps must be an integer from 1, or None to train to the end, got 0")
        if batches is not None and not isinstance(batches, list | tuple):
            raise ValueError(f"batches must be a list of batches, got {type(batches).__name__}: pass list(...)")
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error must be 'warn' or 'raise', got {on_error!r}")
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed must lie in [0, 2**31), got {seed}")
        self.at_steps = sorted(set(steps))
        self.num_steps = num_steps
        self.num_batches = num_batches
        self.batches = batches
        self.loss_fn = loss_fn
        self.error_fn = error_fn or classification_error
        self.samples = samples
        self.dirpath = dirpath
        self.name = None if name is None else checked_name(name)
        self.seed = seed
        self.on_error = on_error
        self.folder: Path | None = None
        self.rows: list[dict[str, Any]] = []
        self._prefix = "landscape/fork" if name is None else f"landscape/fork/{name}"
        self._restored: dict[str, Any] | None = None
        self._forget()

    @property
    def state_key(self) -> str:
        """Names this callback's state in a checkpoint."""
        return self._generate_state_key(at_steps=self.at_steps, num_steps=self.num_steps, name=self.name)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuses what could not work, before anything is spent."""
        if stage != "fit":
            return
        require_replicated_weights(trainer, type(self).__name__)
        if not pl_module.automatic_optimization:
            raise MisconfigurationException("ForkStability cannot train children by manual optimisation: leave it out")
        if trainer.precision == "16-mixed":
            raise MisconfigurationException("ForkStability has no loss scaling for 16-mixed: use 'bf16-mixed' or 32")
        default = "landscape/fork" if self.name is None else f"landscape/fork/{self.name}"
        self.folder = resolve_folder(trainer, self.dirpath, default)
        others = [c for c in trainer.callbacks if isinstance(c, ForkStability)]  # type: ignore[attr-defined]
        if any(other is not self and (other.folder == self.folder or other.name == self.name) for other in others):
            raise MisconfigurationException(
                f"two ForkStability callbacks share the name {self.name!r} or the folder {self.folder}: give each its "
                "own name= and dirpath="
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the measuring batches, checks loss and error, and forks if this is the step."""
        assert self.folder is not None  # set in setup
        restored = self._restored or (self.state_dict() if trainer.global_step > 0 else None) or None
        if restored is not None and self.dirpath is None and os.path.isdir(restored["folder"]):
            # Loggers give a resumed run another version, and with it another default folder.
            self.folder = Path(restored["folder"])
        folder = self.folder
        self._restored = None
        self._forget()
        if len(trainer.optimizers) != 1:
            raise MisconfigurationException(
                f"ForkStability trains children with one optimiser, and the module has {len(trainer.optimizers)}"
            )
        if restored is not None:
            self._forks = {int(step): content for step, content in restored["forks"].items()}
            self._schedule.load_state_dict(restored["schedule"])

        def prepare() -> None:
            # Point by point: by the clock, a resumed run could choose otherwise, and its rows would differ in rounding.
            with isolated_rng(self.seed):
                loss = probe_surface(
                    trainer, pl_module, self.batches, self.num_batches, self.loss_fn, "recalibrate", vectorize=False
                )
            # The same batches for both.
            batches = loss.batches
            try:
                with isolated_rng(self.seed):
                    error = LossSurface(pl_module, batches, self.error_fn, vectorize=False)
            except Exception as failure:  # whatever an error_fn raises
                raise MisconfigurationException(f"ForkStability cannot measure the error: {failure}") from failure
            if trainer.fast_dev_run:  # type: ignore[attr-defined]  # a rehearsal writes nothing
                return
            self._loss, self._error = loss, error
            self._store = SnapshotStore(folder / "states")
            self._record = Record(folder / "forks.jsonl")

        on_rank_zero(trainer, prepare)
        self._active = not trainer.fast_dev_run  # type: ignore[attr-defined]
        self._fork_if_due(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Notes the hyperparameters of the moment for the children."""
        if self._active and self._forks:
            self._schedule.note(trainer.global_step, optimizer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Forks when the step is reached."""
        self._fork_if_due(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Trains and measures the children of all forks."""
        if not self._active:
            return
        missed = [step for step in self.at_steps if step not in self._forks]
        if missed:
            rank_zero_warn(f"ForkStability took no fork at steps {missed}; training ended at {trainer.global_step}")
        due = [step for step in self.at_steps if step in self._forks]
        rows = on_rank_zero(trainer, lambda: self._examine(trainer, pl_module, due))
        self.rows = rows
        for row in rows:
            if row["reason"] is not None:
                rank_zero_warn(f"the fork at step {row['step']} failed: {row['message']}")
            scalars = {key: math.nan if row[key] is None else float(row[key]) for key in METRICS}
            # For whoever reads the trainer's metrics; Lightning's own log() is closed once training ends.
            named = {f"{self._prefix}/step={row['step']}/{key}": value for key, value in scalars.items()}
            trainer.callback_metrics.update({key: torch.tensor(value) for key, value in named.items()})

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Frees the copies of the module; after an error Lightning calls no teardown."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Frees the copies of the module; the rest goes into a checkpoint saved after the fit."""
        self._loss = self._error = self._restored = None

    def state_dict(self) -> dict[str, Any]:
        """Hashes of the kept states, which stay in their files, and the changes of the hyperparameters."""
        if not self._active:
            return {}
        forks = {str(step): content for step, content in self._forks.items()}
        return {"forks": forks, "schedule": self._schedule.state_dict(), "folder": str(self.folder)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until training starts."""
        self._restored = state_dict or None

    def _fork_if_due(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = trainer.global_step
        if not self._active or step not in self.at_steps or step in self._forks:
            return

        def keep() -> str | None:
            try:
                return self._keep(trainer, pl_module, step)
            except Exception as error:  # a full disk must not end training
                if self.on_error == "raise":
                    raise
                rank_zero_warn(f"ForkStability could not fork at step {step}: {type(error).__name__}: {error}")
                return None

        content = on_rank_zero(trainer, keep)
        if content is not None:
            self._forks[step] = content

    def _keep(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> str:
        assert self._store is not None
        with replacing(self._optimizer_file(step)) as file:
            torch.save(trainer.optimizers[0].state_dict(), file)
        asleep = [name for name, part in pl_module.named_modules() if not part.training]
        snapshot = self._store.save(
            pl_module, step=step, epoch=trainer.current_epoch, name=f"step={step:06d}", metadata={"eval": asleep}
        )
        return snapshot.content_hash

    def _examine(self, trainer: pl.Trainer, pl_module: pl.LightningModule, due: Sequence[int]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for step in due:
            last = trainer.global_step
            if self.num_steps is not None:
                last = min(last, step + self.num_steps)
            rows.append(self._outcome(trainer, pl_module, step, last))
            try:
                self._publish(trainer, rows)
            except Exception as error:  # a full disk or a logger's service must not end training either
                if self.on_error == "raise":
                    raise
                rank_zero_warn(f"the fork at step {step} could not be published: {type(error).__name__}: {error}")
        return rows

    def _outcome(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, last: int) -> dict[str, Any]:
        """The row of a fork: that of the record, or one that is measured now."""
        assert self._record is not None
        try:
            key = self._key(step, last)
            row = self._record.get(key)
            if row is None:
                row = self._measure(trainer, pl_module, step, last)
                self._record.put(key, row)
        except Exception as error:  # whatever goes wrong in a child, it is not the training's fault
            if self.on_error == "raise":
                raise
            message = f"{type(error).__name__}: {error}"
            return {"step": step, "reason": "error", "message": message, **dict.fromkeys(METRICS)}
        return row

    def _key(self, step: int, last: int) -> str:
        """What the outcome of a fork depends on: a row of this key is not measured again."""
        assert self._store is not None
        start = self._store.load(f"step={step:06d}")
        measured = [f"{surface.loss(surface.point(start)):.4g}" for surface in (self._loss, self._error) if surface]
        parts = [step, last, self._forks[step], self.seed, self.samples, measured, self._schedule.state_dict()]
        return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()

    def _measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, last: int) -> dict[str, Any]:
        assert self._loss is not None
        assert self._error is not None
        began = time.perf_counter()
        row: dict[str, Any] = {"step": step, "child_steps": last - step, "reason": None, "message": None}
        children = [self._child(trainer, pl_module, step, last, number) for number in (1, 2)]
        for what, surface in (("loss", self._loss), ("error", self._error)):
            with isolated_rng(self.seed):
                surface = surface.with_module(pl_module)
                ends = [surface.point(child) for child in children]
                found = LinearPath(samples=self.samples).connect(surface, ends[0], ends[1]).to_dict()
            both = (found["loss_a"], found["loss_b"])
            row[f"{what}_barrier"] = found["barrier"]
            row[f"child_{what}"] = None if None in both else sum(both) / 2
            row[f"{what}_profile"] = found["profile"]
            if what == "loss":
                row["linear_height"], row["distance"] = found["height"], found["length"]
        row["seconds"] = time.perf_counter() - began
        return row

    def _child(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, last: int, number: int
    ) -> Mapping[str, Tensor]:
        assert self._store is not None
        snapshot = self._store.open(f"step={step:06d}")
        if snapshot.content_hash != self._forks[step]:
            raise ValueError(f"{snapshot.path} was replaced by another run: give each run its own dirpath")
        optimizer_state = torch.load(self._optimizer_file(step), map_location=pl_module.device, weights_only=True)
        # Scattered, so that no order is that of the run or of another fork.
        with isolated_rng((self.seed + 2654435761 * (2 * step + number)) % 2**32):
            return train_child(
                trainer,
                pl_module,
                snapshot.state_dict(),
                optimizer_state,
                frozenset(snapshot.metadata["eval"]),
                copy.copy(self._schedule),
                step,
                last,
            )

    def _optimizer_file(self, step: int) -> Path:
        assert self.folder is not None
        return self.folder / "states" / f"step={step:06d}-optimizer.pt"

    def _publish(self, trainer: pl.Trainer, rows: list[dict[str, Any]]) -> None:
        assert self.folder is not None
        row, number = rows[-1], len(rows)
        figure = fork_figure(rows, "two orders of the data from one fork")
        save_figure(figure, self.folder / "forks.png")
        scalars = {f"{self._prefix}/{key}": math.nan if row[key] is None else float(row[key]) for key in METRICS}
        for logger in trainer.loggers:
            report(
                logger,
                prefix=self._prefix,
                scalars={f"{self._prefix}/check": number, **scalars},
                rows=rows,
                connection=None,
                figures={"forks": figure},
                step=row["step"],
            )

    def _forget(self) -> None:
        self._forks = {}
        self._schedule = Schedule()
        self._active = False
        self.rows = []
        self._loss = self._error = None
        self._store = self._record = None
