"""What a computation on a surface costs, and how it tells how far it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

# Called now and then with what is being done and how far that is, from 0 to 1.
Progress = Callable[[str, float], None]


class WorkSpent(Exception):
    """A surface has left a computation undone, because its price exceeds what may still be spent."""


@dataclass
class Work:
    """Counted cost of what a surface has computed.

    Attributes:
        gradient_steps: forward-and-backward passes, each of one point on one batch.
        forward_passes: forward passes, each of one point on one batch.
        loss_evaluations: evaluations of E, each over all batches.
        limit: what ``total`` may come to; set by whoever keeps the budget of a search.

    Example:
        >>> work = Work(limit=1.0)
        >>> work.evaluate(points=1, passes=3)
        >>> work.total, work.loss_evaluations
        (1.0, 1)
        >>> work.step(points=1)
        Traceback (most recent call last):
        ...
        lightning_landscape.surface.work.WorkSpent: 1 steps of work more than the 1 that may be spent
    """

    gradient_steps: int = 0
    forward_passes: int = 0
    loss_evaluations: int = 0
    limit: float = math.inf

    @property
    def total(self) -> float:
        """Work in training steps: a forward pass is a third of a step."""
        return self.gradient_steps + self.forward_passes / 3

    def evaluate(self, points: int, passes: int) -> None:
        """Counts an evaluation of E at some points, each of so many forward passes, before it is made.

        Raises:
            WorkSpent: if it would exceed the limit; nothing is counted.
        """
        self._afford(points * passes / 3)
        self.forward_passes += points * passes
        self.loss_evaluations += points

    def step(self, points: int) -> None:
        """Counts a gradient at some points on one batch, before it is taken.

        Raises:
            WorkSpent: if it would exceed the limit; nothing is counted.
        """
        self._afford(points)
        self.gradient_steps += points

    def _afford(self, price: float) -> None:
        # Thirds do not add up exactly.
        over = self.total + price - self.limit
        if over > 1e-6:
            raise WorkSpent(f"{over:.6g} steps of work more than the {self.limit:.6g} that may be spent")

    def since(self, start: Work) -> Work:
        """What was added after ``start``, a copy taken earlier."""
        return Work(
            self.gradient_steps - start.gradient_steps,
            self.forward_passes - start.forward_passes,
            self.loss_evaluations - start.loss_evaluations,
        )
