"""Descent of several points side by side, each until it lies below a target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_landscape import LossSurface
from scripts.reproduce.freeman_bruna.task import Recipe


@dataclass(frozen=True)
class Descended:
    """Where the points came to rest.

    Attributes:
        points: (K, P).
        reached: (K,), whether the point lies below the target.
        steps: (K,), training steps that it took.
    """

    points: Tensor
    reached: Tensor
    steps: Tensor


def descend(
    surface: LossSurface,
    starts: Tensor,
    target: float,
    recipe: Recipe,
    every: int,
    max_steps: int,
    stream: Iterator[Any],
) -> Descended:
    """Trains each row of ``starts`` (K, P) as the scripts do, until E < ``target`` at a look every ``every`` steps.

    The first look comes after ``every`` steps, however low a point starts. A point whose E is not finite
    is given up. All share the batches; an optimiser that works coordinate by coordinate, as Adam and SGD do,
    treats them as if they were alone.
    """
    points = starts.clone()
    found = Descended(
        starts.clone(), torch.zeros(len(starts), dtype=torch.bool), torch.zeros(len(starts), dtype=torch.int64)
    )
    active = torch.arange(len(starts))
    optimizer = recipe.optimizer([points])
    points.grad = torch.zeros_like(points)
    for step in range(1, max_steps + 1):
        gradients = surface.gradients(points[active], next(stream))[1]
        if recipe.clip is not None:
            norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
            gradients *= (recipe.clip / norms).clamp(max=1.0)
        points.grad[active] = gradients
        optimizer.step()
        if step % every and step != max_steps:
            continue
        losses = surface.losses(points[active])
        below = (losses < target).cpu()
        found.points[active] = points[active]
        found.steps[active] = step
        found.reached[active] = below
        active = active[~below & losses.isfinite().cpu()]
        if not len(active):
            break
        points.grad.zero_()
    return found
