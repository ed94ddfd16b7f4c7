"""What training has earned for a callback's own work, and what of it is spent."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_info

from lightning_landscape.attach.plan import Plan
from lightning_landscape.finders import Budget, PathFinder
from lightning_landscape.surface import LossSurface

_SHORT = 400  # batches; a run of fewer is over before checks that wait would come
_PLAIN = 16  # evaluations of E that a check may take in a run too short for any: enough where the line decides


class Account:
    """Work in training steps, of which a forward pass is a third: each batch of training earns a share of one.

    Args:
        overhead: that share; ``None``: no limit.

    Attributes:
        batches: trained on so far.
        spent: work so far; on rank zero.
        minimum: what the present check is allowed though it is not earned.

    Example:
        >>> account = Account(0.25)
        >>> account.batches = 100
        >>> account.spend(5.0)
        >>> account.earned, account.budget(already=8.0).work, account.row()["overhead"]
        (20.0, 12.0, 0.05)
    """

    def __init__(self, overhead: float | None) -> None:
        self.overhead = overhead
        self.batches = 0
        self.spent = 0.0
        self.minimum = 0.0
        self._prepared = False
        self._start = 0.0
        self._told = False
        self._latest = 0.0

    @property
    def total(self) -> float:
        """What training has paid for so far; infinite without a limit."""
        return math.inf if self.overhead is None else self.overhead * self.batches

    @property
    def earned(self) -> float:
        """What of it is not spent."""
        return self.total - self.spent

    def budget(self, already: float = 0.0, max_seconds: float | None = None) -> Budget:
        """What may be spent now, less what was computed ``already``."""
        limit = max(self.earned, self.minimum) - already
        return Budget(None if self.overhead is None else max(0.0, limit), max_seconds)

    def prepare(self, surface: LossSurface) -> None:
        """Pays for the making of the surface, once: a resumed run makes it again, and has to go on alike."""
        self._start = surface.preparation.total
        if not self._prepared:
            self._prepared = True
            self.spent += self._start

    def spend(self, work: float) -> None:
        """Pays for the present check."""
        self._latest = work
        self.spent += work

    def waits_for_line(
        self, trainer: pl.Trainer, module: pl.LightningModule, finder: PathFinder, surface: LossSurface
    ) -> bool:
        """Whether a check has to wait until training has paid for the straight line; see :meth:`waits`."""
        each = surface.evaluation_passes / 3
        # The line, and what it may take to see whether E of the partner is the partner's own loss.
        price = finder.least_work(surface) + 2 * each
        return self.waits(trainer, module, price, _PLAIN * each, ("check", "the straight line"))

    def waits(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        price: float,
        least: float,
        what: tuple[str, str],
        last: bool = False,
    ) -> bool:
        """Whether a check has to wait until training has paid for the least that it measures.

        In a run of fewer than 400 batches none waits, and in one that never earns that price the first does not: it may
        spend its ``minimum`` though it is not earned. Which it is, and what the first check takes, is said before.

        Args:
            trainer: says how long the run is.
            module: says with it which batches there are.
            price: of the least, in training steps.
            least: the ``minimum`` where the run is too short.
            what: what waits, and what it measures for that price: ``("check", "the straight line")``.
            last: whether the run is over, so that nothing more will be earned.
        """
        self.minimum = self._latest = 0.0
        if self.overhead is None:
            return False
        takes = f"at least {price:.0f} training steps of work, for {what[1]}"
        if self.earned >= price:
            self._tell(
                f"the first {what[0]} takes {takes}, and at most the {self.earned:.0f} that overhead={self.overhead} "
                f"of {self.batches} batches has earned"
            )
            return False
        planned = self.batches if last else self._planned(trainer, module)
        pays = self.overhead * planned >= self._start + price
        # In a long run that never pays, one check comes all the same.
        if not last and planned >= _SHORT and (pays or self.spent > self._start):
            needed = math.ceil((self.spent + price) / self.overhead) if self.overhead else math.inf
            self._tell(
                f"a {what[0]} takes {takes}: overhead={self.overhead} has earned the first after {needed} batches of "
                "training; those before wait"
            )
            return True
        self.minimum = least
        self._tell(
            f"a {what[0]} takes {takes}, and {planned:g} batches of training are too few to wait for it: each may take "
            f"{least:.0f} whatever overhead={self.overhead} has earned; pass fewer num_batches, or train longer"
        )
        return False

    def row(self) -> dict[str, float | None]:
        """What a row says of the present check: its work, how much of it was not earned, and the share spent so far."""
        return {
            "spent": self._latest,
            "minimum": self.minimum,
            "overhead": self.spent / self.batches if self.batches else None,
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep."""
        return {"batches": self.batches, "spent": self.spent, "prepared": self._prepared}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from :meth:`state`; checkpoints of 0.1 have the batches since the last check alone."""
        self.batches, self.spent = state["batches"], state.get("spent", 0.0)
        self._prepared = state.get("prepared", True)

    def _planned(self, trainer: pl.Trainer, module: pl.LightningModule) -> float:
        """The batches that the run will train on; a stream without a length goes on as it did so far."""
        plan = Plan.of(trainer, module)
        if plan.endless or math.isinf(plan.epochs):
            return plan.steps
        if math.isinf(trainer.num_training_batches):
            return min(plan.epochs * self.batches / (trainer.current_epoch + 1), plan.steps)
        return plan.epochs * trainer.num_training_batches

    def _tell(self, estimate: str) -> None:
        if not self._told:
            self._told = True
            rank_zero_info(f"landscape: {estimate}")
