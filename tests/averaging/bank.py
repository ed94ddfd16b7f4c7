"""Pairs of models whose relation is known from how they were made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from lightning_landscape import LossSurface
from lightning_landscape.alignment.permuted import permuted_copy

Batch = tuple[Tensor, Tensor]


def cross_entropy(module: nn.Module, batch: Batch) -> Tensor:
    return functional.cross_entropy(module(batch[0]), batch[1])


@cache
def batches() -> list[Batch]:
    digits = load_digits()
    x, y = torch.tensor(digits.data[:512] / 16).float(), torch.tensor(digits.target[:512])
    return list(zip(x.split(128), y.split(128), strict=True))


def net(kind: str = "relu") -> nn.Sequential:
    if kind == "linear":
        return nn.Sequential(nn.Linear(64, 10))
    middle = {"relu": [nn.ReLU()], "tanh": [nn.Tanh()], "norm": [nn.BatchNorm1d(16), nn.ReLU()]}[kind]
    return nn.Sequential(nn.Linear(64, 16), *middle, nn.Linear(16, 10))


@cache
def trained(kind: str = "relu", seed: int = 1, steps: int = 200, order: int = 0, start: int = 0) -> dict[str, Tensor]:
    """A state after ``steps`` steps of Adam; ``order`` is another order of the data from step ``start`` on."""
    torch.manual_seed(seed)
    module = net(kind)
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        if step == start and order:
            generator.manual_seed(order)
        x, y = batches()[int(torch.randint(4, (), generator=generator))]
        rows = torch.randint(len(x), (64,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(module, (x[rows], y[rows])).backward()
        optimizer.step()
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def changed(state: dict[str, Tensor], **tensors: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """A state with some tensors changed; a name has _ for its dot."""
    return {name: tensors.get(f"_{name.replace('.', '_')}", lambda t: t)(value) for name, value in state.items()}


def first_layer(state: dict[str, Tensor], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    return changed(state, _0_weight=change, _0_bias=change)


def filled(state: dict[str, Tensor], value: float) -> dict[str, Tensor]:
    return changed(state, _0_weight=lambda t: torch.full_like(t, value))


@dataclass(frozen=True)
class Pair:
    """Two models and what is known of them.

    Attributes:
        make: the two states.
        begins: how the advice may begin; empty where nothing but the numbers decides.
        words: words one of which the conclusion has.
        kind: of the network.
        align: whether the second is permuted onto the first.
        options: of the search.
    """

    make: Callable[[], tuple[dict[str, Tensor], dict[str, Tensor]]]
    begins: tuple[str, ...]
    words: tuple[str, ...]
    kind: str = "relu"
    align: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def points(self) -> tuple[LossSurface, Tensor, Tensor]:
        surface = LossSurface(net(self.kind), batches(), loss_fn=cross_entropy)
        a, b = (surface.point(state) for state in self.make())
        return surface, a, permuted_copy(surface, a, b) if self.align else b


LINEAR, CURVED = ("linearly connected",), ("connected by a curve", "undecided")
YES, NO, SAME = ("You may average",), ("Do not average",), ("Nothing to average",)
PERMUTATION = torch.randperm(16, generator=torch.Generator().manual_seed(3))


def permuted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return changed(first_layer(state, lambda t: t[PERMUTATION]), _2_weight=lambda t: t[:, PERMUTATION])


def rescaled(state: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    return changed(first_layer(state, lambda t: factor * t), _2_weight=lambda t: t / factor)


def other_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return changed(state, _2_weight=lambda t: t.roll(1, 0), _2_bias=lambda t: t.roll(1, 0))


def noisy(state: dict[str, Tensor], size: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {name: value + size * torch.randn(value.shape, generator=generator) for name, value in state.items()}


BANK = {
    "one point": Pair(lambda: (trained(), trained()), SAME, LINEAR),
    "late snapshots": Pair(lambda: (trained(steps=190), trained()), YES, LINEAR),
    "late snapshots, level below both": Pair(
        lambda: (trained(steps=190), trained()), YES, ("undecided (level below an end)",), options={"level": 1e-4}
    ),
    "fine-tuned twice from one start": Pair(
        lambda: (trained(order=7, start=170), trained(order=8, start=170)), YES, LINEAR
    ),
    "noise far below the scale of the weights": Pair(lambda: (trained(), noisy(trained(), 1e-3)), YES, LINEAR),
    "two seeds": Pair(lambda: (trained(), trained(seed=2)), NO, CURVED),
    "two seeds without a budget": Pair(
        lambda: (trained(), trained(seed=2)), NO, ("undecided (budget)",), options={"budget": 1e-6}
    ),
    "two seeds, tanh": Pair(lambda: (trained("tanh"), trained("tanh", seed=2)), NO, CURVED, "tanh"),
    "two seeds, batch norm": Pair(lambda: (trained("norm"), trained("norm", seed=2)), NO, CURVED, "norm"),
    "late snapshots, batch norm": Pair(lambda: (trained("norm", steps=190), trained("norm")), YES, LINEAR, "norm"),
    "two seeds, convex": Pair(lambda: (trained("linear"), trained("linear", seed=2)), YES, LINEAR, "linear"),
    "permuted copy": Pair(lambda: (trained(), permuted(trained())), NO, CURVED),
    "permuted copy, aligned": Pair(lambda: (trained(), permuted(trained())), SAME, LINEAR, align=True),
    "permuted late snapshot, aligned": Pair(lambda: (trained(), permuted(trained(steps=190))), YES, LINEAR, align=True),
    "rescaled copy, a little": Pair(lambda: (trained(), rescaled(trained(), 1.001)), YES, LINEAR),
    "rescaled copy, much": Pair(lambda: (trained(), rescaled(trained(), 1000.0)), NO, CURVED),
    "rescaled in front of batch norm": Pair(
        lambda: (trained("norm"), first_layer(trained("norm"), lambda t: 3 * t)), YES, LINEAR, "norm"
    ),
    "signs turned, tanh": Pair(
        lambda: (
            trained("tanh"),
            changed(first_layer(trained("tanh"), torch.neg), _2_weight=torch.neg),
        ),
        NO,
        CURVED,
        "tanh",
    ),
    "under-trained": Pair(lambda: (trained(), trained(steps=5)), NO, (*LINEAR, *CURVED)),
    "untrained": Pair(lambda: (trained(steps=0), trained()), NO, (*LINEAR, *CURVED)),
    "head of another task": Pair(lambda: (trained(), other_head(trained())), NO, (*LINEAR, *CURVED)),
    "NaN": Pair(lambda: (trained(), filled(trained(), float("nan"))), NO, ("undecided (diverged)",)),
    "infinite": Pair(lambda: (filled(trained(), float("inf")), trained()), NO, ("undecided (diverged)",)),
    "NaN on both sides": Pair(
        lambda: (filled(trained(), float("nan")), filled(trained(), float("nan"))), NO, ("undecided (diverged)",)
    ),
}
