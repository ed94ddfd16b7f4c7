"""Adam whose steps are long only where gradients are large: for points of paths, which should not stray."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_STEP = 0.04  # as a share of the root mean square difference of a coordinate


class TemperedAdam(Optimizer):
    """Adam that divides by ``sqrt((v + mean(v)) / 2)`` instead of ``sqrt(v)``, v being the mean square gradients.

    Adam moves all coordinates by steps of like size, those too in which the loss is flat; a path that is trained so
    comes out longer than it need be. Here a coordinate with small gradients moves less. Curves between networks came
    below the level in as many steps, and were shorter (docs/results/finders.md).

    Args:
        points: tensors to move, as of any optimiser.
        lr: length of a step in a coordinate of typical gradient.
        betas: decay rates of the running means of gradients and of their squares.

    Example:
        >>> point = torch.ones(2)
        >>> point.grad = torch.tensor([1.0, 0.0])
        >>> TemperedAdam([point], lr=0.1).step()
        >>> point.tolist()  # 1 - 0.1 / sqrt(0.75)
        [0.8845299482345581, 1.0]
    """

    def __init__(self, points: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        super().__init__(points, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Moves every point that has a gradient, after the closure, if any, has computed them."""
        value = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            first, second = group["betas"]
            for point in group["params"]:
                if point.grad is None:
                    continue
                state = self.state[point]
                if not state:
                    state.update(steps=0, mean=torch.zeros_like(point), square=torch.zeros_like(point))
                state["steps"] += 1
                mean, square = state["mean"], state["square"]
                mean.lerp_(point.grad, 1 - first)
                square.lerp_(point.grad.square(), 1 - second)
                tempered = (square + square.mean()).div_(2 * (1 - second ** state["steps"])).sqrt_()
                tempered.clamp_(min=torch.finfo(point.dtype).tiny)
                point.addcdiv_(mean, tempered, value=-group["lr"] / (1 - first ** state["steps"]))
        return value


def relative_tempered_adam(length: float, dimension: int) -> TemperedAdamFactory:
    """Tempered Adam with steps of 0.04 times the root mean square coordinate difference of two points.

    Args:
        length: distance of the points.
        dimension: P, the number of coordinates.

    Example:
        >>> round(relative_tempered_adam(length=6.0, dimension=9)([torch.zeros(9)]).param_groups[0]["lr"], 12)
        0.08
    """
    return lambda points: TemperedAdam(points, lr=_STEP * (length / math.sqrt(dimension)))


TemperedAdamFactory = Callable[[Iterable[Tensor]], TemperedAdam]
