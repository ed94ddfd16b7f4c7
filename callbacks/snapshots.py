"""Record snapshots of the weights while a model trains."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
from lightning_fabric.utilities import rank_zero_warn
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from lightning_landscape.attach.options import check_choice, check_count
from lightning_landscape.callbacks.base import OnError
from lightning_landscape.callbacks.listing import ListingCallback
from lightning_landscape.storage.snapshots import StoredDtype, default_name


class SnapshotRecorder(ListingCallback):
    """Save the module's weights every n epochs or steps, or when a metric first passes given values.

    Freeman & Bruna (2017, Sec. 4) compare models whose training loss first fell below the same
    thresholds; ``SnapshotRecorder(monitor="train_loss", thresholds=[0.5, 0.2, 0.1])`` records those.
    Training is left bit-identical.

    Args:
        dirpath: folder of the snapshots. Default: ``snapshots`` in the folder where
            ``ModelCheckpoint`` makes its ``checkpoints``.
        every_n_epochs: save at the end of every n-th epoch.
        every_n_steps: save after every n-th optimizer step (``trainer.global_step``). Where a batch takes
            several steps, as with two optimizers, save after the batch that reaches or passes it.
        monitor: name of the logged metric to compare with ``thresholds``.
        thresholds: save when ``monitor`` first lies strictly below each of these, or above with
            ``mode="max"``. Several passed at once share one snapshot; values that are not finite pass none.
        mode: ``"min"`` or ``"max"``. With ``"min"`` the metric's value becomes the snapshot's loss.
        name: leads the file names and sets apart recorders of one trainer with equal settings.
        keep: ``"all"``: every snapshot stays on the disk; or a number: the last so many of this recorder.
        dtype: round stored weights to ``"bfloat16"`` or ``"float16"``, half the bytes; ``None``: all bits.
        on_error: ``"warn"``: a snapshot that cannot be saved, on a full disk say, becomes a warning; ``"raise"``: it
            ends the run.

    Metrics are read after each training batch, after validation, and at the ends of epochs, so values
    logged per step, per epoch and in validation all count. Reading a value that lives on an accelerator
    waits for it: while a threshold is pending, a metric logged per step costs one synchronisation a step;
    without pending thresholds there is none. The value on rank zero decides: log it with
    ``sync_dist=True`` when training on several devices.

    Raises:
        ValueError: for settings that are out of range or that would never save.
        MisconfigurationException: in ``setup``, when the strategy shards the weights or the folder is remote.

    Example:
        >>> recorder = SnapshotRecorder("snapshots", monitor="val_loss", thresholds=[0.5, 0.1])
        >>> trainer = pl.Trainer(callbacks=[recorder], logger=False, enable_checkpointing=False)
    """

    place: ClassVar[str] = "snapshots"
    _passed: dict[float, str]  # thresholds, and the name of the snapshot that each gave
    _saved_at: tuple[int, int] | None  # epoch and step of the last one
    _last_value: Tensor | None  # of the monitored metric

    def __init__(
        self,
        dirpath: str | os.PathLike[str] | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        monitor: str | None = None,
        thresholds: Sequence[float] | None = None,
        mode: str = "min",
        name: str | None = None,
        on_error: OnError = "warn",
        keep: Literal["all"] | int = "all",
        dtype: StoredDtype | None = None,
    ) -> None:
        for argument, every in (("every_n_epochs", every_n_epochs), ("every_n_steps", every_n_steps)):
            if every is not None:
                check_count(argument, every)
        if every_n_epochs is None and every_n_steps is None and thresholds is None:
            raise ValueError("nothing would be saved: give every_n_epochs, every_n_steps, or monitor with thresholds")
        if (monitor is None) != (thresholds is None):
            raise ValueError(f"monitor and thresholds go together, got monitor={monitor!r}, thresholds={thresholds!r}")
        check_choice("mode", mode, ("min", "max"))
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.monitor = monitor
        self.thresholds = () if thresholds is None else _checked_thresholds(thresholds)
        self.mode = mode
        super().__init__(keep, dtype, dirpath, name, on_error)

    @property
    def state_key(self) -> str:
        """Names this recorder's state in a checkpoint; its settings but not its folder, which may move."""
        return self._generate_state_key(
            every_n_epochs=self.every_n_epochs,
            every_n_steps=self.every_n_steps,
            monitor=self.monitor,
            thresholds=self.thresholds,
            mode=self.mode,
            name=self.name,
        )

    # Life of a fit

    def forget(self) -> None:
        """Nothing saved, no threshold passed."""
        super().forget()
        self._passed = {}
        self._saved_at = None
        self._epoch = self._last_step = 0
        self._last_value = None
        self._validated = self._epoch_ended = self._warned = False

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        super().restore(state)
        self._passed = dict(state["passed"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until training starts; a checkpoint of 0.1.0 calls the folder by another name."""
        renamed = {"folder" if key == "dirpath" else key: value for key, value in state_dict.items()}
        super().load_state_dict(renamed)

    def follow(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any] | None) -> None:
        """Counts epochs and steps from the present ones."""
        super().follow(trainer, pl_module, state)
        self._epoch, self._last_step = trainer.current_epoch, trainer.global_step

    def state(self) -> dict[str, Any]:
        """Names and hashes of what was saved, and the thresholds passed; plain data."""
        return super().state() | {"passed": [[threshold, name] for threshold, name in self._passed.items()]}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save what is due by steps or by a metric logged per step."""
        # A metric of one step is already reduced over ranks, so rank zero may look at it alone.
        if trainer.is_global_zero and self._pending:
            self._save_if_passed(trainer, pl_module)
        previous, self._last_step = self._last_step, trainer.global_step
        if self.every_n_steps and self._last_step // self.every_n_steps > previous // self.every_n_steps:
            self._save_if_new(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at metrics of the validation."""
        if self._is_training(trainer):
            self._validated = True
            self._save_if_passed(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what is due by epochs or by a metric of the epoch."""
        self._epoch_ended = True
        self._save_if_passed(trainer, pl_module)
        if self.every_n_epochs and (self._epoch + 1) % self.every_n_epochs == 0:
            self._save_if_new(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at what the module logged at the end of the last epoch, after this callback's turn."""
        self._save_if_passed(trainer, pl_module)
        self._warn_if_missing(trainer)
        self._epoch = trainer.current_epoch

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As at the start of an epoch, for the last one."""
        self._save_if_passed(trainer, pl_module)
        self._warn_if_missing(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Have a checkpoint know what its metrics passed, so that a resumed run goes on the same way."""
        if self._is_training(trainer):
            self._save_if_passed(trainer, pl_module)
            checkpoint["callbacks"][self.state_key] = self.state_dict()

    @property
    def _pending(self) -> list[float]:
        return [threshold for threshold in self.thresholds if threshold not in self._passed]

    def _save_if_passed(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.monitor is None or not self._is_training(trainer):
            return
        # Between batches every rank reads, with or without pending thresholds: it may gather over ranks.
        value = trainer.callback_metrics.get(self.monitor)
        # An epoch's value stays there through the next epoch: it is looked at once.
        if value is None or value is self._last_value or not self._pending or not trainer.is_global_zero:
            return
        self._last_value = value
        number = float(value)
        sign = 1.0 if self.mode == "min" else -1.0
        passed = [threshold for threshold in self._pending if sign * number < sign * threshold]
        if math.isfinite(number) and passed:
            name = self._file_name(trainer)
            here = [threshold for threshold, at in self._passed.items() if at == name] + passed
            metadata = {"monitor": self.monitor, "value": number, "thresholds": here}
            if self._save(trainer, pl_module, number, metadata):
                self._passed |= dict.fromkeys(passed, name)

    def _save_if_new(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if (
            self._is_training(trainer)
            and trainer.is_global_zero
            and self._saved_at != (self._epoch, trainer.global_step)
        ):
            self._save(trainer, pl_module, None, {})

    def _save(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, value: float | None, metadata: dict[str, Any]
    ) -> bool:
        loss = value if self.mode == "min" else None
        saved = self.save(trainer, pl_module, self._file_name(trainer), self._epoch, loss, metadata)
        if saved:
            self._saved_at = (self._epoch, trainer.global_step)
        return saved

    def _is_training(self, trainer: pl.Trainer) -> bool:
        return self.active and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking

    def _file_name(self, trainer: pl.Trainer) -> str:
        name = default_name(step=trainer.global_step, epoch=self._epoch)
        return name if self.name is None else f"{self.name}-{name}"

    def _warn_if_missing(self, trainer: pl.Trainer) -> None:
        looked = self._epoch_ended and (self._validated or not trainer.enable_validation)
        if self.monitor is None or self._warned or not looked or self.monitor in trainer.callback_metrics:
            return
        self._warned = True
        rank_zero_warn(
            f"SnapshotRecorder(monitor={self.monitor!r}) finds no such metric among those logged: "
            f"{', '.join(sorted(trainer.callback_metrics)) or 'none'}. Log it with self.log({self.monitor!r}, value); "
            "until then no threshold is passed."
        )


def _checked_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    given = f"thresholds must be distinct finite numbers, at least one, such as [0.5, 0.1], got {thresholds!r}"
    if isinstance(thresholds, str) or not isinstance(thresholds, Sequence) or not thresholds:
        raise ValueError(given)
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in thresholds):
        raise ValueError(given)
    values = tuple(float(value) for value in thresholds)
    if not all(map(math.isfinite, values)) or len(set(values)) < len(values):
        raise ValueError(given)
    return values
