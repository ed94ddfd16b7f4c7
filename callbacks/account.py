"""What training has earned for a callback's own work, and what of it is spent."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_info

from lightning_landscape.attach.plan import Plan
from lightning_landscape.finders import Budget, PathFinder
from lightning_landscape.surface import LossSurface

_PLAIN = 16  # evaluations of E that are allowed where nothing waits, the comparison of a state's buffers included


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
        self._told = False
        self._latest = 0.0

    @property
    def earned(self) -> float:
        """What training has paid for and is not spent; infinite without a limit."""
        return math.inf if self.overhead is None else self.overhead * self.batches - self.spent

    def budget(self, already: float = 0.0, max_seconds: float | None = None) -> Budget:
        """What may be spent now, less what was computed ``already``."""
        limit = max(self.earned, self.minimum) - already
        return Budget(None if self.overhead is None else max(0.0, limit), max_seconds)

    def of_each(self, count: int) -> Budget:
        """What each of so many searches may spend, of all that training has earned."""
        return Budget(None if self.overhead is None else self.overhead * self.batches / max(1, count))

    def prepare(self, surface: LossSurface) -> None:
        """Pays for the making of the surface, once: a resumed run makes it again, and has to go on alike."""
        if not self._prepared:
            self._prepared = True
            self.spent += surface.preparation.total

    def spend(self, work: float) -> None:
        """Pays for the present check."""
        self._latest = work
        self.spent += work

    def waits(self, trainer: pl.Trainer, module: pl.LightningModule, finder: PathFinder, surface: LossSurface) -> bool:
        """Whether a check has to wait until training has paid for a straight line.

        Where the whole run does not earn one, none waits: each may verify a line that is plainly below or above the
        level, its ``minimum``. Which of the two it is, and what the first check takes, is said before it starts.
        """
        self.minimum = self._latest = 0.0
        if self.overhead is None:
            return False
        # The line, and what it may take to see whether E of the partner is the partner's own loss.
        price = finder.least_work(surface) + 2 * surface.evaluation_passes / 3
        least = f"at least {price:.0f} training steps of work, for the straight line"
        if self.earned >= price:
            self._tell(
                f"the first check takes {least}, and at most the {self.earned:.0f} that overhead={self.overhead} of "
                f"{self.batches} batches has earned"
            )
            return False
        planned = self._planned(trainer, module)
        if self.overhead * planned >= surface.preparation.total + price:
            self._tell(
                f"a check takes {least}: overhead={self.overhead} has earned the first after "
                f"{math.ceil((self.spent + price) / self.overhead)} batches of training; those before wait"
            )
            return True
        self.minimum = _PLAIN * surface.evaluation_passes / 3
        self._tell(
            f"a check takes {least}, which overhead={self.overhead} of {planned:g} batches does not earn: each may "
            f"take {self.minimum:.0f} and exceeds it; pass a larger overhead or fewer num_batches, or train longer"
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
