"""Level-set connectivity of pairs of models, checked while one of them trains."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_warn
from rich.console import Group, RenderableType
from torch.optim import Optimizer

from lightning_landscape.attach.folders import resolve_folder
from lightning_landscape.attach.frozen import require_equal_frozen
from lightning_landscape.attach.probe import probe_surface
from lightning_landscape.attach.ranks import on_rank_zero
from lightning_landscape.attach.rng import isolated_rng
from lightning_landscape.attach.strategies import require_replicated_weights
from lightning_landscape.callbacks.pairings.base import First, Lagged, Pairing, Partner, Reference
from lightning_landscape.callbacks.pairings.twin import Reinitialize, Twin
from lightning_landscape.callbacks.progress import check_progress
from lightning_landscape.callbacks.publishing import METRICS, publish, scalars_of
from lightning_landscape.connection import Connection, Reason
from lightning_landscape.finders import Budget, DynamicStringSampling, PathFinder
from lightning_landscape.report.tables import check_table
from lightning_landscape.storage.check_log import CheckLog
from lightning_landscape.storage.snapshots import SnapshotStore, checked_name
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.batch_norm import BatchNormMode
from lightning_landscape.surface.objective import LossFunction

_PAIRS = ("lagged", "first", "reference", "twin")


class LevelSetConnectivity(Callback):
    """Checks during training whether pairs of models lie in one connected level set of the loss.

    At the end of every n-th epoch the present weights and their partner are joined by a path on which the
    training loss stays below a level, if the finder finds one. The result is logged as
    ``landscape/connected``, ``height``, ``barrier``, ``linear_barrier``, ``normalized_length``, ``num_beads``,
    ``gradient_steps`` and ``seconds`` (all under ``landscape/``, or ``landscape/<name>/``), written to
    ``dirpath/checks.jsonl`` and drawn beside it. ``ModelCheckpoint(monitor="landscape/barrier")`` works; before
    the first check the values are NaN, which ModelCheckpoint ranks last (give EarlyStopping ``check_finite=False``).

    Training stays bit-identical: weights, logged metrics, data order and random states are those of the run
    without the callback.

    Args:
        pairs: ``"lagged"``: the weights of the previous check; ``"first"``: those of the first check;
            ``"reference"``: another run's file; ``"twin"``: a second initialisation, trained in lock-step.
        every_n_epochs: a check at the end of every n-th epoch.
        finder: how a path is searched; ``None`` is :class:`~lightning_landscape.finders.DynamicStringSampling`.
        level: the level u; ``None``: max(E_a, E_b) + margin |max(E_a, E_b)|.
        margin: see ``level``; positive by default, because the level set of a converged minimum at its own
            loss is a single point.
        overhead: a check may spend this share of the training steps since the last one; ``None``: no limit.
            The straight line, its own measurement and the twin's training come on top. So does one snapshot
            of the weights a check, two with a twin; they are kept.
        num_batches: training batches that define E, drawn once without replacement.
        batches: the batches themselves, for data that cannot be read twice; ``num_batches`` is then unused.
        loss_fn: ``loss_fn(module, batch)`` returns the mean loss; ``None``: the module's ``training_step``.
        batch_norm: see :class:`~lightning_landscape.surface.LossSurface`.
        max_seconds: an extra brake on the wall time of a check; results then depend on the machine.
        dirpath: folder of rows, figures and snapshots; default ``landscape`` in the run's folder.
        name: sets apart several of these callbacks in one trainer.
        reference: file for ``pairs="reference"``: a Lightning checkpoint or a safetensors file.
        reinitialize: for ``pairs="twin"``: gives a copy of the module new weights in place; ``None`` calls
            ``reset_parameters`` of all its layers.
        seed: of the probe set, the search and the twin.
        on_error: ``"warn"``: a failing check becomes a warning and a ``not_found`` row; ``"raise"``: it ends the run.

    Raises:
        ValueError: for arguments out of range.
        MisconfigurationException: when training starts, for strategies that shard weights, data that cannot
            be read twice and modules whose loss needs the trainer, with what to do.

    Example:
        >>> callback = LevelSetConnectivity(pairs="lagged", every_n_epochs=5)
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, enable_checkpointing=False)
    """

    _checks: int  # made so far
    _epochs: int  # ended so far
    _batches_seen: int  # trained on since the last check
    _values: dict[str, float]  # what the last check logged
    _pairing: Pairing | None
    _surface: LossSurface | None  # on rank zero, as are the next two
    _store: SnapshotStore | None
    _log: CheckLog | None

    def __init__(
        self,
        pairs: Literal["lagged", "first", "reference", "twin"] = "lagged",
        every_n_epochs: int = 1,
        finder: PathFinder | None = None,
        level: float | None = None,
        margin: float = 0.05,
        overhead: float | None = 0.25,
        num_batches: int = 8,
        batches: Sequence[Any] | None = None,
        loss_fn: LossFunction | None = None,
        batch_norm: BatchNormMode = "recalibrate",
        max_seconds: float | None = None,
        dirpath: str | os.PathLike[str] | None = None,
        name: str | None = None,
        reference: str | os.PathLike[str] | None = None,
        reinitialize: Reinitialize | None = None,
        seed: int = 0,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        if pairs not in _PAIRS:
            raise ValueError(f"pairs must be one of {', '.join(_PAIRS)}, got {pairs!r}")
        if (pairs == "reference") != (reference is not None):
            raise ValueError(f"pairs='reference' and reference=FILE go together, got {pairs!r} and {reference!r}")
        if reinitialize is not None and pairs != "twin":
            raise ValueError(f"reinitialize goes with pairs='twin', got pairs={pairs!r}")
        for argument, count in (("every_n_epochs", every_n_epochs), ("num_batches", num_batches)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"{argument} must be an integer from 1, got {count!r}")
        if finder is not None and not isinstance(finder, PathFinder):
            raise ValueError(f"finder must be a PathFinder such as DynamicStringSampling(), got {finder!r}")
        if batches is not None and not isinstance(batches, list | tuple):
            raise ValueError(f"batches must be a list of batches, got {type(batches).__name__}: pass list(...)")
        if batch_norm not in get_args(BatchNormMode):
            raise ValueError(f"batch_norm must be one of {', '.join(get_args(BatchNormMode))}, got {batch_norm!r}")
        if margin is None:
            raise ValueError("margin must be a finite number of at least 0, got None: give 0 for a strict level")
        for argument, value in (("margin", margin), ("overhead", overhead), ("max_seconds", max_seconds)):
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{argument} must be a finite number of at least 0, got {value!r}")
        if level is not None and math.isnan(level):
            raise ValueError("level is NaN: give a number, or None to derive it from the endpoints")
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error must be 'warn' or 'raise', got {on_error!r}")
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed must lie in [0, 2**31), got {seed}")
        self.pairs = pairs
        self.every_n_epochs = every_n_epochs
        self.finder = copy.copy(finder) if finder is not None else DynamicStringSampling()
        self.margin = margin
        self.level = level
        self.overhead = overhead
        self.num_batches = num_batches
        self.batches = batches
        self.loss_fn = loss_fn
        self.batch_norm = batch_norm
        self.max_seconds = max_seconds
        self.dirpath = dirpath
        self.name = None if name is None else checked_name(name)
        self.reference = reference
        self.reinitialize = reinitialize
        self.seed = seed
        self.on_error = on_error
        self.folder: Path | None = None
        self._prefix = "landscape" if name is None else f"landscape/{name}"
        self._restored: dict[str, Any] | None = None
        self._forget()

    @property
    def state_key(self) -> str:
        """Names this callback's state in a checkpoint."""
        return self._generate_state_key(pairs=self.pairs, every_n_epochs=self.every_n_epochs, name=self.name)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``checks.jsonl`` so far, in rank zero's process."""
        return self._log.rows if self._log is not None else []

    def summary(self) -> RenderableType:
        """The table of all checks and where the files are, for printing with rich."""
        return Group(check_table(self.rows), f"Figures, checks.jsonl and snapshots: {self.folder}")

    # Life of a fit

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuses what could not work, before anything is spent."""
        if stage != "fit":
            return
        require_replicated_weights(trainer, type(self).__name__)
        others = [c for c in trainer.callbacks if isinstance(c, LevelSetConnectivity)]  # type: ignore[attr-defined]
        if sum(other.name == self.name for other in others) > 1:
            raise MisconfigurationException(
                f"two LevelSetConnectivity callbacks are named {self.name!r} and would log under one name: "
                "give each its own name="
            )
        if self.loss_fn is None and not pl_module.automatic_optimization:
            raise MisconfigurationException(
                f"{type(pl_module).__name__} optimises manually, so that its training_step is not one loss: pass "
                "LevelSetConnectivity(loss_fn=lambda module, batch: <scalar mean loss>)"
            )
        if self.pairs == "twin" and not pl_module.automatic_optimization:
            raise MisconfigurationException("pairs='twin' cannot follow manual optimisation: use another pairing")
        if self.pairs == "twin" and trainer.precision == "16-mixed":
            raise MisconfigurationException("pairs='twin' has no loss scaling for 16-mixed: use 'bf16-mixed' or 32")
        default = "landscape" if self.name is None else f"landscape/{self.name}"
        self.folder = resolve_folder(trainer, self.dirpath, default)
        if any(other is not self and other.folder == self.folder for other in others):
            raise MisconfigurationException(
                f"two LevelSetConnectivity callbacks would write {self.folder}/checks.jsonl: give each its own dirpath="
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the probe set, checks that the loss is well defined, and starts or resumes the record."""
        assert self.folder is not None  # set in setup
        folder = self.folder
        # A second fit of the same trainer goes on where the first ended.
        restored = self._restored or (self.state_dict() if trainer.global_step > 0 else None) or None
        if restored is not None and self.dirpath is None and os.path.isdir(restored["folder"]):
            # Loggers give a resumed run another version, and with it another default folder.
            folder = self.folder = Path(restored["folder"])
        self._restored = None
        self._forget()
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            # What would be refused in the real run is refused here; nothing is written.
            def rehearse() -> None:
                with isolated_rng(self.seed):
                    self._probe(trainer, pl_module)

            on_rank_zero(trainer, rehearse)
            return
        self._epochs = trainer.current_epoch
        if restored is not None:
            self._checks, self._values, self._batches_seen = restored["checks"], restored["values"], restored["batches"]
            self._epochs = restored["epochs"]
        elif self.pairs == "twin" and trainer.global_step > 0:
            raise MisconfigurationException(
                "the checkpoint holds no twin, because this callback was not attached when it was written: start from "
                "the beginning, or compare with pairs='reference'"
            )

        pairing = self._make_pairing(trainer, pl_module)
        if restored is not None:
            pairing.load_state_dict(restored["pairing"])

        def prepare() -> None:
            self._store = SnapshotStore(folder / "snapshots")
            self._log = CheckLog(folder / "checks.jsonl")
            with isolated_rng(self.seed):
                self._surface = self._probe(trainer, pl_module)
                # Chosen by the clock: a resumed run goes on with the choice it had.
                self._surface.adopt(restored["vectorized"] if restored else {})
                self._surface.choice()
            if restored is None:
                self._log.start()
            else:
                self._log.resume(self._checks)
            pairing.partner(self._store)  # now, not at the first check, is the time to miss a file

        on_rank_zero(trainer, prepare)
        self._pairing = pairing
        # There from the first step, for a checkpoint may be saved before the first epoch ends.
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in self._values.items()})
        # Lightning does not end an epoch again whose checkpoint was saved after its last batch.
        if self._epochs < trainer.current_epoch:
            self._end_epoch(trainer, pl_module, trainer.current_epoch - 1)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Hands the twin its batch."""
        if isinstance(self._pairing, Twin):
            self._pairing.keep(batch)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Shows the twin the hyperparameters of the moment."""
        if isinstance(self._pairing, Twin):
            self._pairing.follow(optimizer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the work of training, and trains the twin."""
        self._batches_seen += 1
        if isinstance(self._pairing, Twin):
            self._pairing.step(batch_idx)
            if self._pairing.failure is not None and self.on_error == "raise":
                raise self._pairing.failure

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks when it is time, and logs the latest values for callbacks that monitor them."""
        if self._pairing is None:
            return
        self._end_epoch(trainer, pl_module, trainer.current_epoch)
        # The loggers got the row itself; this is for ModelCheckpoint and its like, every epoch.
        # Equal on all ranks; the maximum keeps it exactly so.
        pl_module.log_dict(self._values, logger=False, on_epoch=True, sync_dist=True, reduce_fx="max")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Frees the surface's copy of the module; after an error Lightning calls no teardown."""
        self._surface = None

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Frees the surface's copy of the module; the rest goes into a checkpoint saved after the fit."""
        # A validation loads the states of callbacks too, which is no resume.
        self._surface = self._restored = None

    def state_dict(self) -> dict[str, Any]:
        """Counters, the partner and the latest values; snapshots stay in their files."""
        if self._pairing is None:
            return {}
        return {
            "checks": self._checks,
            "epochs": self._epochs,
            "batches": self._batches_seen,
            "values": dict(self._values),
            "pairing": self._pairing.state_dict(),
            "folder": str(self.folder),
            "vectorized": self._surface.choice() if self._surface is not None else {},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until training starts, when there is a twin to load it into."""
        self._restored = state_dict or None

    def _end_epoch(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        self._epochs = epoch + 1
        if self._epochs % self.every_n_epochs != 0:
            return
        row = on_rank_zero(trainer, lambda: self._check(trainer, pl_module, epoch))
        self._batches_seen = 0
        if row is not None:
            self._checks, self._values = row["check"], scalars_of(row, self._prefix)
            if row["reason"] == Reason.ERROR:
                rank_zero_warn(f"check {row['check']} of LevelSetConnectivity failed: {row['message']}")

    # One check, on rank zero

    def _check(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> dict[str, Any] | None:
        assert self._store is not None
        assert self._pairing is not None
        number = self._checks + 1
        with isolated_rng((self.seed + 7919 * number) % 2**32):
            try:
                snapshot = self._store.save(pl_module, step=trainer.global_step, epoch=epoch)
                try:
                    partner = self._pairing.partner(self._store)
                finally:
                    self._pairing.record(snapshot)
                if isinstance(self._pairing, Twin):
                    name = f"twin-{snapshot.name}"
                    self._store.save(self._pairing.module, step=snapshot.step, epoch=epoch, name=name)
                if partner is None:
                    return None
                connection = self._connect(trainer, pl_module, partner, f"landscape check {number}")
            except Exception as error:  # whatever goes wrong in a check, it is not the training's fault
                if self.on_error == "raise":
                    raise
                connection = Connection.failed(error)
            row = {
                "check": number,
                "epoch": epoch,
                "step": trainer.global_step,
                "pair": self.pairs,
                "margin": self.margin,
                **connection.to_dict(),
            }
            self._publish(trainer, row, connection)
        return row

    def _connect(self, trainer: pl.Trainer, pl_module: pl.LightningModule, partner: Partner, title: str) -> Connection:
        assert self._surface is not None
        require_equal_frozen(pl_module, partner)
        surface = self._surface = self._surface.with_module(pl_module)
        work = None if self.overhead is None else self.overhead * self._batches_seen
        with check_progress(trainer, title) as progress:
            return self.finder.connect(
                surface,
                surface.point(partner),
                surface.point(),
                level=self.level,
                margin=self.margin,
                budget=Budget(work, self.max_seconds),
                progress=progress,
            )

    def _publish(self, trainer: pl.Trainer, row: dict[str, Any], connection: Connection) -> None:
        assert self._log is not None
        try:
            publish(trainer, self._log, row, connection, self._prefix)
        except Exception as error:  # a full disk or a logger's service must not end training either
            if self.on_error == "raise":
                raise
            rank_zero_warn(f"check {row['check']} could not be published: {type(error).__name__}: {error}")

    def _probe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> LossSurface:
        return probe_surface(trainer, pl_module, self.batches, self.num_batches, self.loss_fn, self.batch_norm)

    def _make_pairing(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Pairing:
        if self.pairs == "twin":
            return Twin(trainer, pl_module, self.reinitialize, self.seed)
        if self.reference is not None:
            return Reference(self.reference)
        return Lagged() if self.pairs == "lagged" else First()

    def _forget(self) -> None:
        self._checks = self._epochs = self._batches_seen = 0
        self._values = {f"{self._prefix}/{key}": math.nan for key in METRICS}
        self._pairing = self._surface = self._store = self._log = None
