"""The merge tree of a training run: how many components of the level sets its snapshots lie in."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, get_args

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from rich.console import Group, RenderableType

from lightning_landscape import components
from lightning_landscape.attach.options import check_choice, check_count
from lightning_landscape.attach.probe import require_comparable
from lightning_landscape.attach.ranks import on_rank_zero
from lightning_landscape.callbacks.base import OnError
from lightning_landscape.callbacks.keeping import Keep, KeepingCallback, left
from lightning_landscape.callbacks.level_set import LevelSetConnectivity
from lightning_landscape.callbacks.pairings.base import Partner
from lightning_landscape.callbacks.pairings.reference import read_partner
from lightning_landscape.callbacks.tree_points import tree_points
from lightning_landscape.callbacks.tree_work import FEWEST, Paid, TreeBudget, told
from lightning_landscape.components.heights import PairChoice, search_heights
from lightning_landscape.finders import PathFinder
from lightning_landscape.report.style import save_figure
from lightning_landscape.report.tables import merge_table
from lightning_landscape.report.tree_figure import tree_figure
from lightning_landscape.storage.rows import KeyedRows
from lightning_landscape.storage.snapshots import StoredDtype
from lightning_landscape.surface import LossFunction, LossSurface, NoiseMode
from lightning_landscape.surface.random_states import isolated_rng


class MergeTree(KeepingCallback):
    """Joins snapshots of a run by paths of low loss, and counts the components of the level sets they lie in.

    At the end of every n-th epoch a snapshot is saved. When training ends, the snapshots, those of the twin of
    a ``LevelSetConnectivity(pairs="twin")`` in the same trainer, and the ``references`` are the points of a
    :class:`~lightning_landscape.components.MergeTree`, with heights of paths found by ``finder``: k points cost
    k - 1 searches and the straight lines between all pairs, each measured once. Logged, under ``landscape/tree/`` or
    ``landscape/tree/<name>/``, are ``num_points``, ``level``, ``num_components`` (N_u at that level),
    ``max_components`` (the largest N_u at any level), ``top_merge`` (the level from which all are one component; NaN
    if some were never joined), ``gradient_steps``, ``seconds`` and ``overhead``. The folder gets ``trees.jsonl``,
    figures ``tree-0001.png``, the searches in ``pairs.jsonl``, the lines in ``lines.jsonl`` and the snapshots.

    Training stays bit-identical: weights, logged metrics, data order and random states are those of the run
    without the callback.

    Args:
        every_n_epochs: a snapshot at the end of every n-th epoch, and at the end of training; ``None``: of each epoch,
            or of none under ``every_n_steps``.
        every_n_snapshots: a tree also after every n-th snapshot; ``None``: at the end alone.
        references: files of other runs: Lightning checkpoints or safetensors files.
        max_points: snapshots of the run, and as many of its twin, that enter a tree: evenly spread, with the
            first and the last.
        pairs: see :func:`~lightning_landscape.components.heights.search_heights`.
        finder: how a path is searched; ``None`` is :class:`~lightning_landscape.finders.CurveThenBeads`.
        level: the level u of ``num_components``; ``None``: max_i E_i + margin |max_i E_i|, at which every point counts.
        margin: how far above the largest loss the level lies, as a share of it; searches use it too.
        overhead: all work of trees may come to this share of training's steps; ``None``: no limit. Straight lines leave
            half of it to searches, or fewer points are joined; in a run too short for 4 of each kind their lines are
            measured all the same, ``minimum`` in the row.
        num_batches: training batches that define E, drawn once without replacement.
        batches: the batches themselves; ``num_batches`` is then unused.
        loss_fn: ``loss_fn(module, batch)`` returns the mean loss; ``None``: the module's ``training_step``.
        keep: which snapshots stay on the disk: ``"needed"``: up to 2 ``max_points``, evenly spread as the run grows, of
            which a tree joins ``max_points``; ``"all"``; or a number: the last so many, which alone are joined.
        dtype: round stored weights to ``"bfloat16"`` or ``"float16"``, half the bytes; the tree is that of the
            rounded weights. ``None``: all bits.
        dirpath: folder of the results; default ``landscape/tree`` in the run's folder.
        name: sets apart several of these callbacks in one trainer.
        seed: of the probe set and the searches.
        on_error: ``"warn"``: a failing tree becomes a warning; ``"raise"``: it ends the run.
        every_n_steps: a snapshot at every n-th optimiser step (``trainer.global_step``), and at the end of training.
        memory: MiB for copies of batches, where the data cannot be read twice; see
            :class:`~lightning_landscape.callbacks.LevelSetConnectivity`.
        vectorize: evaluate stacks of points by ``torch.func.vmap`` or one by one; ``None``: by a rule, not by a clock.
        noise: ``"frozen"``: a loss that draws random numbers draws the same at every point; ``"refuse"``: an error.
        buffers: names of buffers, with ``*``, that all models take from the present one, such as pruning masks.
        summary: print the merges of the latest tree when the fit is over.

    Raises:
        ValueError: for arguments out of range.
        MisconfigurationException: when training starts, for strategies that shard weights and modules whose loss needs
            the trainer, with what to do.

    Example:
        >>> callback = MergeTree(every_n_epochs=5)
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, enable_checkpointing=False)
    """

    examines_end: ClassVar[bool] = True
    place: ClassVar[str] = "landscape/tree"
    record: ClassVar[str] = "trees.jsonl"
    counted: ClassVar[str] = "trees"
    works: ClassVar[tuple[str, ...]] = ("pairs*.jsonl", "lines*.jsonl")
    keeps: ClassVar[tuple[str, ...]] = ("trees.jsonl", *works, "snapshots", "tree-*.png", "recorded-*.pt")
    metrics: ClassVar[tuple[str, ...]] = (
        *("num_points", "level", "num_components", "max_components", "top_merge"),
        *("gradient_steps", "seconds", "overhead"),
    )

    _snapshots: dict[str, str]  # content hashes of this run's snapshots by name
    _treed: int  # snapshots there were when the last tree was computed
    _references: dict[str, Partner]  # on rank zero

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_snapshots: int | None = None,
        references: Sequence[str | os.PathLike[str]] = (),
        max_points: int = 12,
        pairs: PairChoice = "tree",
        finder: PathFinder | None = None,
        level: float | None = None,
        margin: float = 0.05,
        overhead: float | None = 0.25,
        num_batches: int = 8,
        batches: Sequence[Any] | None = None,
        loss_fn: LossFunction | None = None,
        dirpath: str | os.PathLike[str] | None = None,
        name: str | None = None,
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
    ) -> None:
        check_count("max_points", max_points, least=2)
        check_count("every_n_snapshots", 1 if every_n_snapshots is None else every_n_snapshots)
        if isinstance(references, str | os.PathLike):
            raise ValueError(f"references must be a list of files, got {references!r}: pass [{str(references)!r}]")
        check_choice("pairs", pairs, get_args(PairChoice))
        self.says = summary
        self.every_n_snapshots = every_n_snapshots
        self.references = [str(path) for path in references]
        self.max_points = max_points
        self.pairs: PairChoice = pairs
        super().__init__(
            keep,
            dtype,
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            finder=finder,
            level=level,
            margin=margin,
            overhead=overhead,
            num_batches=num_batches,
            batches=batches,
            memory=memory,
            loss_fn=loss_fn,
            batch_norm="recalibrate",
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
        return self._generate_state_key(**self.rhythm, name=self.name)

    def summary(self) -> RenderableType:
        """The merges of the latest tree and where the files are, for printing with rich."""
        place = f"Merge tree, trees.jsonl and snapshots: {self.folder}"
        return Group(merge_table(self.tree), place) if self.tree is not None else place

    # Life of a fit

    def forget(self) -> None:
        """No snapshot, no tree."""
        super().forget()
        self._snapshots = {}
        self._references = {}
        self._treed = 0
        self._paid: set[str] = set()  # keys of recorded work that the account has paid for
        self.tree: components.MergeTree | None = None

    def restore(self, state: dict[str, Any]) -> None:
        """Counters and the snapshots there were."""
        super().restore(state)
        self._snapshots = dict(state["snapshots"])
        self._paid = set(state.get("paid", []))

    def define(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Reads the references: now is the time to find another architecture."""
        self._references = {path: read_partner(path, pl_module) for path in self.references}
        super().define(trainer, pl_module, state)

    def accept(self, pl_module: pl.LightningModule, surface: LossSurface) -> None:
        """Compares E of the references with the loss that they have by themselves."""
        for path, partner in self._references.items():
            require_comparable(surface, partner, path)

    def lacking(self, trainer: pl.Trainer) -> int:
        """A tree joins two points; the weights at the end of training are one, and a twin has as many as the run."""
        others = [other for other in trainer.callbacks if isinstance(other, LevelSetConnectivity)]  # type: ignore[attr-defined]
        known = len(self._snapshots) + len(self.references) + any(other.accompanied for other in others)
        return max(0, 2 - known)

    def settle(self, trainer: pl.Trainer, pl_module: pl.LightningModule, gone: Any) -> Any:
        """Looks for the snapshots that trees will join."""
        wanted = {name: self._snapshots[name] for name in self.needed()}
        if lost := self.recovered(trainer, pl_module, wanted):
            rank_zero_warn(f"trees go without {', '.join(sorted(lost))}, which are gone; keep='all' keeps all")
        return super().settle(trainer, pl_module, gone)

    def needed(self) -> set[str]:
        """What trees join."""
        return self.wanted(list(self._snapshots))

    def wanted(self, names: Sequence[str]) -> set[str]:
        """What trees join of a twin."""
        return set(left(names, self.keep, 2 * self.max_points))

    def state(self) -> dict[str, Any]:
        """Counters and the hashes of the snapshots, which stay in their files."""
        return super().state() | {"snapshots": dict(self._snapshots), "paid": sorted(self._paid)}

    def release(self) -> None:
        """Frees the surface's copy of the module, and the references."""
        super().release()
        self._references = {}

    def examine(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """Saves a snapshot, and computes a tree every n of them."""
        every = self.every_n_snapshots
        if self._save(trainer, pl_module, epoch) and every is not None and len(self._snapshots) % every == 0:
            self._compute(trainer, pl_module, epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Computes the tree of the whole run."""
        if not self.active:
            return
        epoch = max(0, self._epochs - 1)
        if self._examined != trainer.global_step:
            self._save(trainer, pl_module, epoch)  # the weights that training ends with are always a point
        if self._treed != len(self._snapshots):
            self._compute(trainer, pl_module, epoch, last=True)

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> bool:
        """Saves a snapshot on rank zero; whether it could, on every rank."""

        def save() -> dict[str, str]:
            snapshot = self.save(trainer, {"": pl_module}, epoch)
            return {snapshot.name: snapshot.content_hash}

        failed: dict[str, str] = {}
        warning = self.warning(f"MergeTree could not save epoch {epoch}", failed)
        saved = on_rank_zero(trainer, lambda: self.attempt(save, warning), f"MergeTree's snapshot of epoch {epoch}")
        self._snapshots |= saved
        still = self.warning("old snapshots stay on the disk", None)
        on_rank_zero(trainer, lambda: self.attempt(self.prune, still))
        return bool(saved)

    def _compute(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int, last: bool = False) -> None:
        """A tree on rank zero; its numbers, that it waits (none), or its failure, on every rank."""

        def compute() -> dict[str, float] | None:
            with isolated_rng(self.seed):
                return self._grow(trainer, pl_module, epoch, last)

        warning = self.warning(f"MergeTree failed after epoch {epoch}", None)
        scalars = on_rank_zero(trainer, lambda: self.attempt(compute, warning), f"the merge tree after epoch {epoch}")
        if scalars is None or scalars:
            self._treed = len(self._snapshots)
        if scalars:
            self._made += 1
            self._epochs_of.append(epoch)
            self.expose(trainer, scalars)

    def _grow(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int, last: bool
    ) -> dict[str, float] | None:
        assert self._log is not None
        surface = self.present_surface(pl_module)
        budget = TreeBudget(
            self._account, surface, self.finder, self._log.rows[-1]["tree"]["names"] if self.rows else []
        )
        least = budget.price(list(self._named(trainer, min(FEWEST, self.max_points))))
        if self._account.waits(trainer, pl_module, least, least, ("merge tree", "lines between 4 points"), last):
            return {}
        most = budget.count(lambda count: list(self._named(trainer, count)), self.max_points)
        points = {name: surface.point(load()) for name, load in self._named(trainer, most).items()}
        if not points:
            return None
        folder = self._log.path.parent
        grown = None if self.every_n_snapshots is None else len(self._snapshots)
        paid = [Paid(KeyedRows(folder / f"{name}.jsonl"), self._paid, surface) for name in ("pairs", "lines")]
        work = surface.work.total
        try:
            with self.progress(trainer, "merge tree") as progress, budget.limited(surface):
                found = search_heights(
                    surface,
                    points,
                    self.finder,
                    pairs=self.pairs,
                    margin=self.margin,
                    budget=budget.each(list(points), self.pairs, grown),
                    progress=progress,
                    record=paid[0],
                    lines=paid[1],
                    isolate=lambda seed: isolated_rng((self.seed + seed) % 2**32),
                )
        finally:
            work += len(points) * surface.evaluation_passes / 3
            self._account.spend(work + sum(record.work for record in paid))
        self.tree = found.tree()
        number = self._made + 1
        self.append(
            trainer,
            {
                **self.circumstances(trainer, epoch),
                **told(self.tree, self.level, self.margin),
                "gradient_steps": sum(row["gradient_steps"] for row in found.rows),
                "seconds": sum(row["seconds"] for row in [*found.lines, *found.rows]),
                **self._account.row(),
            },
        )
        figure = tree_figure(self.tree, f"merge tree after epoch {epoch}")
        save_figure(figure, folder / f"tree-{number:04d}.png")
        self.publish(trainer, self._log.rows, number, trainer.global_step, {"tree": figure})
        return self.scalars(self._log.rows[-1])

    def _named(self, trainer: pl.Trainer, count: int) -> dict[str, Callable[[], Partner]]:
        assert self._store is not None
        beside: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        return tree_points(self._store, self._snapshots, beside, self._references, self.keep, self.max_points, count)
