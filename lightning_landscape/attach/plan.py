"""How long a run will be, as far as its trainer tells when training starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytorch_lightning as pl

from lightning_landscape.attach.probe import accumulations


@dataclass(frozen=True)
class Plan:
    """The most epochs and optimiser steps that a run can have; infinite where nothing limits them.

    Attributes:
        epochs: epochs that can end.
        steps: values that ``trainer.global_step`` can reach.
        endless: whether the data have no length and ``max_epochs`` is not set: ``epochs`` is then 1, the epoch that
            an endless stream ends with the run.

    Example:
        >>> Plan(9, 90, False).epochs_short(5, 0, 2, False)
        'every_n_epochs=5 comes 1 times in 9 epochs; 2 are needed: set every_n_epochs=4 or every_n_steps=45, or less'
        >>> Plan(9, 90, False).epochs_short(4, 0, 2, False) is None
        True
    """

    epochs: float
    steps: float
    endless: bool

    @classmethod
    def of(cls, trainer: pl.Trainer, module: pl.LightningModule) -> Plan:
        """The plan of a trainer whose fit has begun."""
        epochs = _limit(trainer.max_epochs)
        steps = _limit(trainer.max_steps)
        batches = trainer.num_training_batches
        if math.isinf(batches):
            endless = math.isinf(epochs)
            return cls(1 if endless else epochs, steps, endless)
        if module.automatic_optimization:  # by hand, a batch may make any number of steps
            factors = accumulations(trainer)
            epochs = min(epochs, _ceiling(steps / math.ceil(batches / max(factors))))
            steps = min(steps, epochs * math.ceil(batches / min(factors)))
        return cls(epochs, steps, False)

    def epochs_short(self, every: int, start: int, needed: int, end_too: bool) -> str | None:
        """What is wrong and what to set, if from epoch ``start`` on ``every`` comes less often than ``needed``.

        Args:
            every: n of every n-th epoch.
            start: epochs that have ended.
            needed: how often it has to come.
            end_too: whether the end of the run counts, whenever it is.
        """
        span = f"{self.epochs:g} epochs"
        if self.endless:
            span = "the run if its data are endless, for they have no length and max_epochs is not set"
        return self._short("every_n_epochs", every, start, self.epochs, span, needed, end_too)

    def steps_short(self, every: int, start: int, needed: int, end_too: bool) -> str | None:
        """The same of every n-th step."""
        return self._short("every_n_steps", every, start, self.steps, f"{self.steps:g} steps", needed, end_too)

    def _short(
        self, name: str, every: int, start: int, end: float, span: str, needed: int, end_too: bool
    ) -> str | None:
        if math.isinf(end):
            return None
        count = int(end) // every - start // every + (1 if end_too and end % every else 0)
        if count >= needed:
            return None
        spans = {"every_n_epochs": self.epochs, "every_n_steps": self.steps}
        most = {key: int(value) // needed for key, value in spans.items() if math.isfinite(value) and value >= needed}
        advice = (
            f"set {' or '.join(f'{key}={value}' for key, value in most.items())}, or less" if most else "train longer"
        )
        return f"{name}={every} comes {max(0, count)} times in {span}; {needed} are needed: {advice}"


def _limit(value: int | None) -> float:
    return math.inf if value is None or value < 0 else value


def _ceiling(value: float) -> float:
    return math.ceil(value) if math.isfinite(value) else value
