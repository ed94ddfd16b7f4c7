"""Losses that are convex in a network's output, and their bound where the output is known up to a deviation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lightning_landscape.certificates.affine import Linear
from lightning_landscape.certificates.chord import UNIT, Chord
from lightning_landscape.certificates.network import Network
from lightning_landscape.certificates.operation import Piece


class Excess(NamedTuple):
    """What a piece of a segment gives: with ``E(s) <= (1 - s) E_0 + s E_1 + 4 s (1 - s) G + slack``.

    Attributes:
        start, end: E_0 and E_1, the losses at the ends.
        bent_start, bent_end: the losses at the ends with outputs that are off by a quarter of the factor of s (1 - s)
            in the worst way; G is the larger of the two differences.
        slack: what rounding may do.
    """

    start: float
    end: float
    bent_start: float
    bent_end: float
    slack: float

    def __add__(self, other: Excess) -> Excess:  # type: ignore[override]
        return Excess(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Bent(NamedTuple):
    """:class:`Excess` of each example by itself, shapes (N,); ``slack`` holds for all, and for their mean."""

    start: Tensor
    end: Tensor
    bent_start: Tensor
    bent_end: Tensor
    slack: float


class ConvexLoss(ABC):
    """A mean over examples of a function that is convex in the output.

    Attributes:
        plain: whether every example counts the same in a batch, whatever the others are.
    """

    plain: bool = True

    @abstractmethod
    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch as torch computes it, in the precision of the outputs."""

    @abstractmethod
    def shares(self, targets: Tensor) -> Tensor:
        """What each example counts in the mean over a batch, shape (N,)."""

    @abstractmethod
    def sum(self, outputs: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
        """``sum_n shares_n loss_n``, double precision."""

    @abstractmethod
    def each(self, network: Network, chords: Sequence[Chord], piece: Piece, targets: Tensor) -> Bent:
        """The bound of each ``loss_n`` along a piece."""

    def excess(
        self, network: Network, chords: Sequence[Chord], piece: Piece, targets: Tensor, shares: Tensor
    ) -> Excess:
        """The bound of ``sum_n shares_n loss_n`` along a piece."""
        bent = self.each(network, chords, piece, targets)
        start, end, bent_start, bent_end = (float((shares * value).sum()) for value in bent[:4])
        return Excess(start, end, bent_start, bent_end, float(shares.sum()) * bent.slack * (1 + 2.0**-30))


class CrossEntropy(ConvexLoss):
    """``nn.CrossEntropyLoss`` with ``reduction="mean"`` of outputs (N, C) and labels (N,).

    Args:
        label_smoothing: in [0, 1).
        weight: weights of the classes (C,), not negative; ``None`` for one each.

    Raises:
        ValueError: for numbers out of range.
    """

    def __init__(self, label_smoothing: float = 0.0, weight: Tensor | None = None) -> None:
        if not 0 <= label_smoothing < 1 or (weight is not None and not bool((weight >= 0).all())):
            raise ValueError("label_smoothing must lie in [0, 1) and weight must not be negative")
        self._smoothing = label_smoothing
        self._weight = weight
        self.plain = weight is None

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch as torch computes it."""
        weight = None if self._weight is None else self._weight.to(outputs)
        return functional.cross_entropy(outputs, targets, weight, label_smoothing=self._smoothing)

    def shares(self, targets: Tensor) -> Tensor:
        """What each example counts, shape (N,)."""
        if self._weight is None:
            return torch.full(targets.shape, 1 / len(targets), dtype=torch.float64, device=targets.device)
        total = self._weight.to(targets.device, torch.float64)[targets].sum()
        return (1 / total).expand(len(targets))

    def sum(self, outputs: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
        """``sum_n shares_n loss_n``."""
        heights, masses = self._soft_labels(outputs.shape[1], outputs.device)
        logits = outputs - (heights[targets] * outputs).sum(1, keepdim=True)
        return (shares * masses[targets] * logits.logsumexp(1)).sum()

    def each(self, network: Network, chords: Sequence[Chord], piece: Piece, targets: Tensor) -> Bent:
        """The logits of an example, less their mean under its soft label q, are all that its loss depends on.

        With R_k the largest factor of s (1 - s) in ``z_k - q z``, the bent loss is the loss at ``z_k + R_k / 4``.
        """
        output = chords[-1]
        labels, masses = self._soft_labels(output.start.shape[1], output.start.device)
        soft = labels[targets]
        factor = _differences(network, chords, piece, labels, targets)
        mass = masses[targets]
        values = []
        for ends in (output.start, output.end):
            logits = ends - (soft * ends).sum(1, keepdim=True)
            values.append([mass * logits.logsumexp(1), mass * (logits + factor / 4).logsumexp(1)])
        size = output.largest + float(factor.abs().max()) + 10
        terms = len(targets) + soft.shape[1] + 64
        slack = float(mass.max()) * (2 * output.deviation.slack + 8 * terms * UNIT * size)
        (start, bent_start), (end, bent_end) = values
        return Bent(start, end, bent_start, bent_end, slack)

    def _soft_labels(self, classes: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """For each label the soft label q, shape (C, C), and the weight A of an example that has it, shape (C,)."""
        eye = torch.eye(classes, dtype=torch.float64, device=device)
        weight = torch.ones_like(eye[0]) if self._weight is None else self._weight.to(eye)
        mass = (1 - self._smoothing) * torch.diag(weight) + self._smoothing / classes * weight
        total = mass.sum(1)
        return torch.where(total[:, None] > 0, mass / total[:, None], eye), total


class SquaredError(ConvexLoss):
    """``scale * mean_n sum_j (f_j(x_n) - y_nj)^2``, of outputs and targets of one shape.

    Args:
        scale: positive; ``None`` for one over the number of outputs, which is ``nn.MSELoss``.
    """

    def __init__(self, scale: float | None = None) -> None:
        if scale is not None and not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self._scale = scale

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch as torch computes it."""
        mean = functional.mse_loss(outputs, targets)
        return mean if self._scale is None else mean * (self._scale * outputs[0].numel())

    def shares(self, targets: Tensor) -> Tensor:
        """What each example counts, shape (N,)."""
        scale = 1 / targets[0].numel() if self._scale is None else self._scale
        return torch.full((len(targets),), scale / len(targets), dtype=torch.float64, device=targets.device)

    def sum(self, outputs: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
        """``sum_n shares_n loss_n``."""
        return (shares * (outputs - targets).square().flatten(1).sum(1)).sum()

    def each(self, network: Network, chords: Sequence[Chord], piece: Piece, targets: Tensor) -> Bent:
        """The square of the error that is off by a quarter of its factor of s (1 - s), to the worse side."""
        output = chords[-1]
        low, high = output.low / 4, output.high / 4
        values = []
        largest = 0.0
        for ends in (output.start, output.end):
            error = ends - targets
            worst = torch.maximum((error + low).abs(), (error + high).abs())
            largest = max(largest, float(worst.max()), float(error.abs().max()))
            values.append([part.square().flatten(1).sum(1) for part in (error, worst)])
        each = output.start[0].numel()
        loose = output.deviation.slack + 8 * UNIT * (output.largest + largest)
        rounding = (len(targets) + each + 64) * UNIT * largest**2
        slack = each * (2 * loose * largest + loose**2 + 4 * rounding)
        (start, bent_start), (end, bent_end) = values
        return Bent(start, end, bent_start, bent_end, slack)


def _differences(network: Network, chords: Sequence[Chord], piece: Piece, labels: Tensor, targets: Tensor) -> Tensor:
    """Upper bounds (N, C) of the factor of s (1 - s) in ``z_k - sum_c q_c z_c``, q the soft label of each example."""
    output, last = chords[-1], network.steps[-1]
    soft = labels[targets]
    middle, radius, _ = output.deviation
    factor = torch.zeros_like(output.start) if middle is None else middle - (soft * middle).sum(1, keepdim=True)
    if radius is None:
        return factor
    if not isinstance(last.operation, Linear):
        return factor + radius + (soft * radius).sum(1, keepdim=True) - 2 * soft * radius
    # The last layer's rows enter by their differences, which are smaller than the two rows together.
    chord = chords[last.inputs[0]]
    first, end = (last.operation.weights(point).weight for point in (piece.start, piece.end))
    for label in targets.unique():
        chosen = (targets == label).nonzero().flatten()
        of_label = _chosen(chord, chosen)
        rows = [weight - labels[label] @ weight for weight in (first, end)]
        around = last.operation.radius(of_label, *rows)
        if around is not None:
            factor[chosen] += around
    return factor


def _chosen(chord: Chord, examples: Tensor) -> Chord:
    middle, radius, slack = chord.deviation
    part = (None if middle is None else middle[examples], None if radius is None else radius[examples], slack)
    return Chord(chord.start[examples], chord.end[examples], type(chord.deviation)(*part))
