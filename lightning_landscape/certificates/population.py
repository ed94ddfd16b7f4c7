"""A bound of the expected loss on a whole path, from a sample that the path does not depend on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lightning_landscape.certificates.along_paths import Line
from lightning_landscape.certificates.losses import Bent, ConvexLoss
from lightning_landscape.certificates.recognise import Problem, examples_of, recognise
from lightning_landscape.connection import Connection
from lightning_landscape.path import Path
from lightning_landscape.surface import LossSurface


@dataclass(frozen=True)
class PopulationBound:
    """With this confidence, the expected clipped loss is at most ``height`` at every point of the path.

    Attributes:
        height: the bound; ``clip`` where the sample proves nothing.
        confidence: probability, over the draw of the sample, that the statement is true.
        clip: c of the clipped loss ``min(loss, c)``.
        examples: size of the sample.
        pieces: pieces of the path, each of which has a bound of its own.
        mean: largest mean of the sample over the pieces; what ``height`` is above it is the price of the confidence.
    """

    height: float
    confidence: float
    clip: float
    examples: int
    pieces: int
    mean: float


def population_bound(
    surface: LossSurface,
    path: Path | Connection,
    sample: Iterable[Any],
    *,
    clip: float,
    confidence: float = 0.95,
    pieces: int = 64,
    loss: ConvexLoss | None = None,
) -> PopulationBound:
    """Bounds the expected loss on a whole path, with a confidence.

    On each piece of the path the proof of :func:`certify` gives each example a number in [0, clip] that its clipped
    loss does not exceed anywhere on the piece. The sample's mean of these numbers, with the empirical Bernstein term,
    bounds their expectation, and so that of the clipped loss at every point (docs/certificates.md).

    Args:
        surface: a loss surface of the network, whose own examples tell which loss it is.
        path: the path. Neither it nor ``clip`` and ``pieces`` may have been chosen by looking at the sample.
        sample: batches ``(inputs, targets)`` of independent draws from the population.
        clip: c > 0. The claim is about min(loss, c); for a loss that never exceeds c it is about the loss.
        confidence: in (0, 1).
        pieces: at least so many pieces, evenly spread over the path.
        loss: as for :func:`certify`.

    Raises:
        UnsupportedError: a ``ValueError``, for a network or a loss without a rule.
        ValueError: for fewer than two examples, or a number out of range.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(1, 1))
        >>> batch = torch.zeros(500, 1), torch.zeros(500, 1)
        >>> surface = LossSurface(net, [batch], loss_fn=lambda m, b: nn.functional.mse_loss(m(b[0]), b[1]))
        >>> line = Path(torch.tensor([[0.0, 0.0], [1.0, 0.5]]))  # from a loss of 0 to one of 1/4
        >>> bound = population_bound(surface, line, [batch], clip=1.0)
        >>> round(bound.mean, 3), round(bound.height, 3)
        (0.25, 0.287)
    """
    if not 0 < clip < math.inf or not 0 < confidence < 1 or pieces < 1:
        raise ValueError(
            "clip must be positive and finite, confidence lie in (0, 1) and pieces be at least 1, got "
            f"clip={clip}, confidence={confidence}, pieces={pieces}"
        )
    if isinstance(path, Connection):
        if path.path is None:
            raise ValueError("the connection has no path, as it was read from a row: give the path itself")
        path = path.path
    beads = path.beads.to(surface.point())
    read = recognise(surface, beads, loss)
    problem = read._replace(parts=examples_of(surface, sample, read))
    count = sum(len(part.inputs) for part in problem.parts)
    if count < 2:
        raise ValueError(f"the sample has {count} examples: a bound needs two at least")
    lengths = [end - start for start, end in pairwise(path.knots.tolist())]
    parts = [max(1, math.ceil(pieces * length)) for length in lengths]
    total = sum(parts)
    bounds, means = [], []
    for (first, last), number in zip(pairwise(beads), parts, strict=True):
        line = Line(surface, problem, first, last)
        here = line.start
        for step in range(1, number + 1):
            there = line.at(step / number)
            largest = torch.cat(
                [
                    _largest(part, clip, scale)
                    for part, scale in zip(line.each(here, there), _scales(problem), strict=True)
                ]
            )
            bounds.append(_bernstein(largest, clip, (1 - confidence) / total))
            means.append(float(largest.mean()))
            here = there
    return PopulationBound(min(clip, max(bounds)), confidence, clip, count, total, max(means))


def _scales(problem: Problem) -> list[float]:
    """What the loss of an example is of the number that the rules bound."""
    return [float(problem.loss.shares(part.targets)[0]) * len(part.targets) for part in problem.parts]


def _largest(bent: Bent, clip: float, scale: float) -> Tensor:
    """For each example the largest value of its bound on a piece, clipped; the clip where there is none."""
    start, end, bent_start, bent_end, slack = bent
    gain = 4 * torch.maximum(bent_start - start, bent_end - end).clamp_min(0.0)
    tilt = (end - start).abs()
    inside = (start + end) / 2 + gain / 4 + tilt.square() / (4 * gain)
    largest = torch.where(gain > tilt, inside, torch.maximum(start, end)) + slack
    return torch.nan_to_num(scale * (1 + 2.0**-40) * largest, nan=clip, posinf=clip).clamp(0.0, clip)


def _bernstein(values: Tensor, clip: float, risk: float) -> float:
    """Maurer and Pontil (2009), Theorem 4: a bound of the expectation of numbers in [0, clip], but for the risk."""
    count, term = len(values), math.log(2 / risk)
    spread = math.sqrt(2 * float(values.var()) * term / count)
    return float(values.mean()) + spread + 7 * clip * term / (3 * (count - 1))
