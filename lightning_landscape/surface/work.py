"""What a computation on a surface costs, and how it tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Called now and then with what is being done and how far that is, from 0 to 1.
Progress = Callable[[str, float], None]


@dataclass
class Work:
    """Counted cost of what a surface has computed.

    Attributes:
        gradient_steps: forward-and-backward passes, each of one point on one batch.
        forward_passes: forward passes, each of one point on one batch.
        loss_evaluations: evaluations of E, each over all batches.
    """

    gradient_steps: int = 0
    forward_passes: int = 0
    loss_evaluations: int = 0

    @property
    def total(self) -> float:
        """Work in training steps: a forward pass is a third of a step."""
        return self.gradient_steps + self.forward_passes / 3

    def since(self, start: Work) -> Work:
        """What was added after ``start``, a copy taken earlier."""
        return Work(
            self.gradient_steps - start.gradient_steps,
            self.forward_passes - start.forward_passes,
            self.loss_evaluations - start.loss_evaluations,
        )
