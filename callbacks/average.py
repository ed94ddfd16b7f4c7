"""The average of a run's late snapshots: from the moment on from which they are linearly connected."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from rich.console import RenderableType
from rich.text import Text
from torch import Tensor

from lightning_landscape.attach.ranks import on_rank_zero
from lightning_landscape.attach.validation import validated_beside
from lightning_landscape.callbacks.base import OnError
from lightning_landscape.callbacks.searching import SearchingCallback
from lightning_landscape.finders import LinearPath
from lightning_landscape.path import Profile
from lightning_landscape.report.averages import running_conclusion
from lightning_landscape.storage.atomic import replacing
from lightning_landscape.storage.plain import plain_json
from lightning_landscape.storage.run_folders import lacking, last_step
from lightning_landscape.storage.snapshots import SnapshotError, SnapshotStore, default_name
from lightning_landscape.storage.written_checkpoint import read_checkpoint, write_checkpoint
from lightning_landscape.surface import BatchNormMode, LossFunction, LossSurface, NoiseMode
from lightning_landscape.surface.random_states import isolated_rng

_PLACES = (0.25, 0.5, 0.75)  # on the line from the average to the present weights
_BARRIER = 0.01  # of the larger end loss: up to here a line is linearly connected


class AverageWhenConnected(SearchingCallback):
    """Averages the weights of a run from the moment on from which they are linearly connected.

    At the end of every n-th epoch the present weights theta join the running average m of n snapshots,

        m <- m + (theta - m) / (n + 1),

    if on the straight line from m to theta the loss rises by at most 1% of the larger end loss, and the new average is
    no worse than theta alone. Else the average begins anew with theta: what was before lies elsewhere, or higher. So it
    finds by itself where averaging may begin, which stochastic weight averaging has to be told.

    When training ends, the average, with batch norm statistics of its own, and the last weights are evaluated by the
    module's own validation. ``average.ckpt`` lies beside the checkpoints of the run, ``average.json`` in the callback's
    folder. Logged are ``landscape/average/count``, ``loss`` and ``last_loss`` (E of the average and of the last
    weights), and the validation's metrics of the average under ``landscape/average/``.

    Training stays bit-identical: weights, logged metrics, data order and random states are those of the run
    without the callback.

    Args:
        every_n_epochs: a snapshot at the end of every n-th epoch; ``None``: of each, or none under ``every_n_steps``.
        every_n_steps: a snapshot at the end of the batch that makes every n-th optimiser step.
        num_batches: training batches that define E, drawn once; batch norm statistics are estimated on them too.
        batches: the batches themselves; ``num_batches`` is then unused.
        loss_fn: ``loss_fn(module, batch)`` returns the mean loss; ``None``: the module's ``training_step``.
        batch_norm: see :class:`~lightning_landscape.surface.LossSurface`.
        dirpath: folder of the running average; default ``landscape/average`` in the run's folder.
        name: sets apart several of these callbacks in one trainer.
        seed: of the batches and of the validation.
        on_error: ``"warn"``: what fails becomes a warning; ``"raise"``: it ends the run.
        memory: MiB of the CPU's memory for copies of batches, where the data cannot be read twice.
        vectorize: evaluate stacks of points by ``torch.func.vmap`` or one by one; ``None``: by a rule.
        noise: ``"frozen"``: a loss that draws random numbers draws the same at every point; ``"refuse"``: an error.
        buffers: names of buffers, with ``*``, that all models take from the present one: pruning masks, say.
        summary: print what the average is worth when the fit is over.

    Raises:
        ValueError: for arguments out of range.
        MisconfigurationException: when training starts, for strategies that shard weights and modules whose loss needs
            the trainer.

    Example:
        >>> callback = AverageWhenConnected(every_n_epochs=1)
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, enable_checkpointing=False)
    """

    place: ClassVar[str] = "landscape/average"
    inner: ClassVar[tuple[str, ...]] = ("running",)
    keeps: ClassVar[tuple[str, ...]] = ("running", "average.json")
    metrics: ClassVar[tuple[str, ...]] = ("count", "loss", "last_loss")

    _mean: Tensor | None  # on rank zero
    _steps: list[int]  # of the snapshots in it; on every rank, as is the next
    _saved: dict[str, str] | None  # name and content hash of the running average's file
    _pinned: str | None  # the file that the latest checkpoint names

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        num_batches: int = 16,
        batches: Sequence[Any] | None = None,
        loss_fn: LossFunction | None = None,
        batch_norm: BatchNormMode = "recalibrate",
        dirpath: str | os.PathLike[str] | None = None,
        name: str | None = None,
        seed: int = 0,
        on_error: OnError = "warn",
        memory: float = 256.0,
        vectorize: bool | None = None,
        noise: NoiseMode = "frozen",
        buffers: Sequence[str] = (),
        summary: bool = True,
    ) -> None:
        self.says = summary
        super().__init__(
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            finder=LinearPath(),
            level=None,
            margin=0.0,
            overhead=None,
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
        return self._generate_state_key(**self.rhythm, name=self.name)

    def summary(self) -> RenderableType | None:
        """What the average is worth, for printing with rich; ``None`` while training has not ended."""
        return None if self.row is None else Text(self.row["conclusion"])

    def lacking(self, trainer: pl.Trainer) -> int:
        """Two snapshots make an average."""
        return max(0, 2 - len(self._steps))

    def forget(self) -> None:
        """Nothing averaged."""
        super().forget()
        self._mean = None
        self._steps = []
        self._saved = None
        self._pinned = None
        self.row: dict[str, Any] | None = None
        self._store: SnapshotStore | None = None

    def restore(self, state: dict[str, Any]) -> None:
        """What the average is made of; the average itself is in its file."""
        super().restore(state)
        self._steps, self._saved = list(state["steps"]), state["saved"]
        self._pinned = None if self._saved is None else self._saved["name"]  # until there is a checkpoint of this run

    def holds(self, folder: Path, state: dict[str, Any]) -> bool:
        """Whether the folder has the running average of the checkpoint."""
        return state["saved"] is None or not lacking(
            SnapshotStore(folder / "running"), {state["saved"]["name"]: state["saved"]["hash"]}
        )

    def beyond(self, folder: Path, state: dict[str, Any], step: int) -> bool:
        """Whether the average of later snapshots is there."""
        return last_step(SnapshotStore(folder / "running")) > step

    def open(self, folder: Path, resumed: bool) -> None:
        """Reads the average of a run that goes on; one that is lost begins anew."""
        self._store = store = SnapshotStore(folder / "running")
        if self._saved is None:
            return
        saved = self._saved

        def read() -> Tensor:
            snapshot = store.open(saved["name"])
            if snapshot.content_hash != saved["hash"]:
                raise SnapshotError(f"{snapshot.path} holds another average than this run's")
            return snapshot.load()["theta"]

        self._mean = self.attempt(read, self.warning("the running average is lost, and begins anew", None))
        if self._mean is None:
            self._steps, self._saved = [], None

    def move(self, folder: Path, step: int) -> None:
        """The running average is linked."""
        earlier, self._store = self._store, SnapshotStore(folder / "running")
        if earlier is not None and self._saved is not None:
            self._store.adopt(earlier.open(self._saved["name"]))

    def state(self) -> dict[str, Any]:
        """The steps of its snapshots, and the file of the average."""
        return super().state() | {"steps": list(self._steps), "saved": self._saved and dict(self._saved)}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keeps, until the next checkpoint, the file that this one names."""
        if self.active:
            self._pinned = None if self._saved is None else self._saved["name"]

    def examine(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """Takes the present weights into the average, or begins anew with them."""

        def join() -> tuple[list[int], dict[str, str] | None]:
            kept = (self._steps, self._saved)
            with isolated_rng((self.seed + 7919 * trainer.global_step) % 2**32):
                return self.attempt(
                    lambda: self._join(pl_module, trainer.global_step, epoch),
                    self.warning(f"the weights of step {trainer.global_step} are not averaged", kept),
                )

        self._steps, self._saved = on_rank_zero(trainer, join, "AverageWhenConnected")

    def _join(self, pl_module: pl.LightningModule, step: int, epoch: int) -> tuple[list[int], dict[str, str]]:
        assert self._store is not None
        surface = self.present_surface(pl_module)
        theta = surface.point()
        mean, steps = theta, [step]
        if self._mean is not None and step not in self._steps:
            earlier = self._mean.to(theta)
            tried = torch.lerp(earlier, theta, 1 / (len(self._steps) + 1))
            if _may_join(surface, earlier, theta, tried):
                mean, steps = tried, [*self._steps, step]
        name = default_name(step=step, epoch=epoch)
        snapshot = self._store.save({"theta": mean}, step=step, epoch=epoch, name=name)
        self._mean = mean.cpu()
        for other in self._store.names():
            if other not in (name, self._pinned):
                self._store.delete(other)
        return steps, {"name": name, "hash": snapshot.content_hash}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluates the average and saves it."""
        if not self.active or not self._steps:
            return
        assert self.folder is not None
        beside: str | None = getattr(trainer.checkpoint_callback, "dirpath", None)
        path = Path(beside or self.folder) / f"average{'' if self.name is None else f'-{self.name}'}.ckpt"
        own = path.with_name(f".{path.name}")
        # On every rank, as Lightning asks: hyperparameters and what hooks add are those of any checkpoint of the run.
        trainer.save_checkpoint(own, weights_only=True)

        def finish() -> dict[str, Any] | None:
            try:
                with isolated_rng(self.seed):
                    return self.attempt(
                        lambda: self._finish(trainer, pl_module, path, own),
                        self.warning("the average could not be evaluated", None),
                    )
            finally:
                own.unlink(missing_ok=True)

        self.row = on_rank_zero(trainer, finish, "the end of AverageWhenConnected")
        if self.row is not None:
            self.expose(trainer, self.scalars(self.row))

    def scalars(self, row: Mapping[str, Any]) -> dict[str, float]:
        """The logged numbers of a row, those of the module's own validation among them."""
        return super().scalars(row) | {f"{self._prefix}/{name}": value for name, value in row["metrics"].items()}

    def _finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, path: Path, like: Path) -> dict[str, Any]:
        assert self._mean is not None
        assert self.folder is not None
        surface = self.present_surface(pl_module)
        theta = self._mean.to(surface.point())
        state = surface.state(theta)
        unmeasured = self.warning("the average is judged by its training loss", dict[str, float]())

        def metrics(of: Any) -> dict[str, float]:
            return self.attempt(lambda: validated_beside(trainer, pl_module, of, self.seed), unmeasured)

        row: dict[str, Any] = {
            "count": len(self._steps),
            "steps": list(self._steps),
            "step": trainer.global_step,
            "loss": surface.loss(theta),
            "last_loss": surface.loss(surface.point()),
            "metrics": metrics(state),
            "last_metrics": metrics(pl_module.state_dict()),
            "file": str(path),
        }
        row["conclusion"] = running_conclusion(row)
        notes = {key: row[key] for key in ("count", "steps", "conclusion")}
        write_checkpoint(path, state, read_checkpoint(like, own=True), version("pytorch_lightning"), notes)
        with replacing(self.folder / "average.json") as file:
            file.write(json.dumps(plain_json(row), indent=2).encode())
        self.attempt(
            lambda: self.publish(trainer, [row], len(self._steps), trainer.global_step, {}),
            self.warning("the average could not be published", None),
        )
        return row


def _may_join(surface: LossSurface, mean: Tensor, theta: Tensor, tried: Tensor) -> bool:
    """Whether the line from the average to the new weights is flat, and the new average no worse than those alone."""
    between = [torch.lerp(mean, theta, place) for place in _PLACES]
    losses = surface.losses(torch.stack([mean, *between, theta, tried])).tolist()
    line = Profile((0.0, *_PLACES, 1.0), tuple(losses[:-1]))
    if not all(map(math.isfinite, losses)):
        return False
    largest = max(abs(losses[0]), abs(losses[-2]))
    return line.barrier <= _BARRIER * largest and bool(losses[-1] <= losses[-2])
