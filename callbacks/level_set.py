"""Level-set connectivity of pairs of models, checked while one of them trains."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from rich.console import Group, RenderableType

from lightning_landscape.attach.options import check_share
from lightning_landscape.attach.probe import require_comparable
from lightning_landscape.attach.ranks import on_rank_zero
from lightning_landscape.callbacks.base import OnError
from lightning_landscape.callbacks.following import FollowingCallback
from lightning_landscape.callbacks.keeping import Keep
from lightning_landscape.callbacks.pairings import PairChoice, Reinitialize, make_pairing
from lightning_landscape.callbacks.pairings.base import Partner
from lightning_landscape.callbacks.settling import movement
from lightning_landscape.certificates.proving import Proved
from lightning_landscape.connection import Connection, Reason, Verdict
from lightning_landscape.finders import PathFinder
from lightning_landscape.report.check_figures import history_figure, profile_figure
from lightning_landscape.report.conclusion import conclusion
from lightning_landscape.report.style import save_figure
from lightning_landscape.report.tables import check_table
from lightning_landscape.storage.snapshots import Snapshot, StoredDtype, default_name, module_state
from lightning_landscape.surface import BatchNormMode, LossFunction, LossSurface, NoiseMode
from lightning_landscape.surface.random_states import isolated_rng


class LevelSetConnectivity(FollowingCallback):
    """Checks during training whether pairs of models lie in one connected level set of the loss.

    At the end of every n-th epoch the present weights and their partner are joined by a path on which the
    training loss stays below a level, if the finder finds one. The numbers in ``metrics`` are logged under
    ``landscape/``, or ``landscape/<name>/``, written to ``dirpath/checks.jsonl`` and drawn beside it.
    ``ModelCheckpoint(monitor="landscape/barrier")`` works; before the first check the values are NaN, which
    ModelCheckpoint ranks last, and ``settled`` is 0. ``EarlyStopping("landscape/settled", mode="max",
    stopping_threshold=0.5, patience=10**6)`` ends a run that has settled.

    Training stays bit-identical: weights, logged metrics, data order and random states are those of the run
    without the callback.

    Args:
        pairs: ``"lagged"``: the weights of the previous check; ``"first"``: those of the first check;
            ``"reference"``: another run's file; ``"twin"``: a second initialisation, trained in lock-step.
        every_n_epochs: a check at the end of every n-th epoch; ``None``: of each, or none under ``every_n_steps``.
        finder: how a path is searched; ``None`` is :class:`~lightning_landscape.finders.CurveThenBeads`.
        level: the level u; ``None``: max(E_a, E_b) + margin |max(E_a, E_b)|.
        margin: see ``level``; positive by default, because the level set of a converged minimum at its own
            loss is a single point.
        overhead: all work of checks may come to this share of training's steps; ``None``: no limit. A check waits until
            that pays for the straight line; in a run too short to wait, each may measure the line (``minimum`` in
            the row). Twin training stands apart (``twin_work``); figures and snapshots are not counted.
        num_batches: training batches that define E, drawn once without replacement.
        batches: the batches themselves; ``num_batches`` is then unused.
        loss_fn: ``loss_fn(module, batch)`` returns the mean loss; ``None``: the module's ``training_step``.
        batch_norm: see :class:`~lightning_landscape.surface.LossSurface`.
        keep: which snapshots stay on the disk: ``"needed"``: the present weights, and what a check, a tree or the
            latest checkpoint asks for; ``"all"``; or a number: of the last so many checks too. Rows say it.
        dtype: round stored weights to ``"bfloat16"`` or ``"float16"``, half the bytes; the losses of a stored point
            are then of the rounded weights. ``None``: all bits.
        max_seconds: an extra brake on the wall time of a check; results then depend on the machine.
        dirpath: folder of rows, figures and snapshots; default ``landscape`` in the run's folder.
        name: sets apart several of these callbacks in one trainer.
        reference: file for ``pairs="reference"``: a Lightning checkpoint or a safetensors file.
        reinitialize: for ``pairs="twin"``: gives a copy of the module new weights in place; ``None`` calls
            ``reset_parameters`` of all its layers.
        seed: of the probe set, the search and the twin.
        on_error: ``"warn"``: a failing check becomes a warning and a ``not_found`` row; ``"raise"``: it ends the run.
        every_n_steps: a check at the end of the batch that makes every n-th optimiser step (``trainer.global_step``).
        memory: MiB of the CPU's memory for copies of batches, where the data cannot be read twice (a stream, several
            loaders): E is the mean over the first ``num_batches`` that pass, and searches train on a sample of the
            later ones. The field ``data`` of a row says ``"loader"``, ``"recorded"`` or ``"given"``.
        vectorize: evaluate stacks of points by ``torch.func.vmap`` or one by one; ``None``: by a rule, not by a clock.
        noise: ``"frozen"``: a loss that draws random numbers draws the same at every point; ``"refuse"``: an error.
        buffers: names of buffers, with ``*``, that all models take from the present one: pruning masks, say.
        summary: print the table of all checks when the fit is over.
        certify: prove that the whole found path lies below the level, within ``overhead``; logs ``certified``, 1 or 0.

    Raises:
        ValueError: for arguments out of range.
        MisconfigurationException: when training starts, for strategies that shard weights and modules whose loss needs
            the trainer, with what to do.

    Example:
        >>> callback = LevelSetConnectivity(pairs="lagged", every_n_epochs=5)
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, enable_checkpointing=False)
    """

    place: ClassVar[str] = "landscape"
    record: ClassVar[str] = "checks.jsonl"
    counted: ClassVar[str] = "checks"
    keeps: ClassVar[tuple[str, ...]] = ("checks.jsonl", "snapshots", "profile-*.png", "history.png", "recorded-*.pt")
    metrics: ClassVar[tuple[str, ...]] = (
        *("connected", "height", "barrier", "linear_barrier", "normalized_length"),
        *("num_beads", "gradient_steps", "seconds", "overhead", "undecided"),
        *("distance", "relative_distance", "level", "loss_a", "loss_b", "settled"),
    )

    _present: str | None  # the snapshot of the present check
    _values: dict[str, float]  # what the last check logged
    _known: Partner | None  # from elsewhere; on rank zero

    def __init__(
        self,
        pairs: PairChoice = "lagged",
        every_n_epochs: int | None = None,
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
        on_error: OnError = "warn",
        every_n_steps: int | None = None,
        memory: float = 256.0,
        vectorize: bool | None = None,
        noise: NoiseMode = "frozen",
        buffers: Sequence[str] = (),
        keep: Keep = "needed",
        dtype: StoredDtype | None = None,
        summary: bool = True,
        certify: bool = False,
    ) -> None:
        check_share("max_seconds", max_seconds)
        self.pairs = pairs
        self.says = summary
        self.certify = certify
        self.max_seconds = max_seconds
        self.reference = reference
        self.reinitialize = reinitialize
        self._following = make_pairing(pairs, seed, reference=reference, reinitialize=reinitialize)
        super().__init__(
            keep,
            dtype,
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            finder=Proved(finder) if certify else finder,
            level=level,
            margin=margin,
            overhead=overhead,
            num_batches=num_batches,
            batches=batches,
            memory=memory,
            loss_fn=loss_fn,
            batch_norm=batch_norm,
            vectorize=vectorize,
            noise=noise,
            buffers=buffers,
            seed=seed,
            dirpath=dirpath,
            name=name,
            on_error=on_error,
        )

    @property
    def state_key(self) -> str:
        """Names this callback's state in a checkpoint."""
        return self._generate_state_key(pairs=self.pairs, **self.rhythm, name=self.name)

    def summary(self) -> RenderableType:
        """The table of all checks and where the files are, for printing with rich."""
        return Group(check_table(self.rows), f"Figures, checks.jsonl and snapshots: {self.folder}")

    @property
    def accompanied(self) -> bool:
        """Whether each check keeps models that the pairing trains beside the run."""
        return self._following.accompanied

    def companions(self) -> dict[str, Snapshot]:
        """Snapshots of the models that the pairing trains beside the run, by name, in the order of the checks."""
        return (
            {name: self._store.open(name) for name in self.companion_names() if name in self._store}
            if self._store
            else {}
        )

    def needed(self) -> set[str] | None:
        """What the pairing compares with, and companions that trees join."""
        assert self._pairing is not None
        needed, beside = self._pairing.needed(), self.companion_names()
        return None if needed is None else set(needed).union(*(other.wanted(beside) for other in self._beside))

    def companion_names(self) -> list[str]:
        """Names of the snapshots of companions there were, on the disk or not, in the order of the checks."""
        leads = self._pairing.companions() if self._pairing is not None else ()
        moments = [default_name(step=row["step"], epoch=row["epoch"]) for row in self.rows]
        return [f"{lead}-{moment}" for moment in moments for lead in leads]

    def refuse(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuses modules without one loss, and runs that the pairing cannot follow."""
        super().refuse(trainer, pl_module)
        self._following.check(trainer, pl_module)

    def forget(self) -> None:
        """No check made, nothing to compare with."""
        super().forget()
        self._values = {f"{self._prefix}/{key}": math.nan for key in (*self.metrics, *["certified"][: self.certify])}
        self._values[f"{self._prefix}/settled"] = 0.0  # never NaN, for EarlyStopping
        self._pairing = None

    def restore(self, state: dict[str, Any]) -> None:
        """Counters and the latest values; the pairing takes its own part."""
        super().restore(state)
        self._values |= state["values"]

    def follow(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Makes the pairing ready, and shows the latest values from the first step on."""
        super().follow(trainer, pl_module, state)
        self._following.setup(trainer, pl_module, state and state["pairing"])
        self._pairing = self._following
        # A checkpoint may be saved before the first epoch ends.
        self.expose(trainer, self._values)

    def define(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Draws the probe set; now, not at the first check, is the time to miss a partner's file or refuse it."""
        self._known = self._following.read(pl_module)
        super().define(trainer, pl_module, state)

    def accept(self, pl_module: pl.LightningModule, surface: LossSurface) -> None:
        """Compares E of a partner that is known already with the loss that it has by itself."""
        if self._known is not None:
            require_comparable(surface, self._known, str(self.reference or "the partner"))

    def state(self) -> dict[str, Any]:
        """Counters, the partner and the latest values; snapshots stay in their files."""
        assert self._pairing is not None
        return super().state() | {"values": dict(self._values), "pairing": self._pairing.state_dict()}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks when it is time, and logs the latest values for callbacks that monitor them."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self.active:
            return
        # For ModelCheckpoint and its like, every epoch. Equal on all ranks; the maximum keeps it exactly so.
        pl_module.log_dict(self._values, logger=False, on_epoch=True, sync_dist=True, reduce_fx="max")

    def lacking(self, trainer: pl.Trainer) -> int:
        """The check that compares, and those that the pairing needs before it."""
        assert self._pairing is not None
        return 1 + self._pairing.missing()

    def examine(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """A check, on rank zero; its numbers on every rank."""
        what = f"check {self._made + 1} of LevelSetConnectivity"
        row = on_rank_zero(trainer, lambda: self._check(trainer, pl_module, epoch), what)
        if row is not None:
            self._made, self._values = row["check"], self.scalars(row)
            self._epochs_of.append(epoch)
            if self.every_n_steps is not None:
                self.expose(trainer, self._values)  # for who monitors by the step
            if row["reason"] == Reason.ERROR:
                rank_zero_warn(f"check {row['check']} of LevelSetConnectivity failed: {row['message']}")

    def _check(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> dict[str, Any] | None:
        number = self._made + 1
        with isolated_rng((self.seed + 7919 * number) % 2**32):
            connection = self.attempt(lambda: self._compare(trainer, pl_module, epoch, number), Connection.failed)
            if connection is None:
                return None
            row = {
                **self.circumstances(trainer, epoch),
                "pair": self.pairs,
                "margin": self.margin,
                "snapshot": self._present,
                **connection.to_dict(),
                **self._account.row(),
                "twin_work": self._account.batches if self.accompanied else 0,
                "conclusion": conclusion(connection),
            }
            row |= movement(self.rows, row, connection)
            # A full disk or a logger's service must not end training either.
            self.attempt(
                lambda: self._publish(trainer, row, connection),
                self.warning(f"check {number} could not be published", None),
            )
        return row

    def _compare(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int, number: int
    ) -> Connection | None:
        """Keeps the present weights and joins them with their partner; ``None`` while there is none, or it waits."""
        assert self._store is not None
        assert self._pairing is not None
        self._present = None
        ready = not self._pairing.missing()
        if ready and self._account.waits_for_line(trainer, pl_module, self.finder, self.present_surface(pl_module)):
            return None
        # Before and not after: the two ends of the latest row are on the disk, and a full disk has room again.
        self.attempt(lambda: self.prune(coming=1), self.warning("old snapshots stay on the disk", None))
        beside = {f"{lead}-": module for lead, module in self._pairing.companions().items()}
        snapshot = self.save(trainer, {"": pl_module, **beside}, epoch)
        self._present = snapshot.name
        try:
            partner = self._pairing.partner(self._store)
        finally:
            self._pairing.record(snapshot)
        return None if partner is None else self._connect(trainer, pl_module, partner, f"landscape check {number}")

    def _connect(self, trainer: pl.Trainer, pl_module: pl.LightningModule, partner: Partner, title: str) -> Connection:
        surface = self.present_surface(pl_module)
        try:
            ends = surface.point(partner), surface.point(module_state(pl_module))
            budget = self._account.budget(surface.work.total, self.max_seconds)
            with self.progress(trainer, title) as progress:
                options: dict[str, Any] = {"level": self.level, "margin": self.margin, "budget": budget}
                return self.finder.connect(surface, *ends, progress=progress, **options)
        finally:
            self._account.spend(surface.work.total)

    def _publish(self, trainer: pl.Trainer, row: dict[str, Any], connection: Connection) -> None:
        self.append(trainer, row)  # the record first, it is the result; then figures and loggers
        assert self._log is not None
        folder, failed = self._log.path.parent, connection.reason is Reason.ERROR
        figures = {"history": history_figure(self._log.rows)}
        if not failed:
            figures["profile"] = profile_figure(connection, f"{row['pair']}, epoch {row['epoch']}")
            save_figure(figures["profile"], folder / f"profile-{row['check']:04d}.png")
        save_figure(figures["history"], folder / "history.png")
        self.publish(trainer, self._log.rows, row["check"], row["step"], figures, None if failed else connection)

    def scalars(self, row: Mapping[str, Any]) -> dict[str, float]:
        """The logged numbers of a row; ``connected`` is 1 or 0, ``undecided`` 1 where the budget ended the search."""
        words = {"connected": row["verdict"] == Verdict.CONNECTED, "undecided": row["reason"] == Reason.BUDGET}
        known = super().scalars({**row, **words})
        return known | ({f"{self._prefix}/certified": float(bool(row["proved_profile"]["t"]))} if self.certify else {})
