"""The merge tree of a training run: how many components of the level sets its snapshots lie in."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_warn
from rich.console import Group, RenderableType
from torch import Tensor

from lightning_landscape.attach.folders import resolve_folder
from lightning_landscape.attach.frozen import require_equal_frozen
from lightning_landscape.attach.probe import probe_surface
from lightning_landscape.attach.ranks import on_rank_zero
from lightning_landscape.attach.rng import isolated_rng
from lightning_landscape.attach.strategies import require_replicated_weights
from lightning_landscape.callbacks.level_set import LevelSetConnectivity
from lightning_landscape.callbacks.pairings.base import Partner
from lightning_landscape.callbacks.progress import check_progress
from lightning_landscape.components import merge_tree as components
from lightning_landscape.components.heights import PairChoice, search_heights
from lightning_landscape.connection import level_above
from lightning_landscape.finders import Budget, DynamicStringSampling, PathFinder
from lightning_landscape.report.loggers import report
from lightning_landscape.report.style import save_figure
from lightning_landscape.report.tables import merge_table
from lightning_landscape.storage.check_log import CheckLog
from lightning_landscape.storage.checkpoints import read_reference
from lightning_landscape.storage.rows import Record
from lightning_landscape.storage.snapshots import SnapshotStore, checked_name, default_name
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.objective import LossFunction

METRICS = ("num_points", "level", "num_components", "max_components", "top_merge", "gradient_steps", "seconds")


class MergeTree(Callback):
    """Joins snapshots of a run by paths of low loss, and counts the components of the level sets they lie in.

    At the end of every n-th epoch a snapshot is saved. When training ends, the snapshots, those of the twin of
    a ``LevelSetConnectivity(pairs="twin")`` in the same trainer, and the ``references`` are the points of a
    :class:`~lightning_landscape.components.MergeTree`, with heights of paths found by ``finder``: k points cost
    k - 1 searches and the straight lines between all pairs. Logged, under ``landscape/tree/`` or
    ``landscape/tree/<name>/``, are ``num_points``, ``level``, ``num_components`` (N_u at that level),
    ``max_components`` (the largest N_u at any level), ``top_merge`` (the level from which all are one component; NaN
    if some were never joined), ``gradient_steps`` and ``seconds``. The folder gets ``trees.jsonl``, figures
    ``tree-0001.png``, the searches in ``pairs.jsonl`` and the snapshots.

    Training stays bit-identical: weights, logged metrics, data order and random states are those of the run
    without the callback.

    Args:
        every_n_epochs: a snapshot at the end of every n-th epoch, and at the end of training.
        every_n_snapshots: a tree also after every n-th snapshot; ``None``: at the end alone.
        references: files of other runs: Lightning checkpoints or safetensors files.
        max_points: snapshots of the run, and as many of its twin, that enter a tree: evenly spread, with the
            first and the last.
        pairs: see :func:`~lightning_landscape.components.heights.search_heights`.
        finder: how a path is searched; ``None`` is :class:`~lightning_landscape.finders.DynamicStringSampling`.
        level: the level u of ``num_components``; ``None``: max_i E_i + margin |max_i E_i|, at which every point counts.
        margin: see ``level``.
        overhead: each search may spend this share of the training steps between two snapshots; ``None``: no
            limit. Straight lines come on top.
        num_batches: training batches that define E, drawn once without replacement.
        batches: the batches themselves, for data that cannot be read twice; ``num_batches`` is then unused.
        loss_fn: ``loss_fn(module, batch)`` returns the mean loss; ``None``: the module's ``training_step``.
        dirpath: folder of the results; default ``landscape/tree`` in the run's folder.
        name: sets apart several of these callbacks in one trainer.
        seed: of the probe set and the searches.
        on_error: ``"warn"``: a failing tree becomes a warning; ``"raise"``: it ends the run.

    Raises:
        ValueError: for arguments out of range.
        MisconfigurationException: when training starts, for strategies that shard weights, data that cannot
            be read twice and modules whose loss needs the trainer, with what to do.

    Example:
        >>> callback = MergeTree(every_n_epochs=5)
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, enable_checkpointing=False)
    """

    _snapshots: dict[str, str]  # content hashes of this run's snapshots by name
    _trees: int  # computed so far
    _epochs: int  # ended so far
    _batches_seen: int  # trained on so far
    _surface: LossSurface | None  # on rank zero, as are the next two
    _store: SnapshotStore | None
    _log: CheckLog | None

    def __init__(
        self,
        every_n_epochs: int = 1,
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
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        counts = {"every_n_epochs": every_n_epochs, "num_batches": num_batches, "max_points": max_points}
        for argument, count in (counts | {"every_n_snapshots": every_n_snapshots or 1}).items():
            least = 2 if argument == "max_points" else 1
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                raise ValueError(f"{argument} must be an integer from {least}, got {count!r}")
        if isinstance(references, str | os.PathLike):
            raise ValueError(f"references must be a list of files, got {references!r}: pass [{str(references)!r}]")
        if pairs not in get_args(PairChoice):
            raise ValueError(f"pairs must be one of {', '.join(get_args(PairChoice))}, got {pairs!r}")
        if finder is not None and not isinstance(finder, PathFinder):
            raise ValueError(f"finder must be a PathFinder such as DynamicStringSampling(), got {finder!r}")
        if batches is not None and not isinstance(batches, list | tuple):
            raise ValueError(f"batches must be a list of batches, got {type(batches).__name__}: pass list(...)")
        for argument, value in (("margin", margin), ("overhead", 0.0 if overhead is None else overhead)):
            if value is None or not 0 <= value < math.inf:
                raise ValueError(f"{argument} must be a finite number of at least 0, got {value!r}")
        if level is not None and math.isnan(level):
            raise ValueError("level is NaN: give a number, or None to derive it from the points")
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error must be 'warn' or 'raise', got {on_error!r}")
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed must lie in [0, 2**31), got {seed}")
        self.every_n_epochs = every_n_epochs
        self.every_n_snapshots = every_n_snapshots
        self.references = [str(path) for path in references]
        self.max_points = max_points
        self.pairs: PairChoice = pairs
        self.finder = copy.copy(finder) if finder is not None else DynamicStringSampling()
        self.margin = margin
        self.level = level
        self.overhead = overhead
        self.num_batches = num_batches
        self.batches = batches
        self.loss_fn = loss_fn
        self.dirpath = dirpath
        self.name = None if name is None else checked_name(name)
        self.seed = seed
        self.on_error = on_error
        self.folder: Path | None = None
        self.tree: components.MergeTree | None = None
        self._prefix = "landscape/tree" if name is None else f"landscape/tree/{name}"
        self._references: dict[str, Partner] = {}
        self._restored: dict[str, Any] | None = None
        self._forget()

    @property
    def state_key(self) -> str:
        """Names this callback's state in a checkpoint."""
        return self._generate_state_key(every_n_epochs=self.every_n_epochs, name=self.name)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``trees.jsonl`` so far, in rank zero's process."""
        return self._log.rows if self._log is not None else []

    def summary(self) -> RenderableType:
        """The merges of the latest tree and where the files are, for printing with rich."""
        place = f"Merge tree, trees.jsonl and snapshots: {self.folder}"
        return Group(merge_table(self.tree), place) if self.tree is not None else place

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuses what could not work, before anything is spent."""
        if stage != "fit":
            return
        require_replicated_weights(trainer, type(self).__name__)
        others = [c for c in trainer.callbacks if isinstance(c, MergeTree)]  # type: ignore[attr-defined]
        if sum(other.name == self.name for other in others) > 1:
            raise MisconfigurationException(f"two MergeTree callbacks are named {self.name!r}: give each its own name=")
        if self.loss_fn is None and not pl_module.automatic_optimization:
            raise MisconfigurationException(
                f"{type(pl_module).__name__} optimises manually, so that its training_step is not one loss: pass "
                "MergeTree(loss_fn=lambda module, batch: <scalar mean loss>)"
            )
        default = "landscape/tree" if self.name is None else f"landscape/tree/{self.name}"
        self.folder = resolve_folder(trainer, self.dirpath, default)
        if any(other is not self and other.folder == self.folder for other in others):
            raise MisconfigurationException(
                f"two MergeTree callbacks would write {self.folder}/trees.jsonl: give each its own dirpath="
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the probe set, reads the references, and starts or resumes the record."""
        assert self.folder is not None  # set in setup
        restored = self._restored or (self.state_dict() if trainer.global_step > 0 else None) or None
        if restored is not None and self.dirpath is None and os.path.isdir(restored["folder"]):
            # Loggers give a resumed run another version, and with it another default folder.
            self.folder = Path(restored["folder"])
        folder = self.folder
        self._restored = None
        self._forget()
        self._epochs = trainer.current_epoch
        if restored is not None:
            self._snapshots, self._trees = dict(restored["snapshots"]), restored["trees"]
            self._epochs, self._batches_seen = restored["epochs"], restored["batches"]

        def prepare() -> None:
            with isolated_rng(self.seed):
                surface = probe_surface(trainer, pl_module, self.batches, self.num_batches, self.loss_fn, "recalibrate")
                if trainer.fast_dev_run:  # type: ignore[attr-defined]  # a rehearsal writes nothing
                    return
                # Chosen by the clock: a resumed run goes on with the choice it had.
                surface.adopt(restored["vectorized"] if restored else {})
                surface.choice()
            self._references = {path: read_reference(path) for path in self.references}
            for partner in self._references.values():
                surface.point(partner)  # now is the time to find another architecture
                require_equal_frozen(pl_module, partner)
            self._store = SnapshotStore(folder / "snapshots")
            self._log = CheckLog(folder / "trees.jsonl")
            if restored is None:
                self._log.start()
            else:
                self._log.resume(self._trees)
            self._surface = surface

        on_rank_zero(trainer, prepare)
        self._active = not trainer.fast_dev_run  # type: ignore[attr-defined]
        # Lightning does not end an epoch again whose checkpoint was saved after its last batch.
        if self._active and self._epochs < trainer.current_epoch:
            self._end_epoch(trainer, pl_module, trainer.current_epoch - 1)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the work of training."""
        self._batches_seen += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves a snapshot when it is time, and computes a tree every n of them."""
        if self._active:
            self._end_epoch(trainer, pl_module, trainer.current_epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Computes the tree of the whole run."""
        if not self._active:
            return
        epoch = max(0, self._epochs - 1)
        if self._epochs % self.every_n_epochs != 0:
            self._save(trainer, pl_module, epoch)  # the weights that training ends with are always a point
        if self._treed != len(self._snapshots):
            self._compute(trainer, pl_module, epoch)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Frees the surface's copy of the module; after an error Lightning calls no teardown."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Frees the surface's copy of the module; the rest goes into a checkpoint saved after the fit."""
        self._surface = self._restored = None
        self._references = {}

    def state_dict(self) -> dict[str, Any]:
        """Counters and the hashes of the snapshots, which stay in their files."""
        if not self._active:
            return {}
        return {
            "snapshots": dict(self._snapshots),
            "trees": self._trees,
            "epochs": self._epochs,
            "batches": self._batches_seen,
            "folder": str(self.folder),
            "vectorized": self._surface.choice() if self._surface is not None else {},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until training starts."""
        self._restored = state_dict or None

    def _end_epoch(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        self._epochs = epoch + 1
        if self._epochs % self.every_n_epochs == 0 and self._save(trainer, pl_module, epoch):
            every = self.every_n_snapshots
            if every is not None and len(self._snapshots) % every == 0:
                self._compute(trainer, pl_module, epoch)

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> bool:
        """Saves a snapshot on rank zero; whether it could, on every rank."""

        def attempt() -> dict[str, str]:
            assert self._store is not None
            try:
                snapshot = self._store.save(pl_module, step=trainer.global_step, epoch=epoch)
            except Exception as error:  # a full disk must not end training
                if self.on_error == "raise":
                    raise
                rank_zero_warn(f"MergeTree could not save epoch {epoch}: {type(error).__name__}: {error}")
                return {}
            return {snapshot.name: snapshot.content_hash}

        saved = on_rank_zero(trainer, attempt)
        self._snapshots |= saved
        return bool(saved)

    def _compute(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """A tree on rank zero; its numbers, or its failure, on every rank."""

        def attempt() -> dict[str, Any] | None:
            try:
                with isolated_rng(self.seed):
                    return self._examine(trainer, pl_module, epoch)
            except Exception as error:  # whatever goes wrong in a tree, it is not the training's fault
                if self.on_error == "raise":
                    raise
                rank_zero_warn(f"MergeTree failed after epoch {epoch}: {type(error).__name__}: {error}")
                return None

        scalars = on_rank_zero(trainer, attempt)
        self._treed = len(self._snapshots)
        if scalars is not None:
            self._trees += 1
            # For whoever reads the trainer's metrics; Lightning's own log() is closed once training ends.
            trainer.callback_metrics.update({key: torch.tensor(value) for key, value in scalars.items()})

    def _examine(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> dict[str, Any] | None:
        assert self._surface is not None
        assert self._log is not None
        assert self.folder is not None
        surface = self._surface = self._surface.with_module(pl_module)
        points = self._points(trainer, surface)
        if not points:
            return None
        between = self._batches_seen / max(1, len(self._snapshots))
        work = None if self.overhead is None else self.overhead * between
        with check_progress(trainer, "merge tree") as progress:
            found = search_heights(
                surface,
                points,
                self.finder,
                pairs=self.pairs,
                margin=self.margin,
                budget=Budget(work),
                progress=progress,
                record=Record(self.folder / "pairs.jsonl"),
                isolate=lambda seed: isolated_rng((self.seed + seed) % 2**32),
            )
        self.tree = tree = found.tree()
        number = self._trees + 1
        level = self._level_of(tree)
        joined = len(tree.merges) == np.isfinite(tree.losses).sum() - 1
        counts = tree.num_components(tree.levels())
        row = {
            "check": number,
            "epoch": epoch,
            "step": trainer.global_step,
            "num_points": len(points),
            "level": level if math.isfinite(level) else None,
            "num_components": tree.num_components(level) if math.isfinite(level) else 0,
            "max_components": int(counts.max()) if counts.size else 0,
            "top_merge": tree.merges[-1].height if joined and tree.merges else None,
            "gradient_steps": sum(row["gradient_steps"] for row in found.rows),
            "seconds": sum(row["seconds"] for row in found.rows),
            "tree": tree.to_dict(),
        }
        self._log.append(row)
        scalars = {f"{self._prefix}/{key}": math.nan if row[key] is None else float(row[key]) for key in METRICS}
        figure = tree.plot(f"merge tree after epoch {epoch}")
        save_figure(figure, self.folder / f"tree-{number:04d}.png")
        for logger in trainer.loggers:
            report(
                logger,
                prefix=self._prefix,
                scalars={f"{self._prefix}/check": number, **scalars},
                rows=self._log.rows,
                connection=None,
                figures={"tree": figure},
                step=trainer.global_step,
            )
        return scalars

    def _level_of(self, tree: components.MergeTree) -> float:
        finite = tree.losses[np.isfinite(tree.losses)]
        if self.level is not None or not finite.size:
            return math.nan if self.level is None else self.level
        return level_above(finite.tolist(), self.margin)

    def _points(self, trainer: pl.Trainer, surface: LossSurface) -> dict[str, Tensor]:
        assert self._store is not None
        points: dict[str, Tensor] = {}
        for name in _spread(list(self._snapshots), self.max_points):
            snapshot = self._store.open(name)
            if snapshot.content_hash != self._snapshots[name]:
                raise ValueError(f"{snapshot.path} was replaced by another run: give each run its own dirpath")
            points[name] = surface.point(snapshot.load())
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(other, LevelSetConnectivity) and other.pairs == "twin" and other.folder is not None:
                store = SnapshotStore(other.folder / "snapshots")
                twins = [f"twin-{default_name(step=row['step'], epoch=row['epoch'])}" for row in other.rows]
                for name in _spread([name for name in twins if name in store], self.max_points):
                    points[name] = surface.point(store.load(name))
        for path, state in self._references.items():
            points[path] = surface.point(state)
        return points

    def _forget(self) -> None:
        self._snapshots = {}
        self._trees = self._epochs = self._batches_seen = 0
        self._treed = 0  # snapshots there were when the last tree was computed
        self._active = False
        self.tree = None
        self._surface = self._store = self._log = None


def _spread(names: list[str], count: int) -> list[str]:
    """At most ``count`` of the names, evenly spread, with the first and the last."""
    if len(names) <= count:
        return names
    return [names[round(place)] for place in np.linspace(0, len(names) - 1, count)]
