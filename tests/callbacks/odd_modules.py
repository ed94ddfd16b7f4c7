"""Modules that change what others leave alone: their batch, a teacher, an attribute."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.callbacks.foreign_modules import Plain


class Halving(Plain):
    """A step that changes its batch: scales it in place, and takes the labels out."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step([batch[0].mul_(0.5), batch.pop()], batch_idx)


class Doubles(Plain):
    """Numbers of 64 bits in a trainer of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.layer.double()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step([batch[0].double(), batch[1]], batch_idx)


class Taught(Plain):
    """A teacher whose weights are moving averages of the student's."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(self.layer).requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + F.mse_loss(self.layer(batch[0]), self.teacher(batch[0]))

    def on_train_batch_end(self, *args: Any) -> None:
        with torch.no_grad():
            for mine, other in zip(self.teacher.parameters(), self.layer.parameters(), strict=True):
                mine.lerp_(other, 0.1)


class Scaled(Plain):
    """A running scale that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * float(batch[0].abs().max())
        return super().training_step([batch[0] / self.scale, batch[1]], batch_idx)


class Nested(Plain):
    """Batches of loaders in a dict of lists."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return sum(super(Nested, self).training_step(part, batch_idx) for parts in batch.values() for part in parts)
