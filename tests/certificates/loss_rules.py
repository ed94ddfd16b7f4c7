"""The rules of the losses by themselves: outputs that bend as they are said to, in the direction that hurts most."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from lightning_landscape.certificates import along_paths
from lightning_landscape.certificates.affine import Linear
from lightning_landscape.certificates.chord import Chord, Deviation
from lightning_landscape.certificates.losses import ConvexLoss, CrossEntropy, SquaredError
from lightning_landscape.certificates.maximum import LeakyReLU
from lightning_landscape.certificates.network import Step
from lightning_landscape.certificates.operation import Piece


def loss_outside(seed: int) -> float:
    """How far a loss lies above its bound, at the worst s; above 0 the rule is wrong."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Any:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    examples, features, classes = 1 + seed % 2, 3, 2 + seed % 3
    linear = seed % 4 < 2
    weight = {"weight": draw(classes, features)}
    last = {"weight": weight["weight"] + draw(classes, features) * (seed % 5 == 0)}
    still = bool(seed % 3)
    width = features if linear else classes
    start, middle, radius = draw(examples, width), draw(examples, width) * 0.1, draw(examples, width).abs() * (seed % 7)
    chord = Chord(start, start.clone() if still else start + draw(examples, width), Deviation(middle, radius, 0.0))
    labels = torch.randint(classes, (examples,), generator=generator)
    loss: ConvexLoss = [CrossEntropy(), CrossEntropy(0.2, draw(classes).abs()), SquaredError()][seed % 11 % 3]
    targets = draw(examples, classes) if isinstance(loss, SquaredError) else labels
    piece = Piece(weight, last, weight)
    operation = Linear(nn.Linear(features, classes, bias=False), {"weight": "weight"})
    rise = draw(classes).sign()
    if linear:
        ends = [operation.value([h], point) for h, point in ((chord.start, weight), (chord.end, last))]
        chords = [chord, Chord(ends[0], ends[1], operation.deviation([chord], ends[0], ends[1], piece))]
        # Towards one wrong label, or some outputs.
        to = weight["weight"][(labels + 1) % classes] - weight["weight"][labels]
        sides = (rise @ weight["weight"]).sign().expand(examples, -1) if seed % 2 else to.sign()
    else:
        chords = [chord, chord]
        sides = rise.expand(examples, -1) if seed % 2 else 1.0 - 2.0 * nn.functional.one_hot(labels, classes)
    network: Any = SimpleNamespace(steps=[Step(operation if linear else LeakyReLU(), (0,), False)])
    shares = loss.shares(targets)
    excess = loss.excess(network, chords, piece, targets, shares)
    gain = max(excess.bent_start - excess.start, excess.bent_end - excess.end, 0.0)
    worst = -torch.inf
    for s in torch.linspace(0, 1, 41, dtype=torch.float64):
        h = chord.start * (1 - s) + chord.end * s + s * (1 - s) * (middle + radius * sides)
        point = {"weight": weight["weight"] * (1 - s) + last["weight"] * s}
        found = loss.mean(operation.value([h], point) if linear else h, targets)
        bound = (1 - s) * excess.start + s * excess.end + 4 * s * (1 - s) * gain + excess.slack
        worst = max(worst, float(found - bound), float(found) - along_paths.bound_of(excess))
    return worst
