"""What the networks of the theorems share: the squared error, its steps and their optimiser."""

from __future__ import annotations

import math

from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim import Adam, Optimizer

Batch = tuple[Tensor, Tensor]


class SquaredErrorModule(LightningModule):
    """Fits vectors by the mean squared norm ``(1/N) sum_i ||f(x_i) - y_i||^2``, summed over the outputs.

    A batch is ``(x, y)``: floats (N, num_inputs) and (N, num_outputs). Logged are ``train/loss`` at every
    step, and per epoch ``val/loss`` and ``test/loss``. A subclass brings ``forward``, and overrides
    :meth:`penalty` where the training loss has a further term; ``val/loss`` and ``test/loss`` leave it out.

    Args:
        num_inputs: coordinates of x.
        num_outputs: coordinates of y.
        learning_rate: step size of Adam, positive.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(self, num_inputs: int, num_outputs: int, learning_rate: float) -> None:
        super().__init__()
        require_counts(num_inputs=num_inputs, num_outputs=num_outputs)
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, got {learning_rate!r}")
        self.num_inputs = num_inputs
        self.num_outputs = num_outputs
        self.learning_rate = learning_rate

    def penalty(self) -> Tensor | float:
        """What the training loss adds to the squared error."""
        return 0.0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The squared error of a batch and the penalty."""
        loss = self.squared_error(batch) + self.penalty()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the squared error on a batch of the validation split."""
        self.log("val/loss", self.squared_error(batch), prog_bar=True, sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the squared error on a batch of the test split."""
        self.log("test/loss", self.squared_error(batch), sync_dist=True)

    def configure_optimizers(self) -> Optimizer:
        """Adam over all parameters."""
        return Adam(self.parameters(), self.learning_rate)

    def squared_error(self, batch: Batch) -> Tensor:
        """``(1/N) sum_i ||f(x_i) - y_i||^2``.

        Raises:
            ValueError: if x or y has another shape than the network takes.
        """
        x, y = batch
        if x.ndim != 2 or x.shape[1] != self.num_inputs or y.shape != (len(x), self.num_outputs):
            raise ValueError(
                f"a batch holds x (N, {self.num_inputs}) and y (N, {self.num_outputs}), "
                f"got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        error: Tensor = (self(x) - y).square().sum(1).mean()
        return error


def require_counts(**counts: int) -> None:
    """Raises ValueError for an argument that is not an integer of at least 1."""
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {count!r}")
