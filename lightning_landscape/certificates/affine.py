"""Layers that are affine in their input, and affine in their parameters: linear, convolutional, frozen batch norm."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_landscape.certificates.chord import UNIT, Chord, Deviation
from lightning_landscape.certificates.operation import Operation, Piece, Point, UnsupportedError


class Weights(NamedTuple):
    """Weight and bias of a layer."""

    weight: Tensor
    bias: Tensor | None


class Affine(Operation):
    """``h -> W(s) h + b(s)``, where the parameters move along a line.

    With ``h(s) = c(s) + s (1 - s) r(s)`` and ``dW = W_1 - W_0``,
    ``W(s) h(s) + b(s) = chord + s (1 - s) [W(s) r(s) - dW dh]``, and W(s) r(s) lies within
    ``W_m m +- (|W_m| rho + |dW| (|m| + rho) / 2)`` for ``r = m +- rho`` and W_m = (W_0 + W_1) / 2.

    Args:
        layer: the layer, whose frozen parameters are read now.
        names: names of its trainable parameters, ``weight`` and ``bias``.
    """

    def __init__(self, layer: nn.Module, names: dict[str, str]) -> None:
        self._names = names
        self._frozen = {
            key: parameter.detach().double() for key, parameter in layer.named_parameters() if key not in names
        }

    @abstractmethod
    def apply(self, weight: Tensor, h: Tensor) -> Tensor:
        """W h."""

    @abstractmethod
    def norms(self, weight: Tensor, h: Tensor) -> Tensor:
        """An upper bound of ``|W| h`` for h >= 0, by Cauchy and Schwarz where that is cheaper."""

    @abstractmethod
    def shaped(self, bias: Tensor, h: Tensor) -> Tensor:
        """A number for each channel, in a shape that goes with h."""

    @abstractmethod
    def row_sum(self, weight: Tensor) -> float:
        """Largest sum of ``|W|`` over what one output is made of."""

    @abstractmethod
    def terms(self, weight: Tensor) -> int:
        """Number of products that one output is the sum of."""

    def weights(self, point: Point) -> Weights:
        """Weight and bias at a point."""
        weight = self.parameter("weight", point)
        if weight is None:
            raise UnsupportedError(f"{type(self).__name__} has no weight")
        return Weights(weight, self.parameter("bias", point))

    def parameter(self, key: str, point: Point) -> Tensor | None:
        """A parameter of the layer at a point; ``None`` if it has none of this name."""
        return point[self._names[key]] if key in self._names else self._frozen.get(key)

    def value(self, inputs: Sequence[Tensor], point: Point) -> Tensor:
        """The output at one point."""
        weight, bias = self.weights(point)
        product = self.apply(weight, inputs[0])
        return product if bias is None else product + self.shaped(bias, product)

    def deviation(self, inputs: Sequence[Chord], start: Tensor, end: Tensor, piece: Piece) -> Deviation:
        """How far the output is from its chord."""
        chord, (first, _), (last, _) = inputs[0], self.weights(piece.start), self.weights(piece.end)
        slack = self.slack(chord, piece)
        if chord.fixed:
            return Deviation(None, None, slack)
        return Deviation(self.middle(chord, first, last), self.radius(chord, first, last), slack)

    def middle(self, chord: Chord, first: Tensor, last: Tensor) -> Tensor:
        """``W_m m - dW dh``."""
        bent = self.apply(first - last, chord.end - chord.start)
        middle = chord.deviation.middle
        return bent if middle is None else bent.add_(self.apply((first + last) / 2, middle))

    def radius(self, chord: Chord, first: Tensor, last: Tensor) -> Tensor | None:
        """``|W_m| rho + |dW| (|m| + rho) / 2``, or a little more."""
        radius, spread = chord.deviation.radius, chord.spread
        if spread is None:
            return None
        up = 1 + (self.terms(first) + 64) * UNIT
        turned = self.norms((last - first) * (up * up / 2), spread)
        return turned if radius is None else turned.add_(self.apply(((first + last) * (up / 2)).abs(), radius))

    def slack(self, chord: Chord, piece: Piece) -> float:
        """What rounding may do: the a-priori bound of sums of products, and points that are not quite on the line."""
        weight, bias = self.weights(piece.largest)
        size = self.row_sum(weight)
        largest = 0.0 if bias is None else float(bias.abs().max())
        fresh = 2 * (self.terms(weight) + 64) * UNIT * (size * chord.largest + largest)
        return (size * chord.deviation.slack + fresh) * (1 + 2.0**-30) + 1e-300


class Linear(Affine):
    """``nn.Linear``."""

    def apply(self, weight: Tensor, h: Tensor) -> Tensor:
        """W h."""
        return functional.linear(h, weight)

    def norms(self, weight: Tensor, h: Tensor) -> Tensor:
        """An upper bound of ``|W| h``."""
        lengths: Tensor = torch.linalg.vector_norm(h, dim=-1, keepdim=True) * torch.linalg.vector_norm(weight, dim=1)
        return lengths

    def shaped(self, bias: Tensor, h: Tensor) -> Tensor:
        """A number for each output channel, shaped to go with h."""
        return bias

    def row_sum(self, weight: Tensor) -> float:
        """Largest sum of ``|W|`` over what one output is made of."""
        return _largest_sum(weight)

    def terms(self, weight: Tensor) -> int:
        """Number of products that one output is the sum of."""
        return weight.shape[1]


class Convolution(Affine):
    """``nn.Conv1d`` and ``nn.Conv2d`` with zeros for padding."""

    def __init__(self, layer: nn.Conv1d | nn.Conv2d, names: dict[str, str]) -> None:
        super().__init__(layer, names)
        if layer.padding_mode != "zeros":
            raise UnsupportedError(f"padding_mode={layer.padding_mode!r}")
        self._run: Any = functional.conv1d if isinstance(layer, nn.Conv1d) else functional.conv2d
        self._groups = layer.groups
        self._options = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}

    def apply(self, weight: Tensor, h: Tensor) -> Tensor:
        """W h."""
        product: Tensor = self._run(h, weight, groups=self._groups, **self._options)
        return product

    def norms(self, weight: Tensor, h: Tensor) -> Tensor:
        """An upper bound of ``|W| h``."""
        ones = torch.ones_like(weight[: self._groups])
        # Of each place, the squares that one output of each group sees.
        seen: Tensor = self._run(h.square(), ones, groups=self._groups, **self._options).clamp_min_(0.0).sqrt_()
        seen = seen.repeat_interleave(len(weight) // self._groups, 1) if self._groups > 1 else seen
        return seen * self.shaped(torch.linalg.vector_norm(weight.flatten(1), dim=1), seen)

    def shaped(self, bias: Tensor, h: Tensor) -> Tensor:
        """A number for each output channel, shaped to go with h."""
        return bias.view(-1, *[1] * (h.ndim - 2))

    def row_sum(self, weight: Tensor) -> float:
        """Largest sum of ``|W|`` over what one output is made of."""
        return _largest_sum(weight)

    def terms(self, weight: Tensor) -> int:
        """Number of products that one output is the sum of."""
        return prod(weight.shape[1:])


class FrozenNorm(Affine):
    """Batch norm with given statistics: ``h -> w (h - mean) / sqrt(var + eps) + b``, channel by channel."""

    def __init__(self, layer: nn.modules.batchnorm._BatchNorm, names: dict[str, str]) -> None:
        super().__init__(layer, names)
        if layer.running_mean is None or layer.running_var is None:
            raise UnsupportedError("it has no running statistics and normalises by the batch")
        self._mean = layer.running_mean.detach().double()
        self._factor = (layer.running_var.detach().double() + layer.eps).rsqrt()

    def weights(self, point: Point) -> Weights:
        """Weight and bias at a point, the statistics taken in."""
        weight, bias = self.parameter("weight", point), self.parameter("bias", point)
        weight = self._factor if weight is None else weight * self._factor
        return Weights(weight, -weight * self._mean if bias is None else bias - weight * self._mean)

    def apply(self, weight: Tensor, h: Tensor) -> Tensor:
        """W h."""
        return h * self.shaped(weight, h)

    def norms(self, weight: Tensor, h: Tensor) -> Tensor:
        """An upper bound of ``|W| h``."""
        return h * self.shaped(weight.abs(), h)

    def shaped(self, bias: Tensor, h: Tensor) -> Tensor:
        """A number for each output channel, shaped to go with h."""
        return bias.view(-1, *[1] * (h.ndim - 2))

    def row_sum(self, weight: Tensor) -> float:
        """Largest sum of ``|W|`` over what one output is made of."""
        return float(weight.abs().max()) * (1 + 64 * UNIT)

    def terms(self, weight: Tensor) -> int:
        """Number of products that one output is the sum of."""
        return 1

    def slack(self, chord: Chord, piece: Piece) -> float:
        """What rounding may do."""
        # The bias of the largest parameters is a difference, that of the bound has to be a sum.
        weight, bias = self.parameter("weight", piece.largest), self.parameter("bias", piece.largest)
        size = self._factor if weight is None else weight.abs() * self._factor
        offset = size * self._mean.abs() + (0.0 if bias is None else bias.abs())
        row = self.row_sum(size)
        fresh = 2 * 80 * UNIT * (row * chord.largest + float(offset.max()))
        return (row * chord.deviation.slack + fresh) * (1 + 2.0**-30) + 1e-300


def _largest_sum(weight: Tensor) -> float:
    return float(weight.abs().flatten(1).sum(1).max()) * (1 + (prod(weight.shape[1:]) + 64) * UNIT)
