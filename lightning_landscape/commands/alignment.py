"""``--align``: the second checkpoint with its hidden units in the order of the first."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
from torch import Tensor

from lightning_landscape.alignment import weight_matching
from lightning_landscape.surface import LossSurface


def aligned(surface: LossSurface, model: pl.LightningModule, theta_a: Tensor, theta_b: Tensor) -> Tensor:
    """``theta_b`` (P,), permuted by weight matching onto ``theta_a``: the same function, another point.

    Raises:
        ValueError: if no example input is known, or the model's graph is not understood.
    """
    example = model.example_input_array
    if example is None:
        batch = next(iter(surface.batches))
        example = batch[0] if isinstance(batch, Sequence) else batch
    if not isinstance(example, Tensor):
        raise ValueError(
            f"--align traces {type(model).__name__}.forward and found no tensor to give it: set example_input_array"
        )
    return weight_matching(model, theta_a, theta_b, example)
