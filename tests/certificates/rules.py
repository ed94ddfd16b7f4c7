"""Each rule of the bound by itself: an input that bends as it is said to, and what comes out at many s."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_landscape.certificates.affine import Convolution, FrozenNorm, Linear
from lightning_landscape.certificates.chord import Chord, Deviation
from lightning_landscape.certificates.maximum import LeakyReLU, MaxPool
from lightning_landscape.certificates.operation import Operation, Piece
from lightning_landscape.certificates.rearranging import Averaging, Combination
from lightning_landscape.certificates.smooth import GELU, SIGMOID, SILU, SOFTPLUS, TANH, Smooth


def _with_names(kind: Callable[..., Operation], layer: nn.Module) -> Operation:
    return kind(layer, {name: name for name, _ in layer.named_parameters()})


def _norm() -> nn.Module:
    norm = nn.BatchNorm2d(2)
    norm.running_mean, norm.running_var = torch.tensor([0.3, -2.0]), torch.tensor([0.2, 4.0])
    return norm


IMAGE, VECTOR = (3, 2, 4, 4), (5, 6)
RULES: list[tuple[Operation, tuple[int, ...], int, dict[str, tuple[int, ...]]]] = [
    (LeakyReLU(), VECTOR, 1, {}),
    (LeakyReLU(0.3), VECTOR, 1, {}),
    (MaxPool((2, 2), (2, 2), (0, 0)), IMAGE, 1, {}),
    (MaxPool((3, 3), (2, 2), (1, 1)), IMAGE, 1, {}),
    *((Smooth(curve), VECTOR, 1, {}) for curve in (TANH, SIGMOID, SOFTPLUS, GELU, SILU)),
    (Averaging(nn.AvgPool2d(2).forward, 4), IMAGE, 1, {}),
    (Combination([1.0, -0.5], 2.0), VECTOR, 2, {}),
    (_with_names(Linear, nn.Linear(6, 2)), VECTOR, 1, {"weight": (2, 6), "bias": (2,)}),
    (_with_names(Linear, nn.Linear(1, 2)), (5, 1), 1, {"weight": (2, 1), "bias": (2,)}),
    (_with_names(Convolution, nn.Conv2d(2, 2, 1)), IMAGE, 1, {"weight": (2, 2, 1, 1), "bias": (2,)}),
    (
        _with_names(Convolution, nn.Conv2d(2, 4, 3, padding=1, groups=2)),
        IMAGE,
        1,
        {"weight": (4, 1, 3, 3), "bias": (4,)},
    ),
    (_with_names(FrozenNorm, _norm()), IMAGE, 1, {"weight": (2,), "bias": (2,)}),
]


def outside(rule: int, seed: int) -> float:
    """How far an output leaves what the rule says, at the worst s; above 0 the rule is wrong."""
    operation, shape, count, parameters = RULES[rule]
    generator = torch.Generator().manual_seed(seed)

    def draw(size: Sequence[int]) -> Tensor:
        scale = (1e-2, 1.0, 1.0, 30.0)[int(torch.randint(4, (1,), generator=generator))]
        values = scale * torch.randn(size, generator=generator, dtype=torch.float64)
        return values.round() if seed % 5 == 0 else values

    first = {name: draw(size) for name, size in parameters.items()}
    last = {name: value + draw(value.shape) for name, value in first.items()}
    largest = {name: torch.maximum(value.abs(), last[name].abs()) for name, value in first.items()}
    chords, bends = [], []
    for _ in range(count):
        start, end, middle, radius = draw(shape), draw(shape), draw(shape), draw(shape).abs()
        if seed % 3 == 0:
            middle = torch.zeros_like(middle)
        if seed % 4 == 0:
            radius = torch.zeros_like(radius)
        chords.append(Chord(start, end, Deviation(middle, radius, 0.0)))
        # An extreme value or one between.
        sides = torch.randint(-1, 2, shape, generator=generator).double()
        bends.append(middle + radius * (sides if seed % 2 else sides[:1]))
    ends = [
        operation.value([getattr(chord, side) for chord in chords], point)
        for side, point in (("start", first), ("end", last))
    ]
    middle, radius, slack = operation.deviation(chords, ends[0], ends[1], Piece(first, last, largest))
    worst = -torch.inf
    for s in torch.linspace(0, 1, 41, dtype=torch.float64)[1:-1]:
        point = {name: value * (1 - s) + last[name] * s for name, value in first.items()}
        weight = s * (1 - s)
        inputs = [
            chord.start * (1 - s) + chord.end * s + weight * bend for chord, bend in zip(chords, bends, strict=True)
        ]
        off = operation.value(inputs, point) - ends[0] * (1 - s) - ends[1] * s - weight * _or_zero(middle)
        worst = max(worst, float((off.abs() - weight * _or_zero(radius)).max()) - slack)
    return worst


def _or_zero(value: Tensor | None) -> Any:
    return 0.0 if value is None else value
