"""What all networks that detect communities share: loss, metrics and optimiser."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Adam, Adamax, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_landscape.community import CommunityGraph
from lightning_landscape.community.permutation_loss import permutation_cross_entropy
from lightning_landscape.metrics.overlap import Overlap


class CommunityClassifier(LightningModule):
    """Trains a network's ``forward``, from a batch of graphs to logits (N, k), to name the community of each node.

    The loss is the cross-entropy under the best permutation of the k names, averaged over graphs. Logged are
    ``train/loss`` at every step, and per epoch ``val/loss`` and ``val/overlap`` with, beside it, ``val/chance``, the
    overlap of uniform guessing; the same with ``test``.

    ``training_step`` keeps no state, and no network here has statistics of past batches or dropout: training mode and
    evaluation mode are one.

    Args:
        num_classes: k, the number of communities, at least 2.
        learning_rate: step size of the optimiser, positive.
        optimizer: ``"adamax"`` or ``"adam"``.
        decay: share of the training, at its end, over which the learning rate falls linearly to 0; in [0, 1].
            Training without an end keeps the rate.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self, num_classes: int, learning_rate: float, optimizer: Literal["adamax", "adam"], decay: float
    ) -> None:
        super().__init__()
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, got {learning_rate!r}")
        if optimizer not in ("adamax", "adam"):
            raise ValueError(f"optimizer must be 'adamax' or 'adam', got {optimizer!r}")
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must lie in [0, 1], a share of the training, got {decay!r}")
        self.num_classes = num_classes
        self.learning_rate = learning_rate
        self.optimizer_name = optimizer
        self.decay = decay
        self.val_overlap = Overlap(num_classes)
        self.test_overlap = Overlap(num_classes)

    def training_step(self, batch: CommunityGraph, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss, _ = self._evaluate(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=_graphs(batch))
        return loss

    def validation_step(self, batch: CommunityGraph, batch_idx: int) -> None:
        """Log loss and overlap of a batch of the validation set."""
        self._log_evaluation("val", batch, self.val_overlap)

    def test_step(self, batch: CommunityGraph, batch_idx: int) -> None:
        """Log loss and overlap of a batch of the test set."""
        self._log_evaluation("test", batch, self.test_overlap)

    def on_validation_epoch_end(self) -> None:
        """Log what guessing scores on the same graphs."""
        self.log("val/chance", self.val_overlap.chance(), sync_dist=True)

    def on_test_epoch_end(self) -> None:
        """Log what guessing scores on the same graphs."""
        self.log("test/chance", self.test_overlap.chance(), sync_dist=True)

    def configure_optimizers(self) -> Optimizer | OptimizerLRSchedulerConfig:
        """Adamax or Adam over all parameters, with a rate that falls at the end."""
        kind = Adam if self.optimizer_name == "adam" else Adamax
        optimizer = kind(self.parameters(), self.learning_rate)
        if self.decay == 0:
            return optimizer
        steps, decay = self.trainer.estimated_stepping_batches, self.decay

        def factor(step: int) -> float:
            return max(0.0, min(1.0, (1 - step / steps) / decay))

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}

    def _log_evaluation(self, stage: str, batch: CommunityGraph, metric: Overlap) -> None:
        loss, logits = self._evaluate(batch)
        metric.update(logits, batch.y, getattr(batch, "batch", None))
        self.log(f"{stage}/loss", loss, batch_size=_graphs(batch), sync_dist=True)
        self.log(f"{stage}/overlap", metric, prog_bar=True, on_step=False, on_epoch=True, batch_size=_graphs(batch))

    def _evaluate(self, batch: CommunityGraph) -> tuple[Tensor, Tensor]:
        if getattr(batch, "y", None) is None:
            raise ValueError("the graphs have no communities to learn from: give community_graph(..., y=labels)")
        logits: Tensor = self(batch)
        # Under mixed precision the sum over nodes needs more digits than a logit.
        log_probabilities = logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
        loss = permutation_cross_entropy(log_probabilities, batch.y, getattr(batch, "batch", None), _graphs(batch))
        return loss, logits


def _graphs(batch: CommunityGraph) -> int:
    return int(getattr(batch, "num_graphs", 1))
