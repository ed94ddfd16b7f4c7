"""A proof that no path joins two points below a height: one hidden layer of ReLUs, inputs on a line, squared error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_landscape.certificates.affine import Linear
from lightning_landscape.certificates.chord import UNIT
from lightning_landscape.certificates.losses import SquaredError
from lightning_landscape.certificates.maximum import LeakyReLU
from lightning_landscape.certificates.operation import UnsupportedError
from lightning_landscape.certificates.recognise import Problem, recognise
from lightning_landscape.certificates.segmented import least_error
from lightning_landscape.surface import LossSurface

Batch = tuple[Tensor, Tensor]
Label = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Separation:
    """What is proved of two points.

    Attributes:
        separated: whether it is proved that every path between the two has a point with ``E >= height``, and that
            both lie below it.
        reordered: whether it is proved too for theta_a and every copy of theta_b with its hidden units in another
            order.
        height: the bound of :func:`separation_bound`.
        loss_a, loss_b: upper bounds of E at the two points.
        reason: why nothing is proved; ``None`` where it is.
    """

    separated: bool
    reordered: bool
    height: float
    loss_a: float
    loss_b: float
    reason: str | None = None


def separation_bound(module: nn.Module, batch: Batch) -> float:
    """The height c below which the units of one hidden layer keep their order: a lower bound of E on all walls.

    The walls are the parameters where a unit has no kink of its own. The function has at most m linear pieces there, so
    that E is at least the least error of m pieces (:mod:`lightning_landscape.certificates.segmented`).

    Args:
        module: a ``Linear``, a ReLU or leaky ReLU and a ``Linear``, with or without biases. Its E is that of its own
            ``training_step`` if it is a LightningModule, else ``nn.MSELoss``; its weights are not read.
        batch: (x, y), floats (N, n) and (N, p). The inputs lie on a line: at most one of their n entries varies.

    Raises:
        UnsupportedError: a ``ValueError``, for another network, other inputs or another loss; the message names it.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
        >>> s = torch.arange(6.0, dtype=torch.float64)[:, None]
        >>> round(separation_bound(net, (s, torch.tensor([0.0, 1, 0, 1, 0, 1], dtype=torch.float64)[:, None])), 6)
        0.133333
    """
    return OneLine.of_module(module, batch).height


def same_component(module: nn.Module, theta_a: Tensor, theta_b: Tensor, batch: Batch) -> Separation:
    """Whether two points are proved to lie in different components of all level sets ``{E <= u}``, u < c.

    Below c of :func:`separation_bound` no path changes the order of the kinks along the inputs, or the sign of a unit's
    slope, or, with a single output, the sign of a unit's output weight. Points that differ in one of these are
    separated. For points that agree nothing is proved: they may lie in one component or not.

    Args:
        module, batch: as for :func:`separation_bound`.
        theta_a, theta_b: parameters, shape (P,), in the order of ``named_parameters()``.

    Raises:
        UnsupportedError: a ``ValueError``, as :func:`separation_bound`.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
        >>> s = torch.arange(6.0, dtype=torch.float64)[:, None]
        >>> tent = s, (s - 1).relu() - 2 * (s - 3).relu()
        >>> one = torch.tensor([1.0, 1, -1, -3, 1, -2, 0], dtype=torch.float64)  # kinks at 1 and 3
        >>> other = torch.tensor([1.0, 1, -3, -1, -2, 1, 0], dtype=torch.float64)  # the same units, exchanged
        >>> found = same_component(net, one, other, tent)
        >>> found.separated, found.reordered, round(found.height, 4)
        (True, False, 0.0278)
    """
    return OneLine.of_module(module, batch, torch.stack([theta_a, theta_b])).compare(theta_a, theta_b)


class OneLine:
    """A network with one hidden layer on inputs along a line: its walls, and on which side of them a point lies.

    Args:
        surface: the loss surface E; what it is has to be found and checked.
        problem: E as :func:`~lightning_landscape.certificates.recognise.recognise` reads it.

    Raises:
        UnsupportedError: for another network, other inputs or another loss.
    """

    def __init__(self, surface: LossSurface, problem: Problem) -> None:
        network, loss, parts = problem
        operations = [step.operation for step in network.steps]
        match operations:
            case [Linear() as first, LeakyReLU() as activation, Linear() as last]:
                self._first, self._activation, self._last = first, activation, last
            case _:
                raise UnsupportedError("separations are proved for Linear, ReLU, Linear alone, one hidden layer")
        if not isinstance(loss, SquaredError):
            raise UnsupportedError("separations are proved for the squared error alone")
        x, y, self._shares = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        if x.ndim != 2:
            raise UnsupportedError(f"separations are proved for inputs of shape (N, n), got {tuple(x.shape)}")
        varying = [column for column in range(x.shape[1]) if bool((x[:, column] != x[0, column]).any())]
        if len(varying) != 1:
            raise UnsupportedError(
                f"separations are proved for inputs along a line, one entry of which varies, and here {len(varying)} do"
            )
        self._surface, self._x, self._y, self._along = surface, x, y.flatten(1), varying[0]
        units = len(self._first.weights(self._point(surface.point())).weight)
        self.height = least_error(
            x[:, self._along].cpu().numpy(), self._y.cpu().numpy(), self._shares.cpu().numpy(), units
        )

    @classmethod
    def of_module(cls, module: nn.Module, batch: Batch, thetas: Tensor | None = None) -> OneLine:
        """The same for a module by itself."""
        own = callable(getattr(module, "training_step", None))
        loss = None if own else (lambda net, pair: functional.mse_loss(net(pair[0]), pair[1]))
        surface = LossSurface(module, [batch], loss_fn=loss)
        return cls.of_surface(surface, surface.point()[None] if thetas is None else thetas)

    @classmethod
    def of_surface(cls, surface: LossSurface, thetas: Tensor) -> OneLine:
        """The same for a loss surface, whose E is compared with what was read at some points (K, P)."""
        return cls(surface, recognise(surface, thetas.to(surface.point())))

    def compare(self, theta_a: Tensor, theta_b: Tensor) -> Separation:
        """What is proved of two points."""
        losses = self.loss_above(theta_a), self.loss_above(theta_b)
        if not max(losses) < self.height:
            reason = f"E at an end is not below the height {self.height:.6g}"
            return Separation(False, False, self.height, *losses, reason)
        first, second = self.label(theta_a), self.label(theta_b)
        separated = first is not None and second is not None and first != second
        reordered = separated and word(first) != word(second)
        agree = None if separated else "the kinks of the units have the same order and signs"
        return Separation(separated, reordered, self.height, *losses, agree)

    def label(self, theta: Tensor) -> Label | None:
        """The units in the order of their kinks, with the signs of slope and, for a single output, output weight.

        Constant on every component of ``{E < height}``. ``None`` on a wall, where E is at least the height. The
        arithmetic is exact.
        """
        point = self._point(theta)
        (weight, bias), (out, _) = self._first.weights(point), self._last.weights(point)
        if not all(bool(tensor.isfinite().all()) for tensor in (weight, out) if tensor is not None):
            return None
        fixed = [Fraction(value) for value in self._x[0].tolist()]
        kinks: dict[Fraction, tuple[int, int, int]] = {}
        for unit, row in enumerate(weight.tolist()):
            parts = [Fraction(value) * entry for value, entry in zip(row, fixed, strict=True)]
            slope = Fraction(row[self._along])
            offset = sum(parts) - parts[self._along] + (0 if bias is None else Fraction(float(bias[unit])))
            if slope == 0 or not bool(out[:, unit].any()) or -offset / slope in kinks:
                return None
            sign = int(out[0, unit].sign()) if len(out) == 1 else 0
            kinks[-offset / slope] = unit, (1 if slope > 0 else -1), sign
        return tuple(kinks[place] for place in sorted(kinks))

    def loss_above(self, theta: Tensor) -> float:
        """E in double precision, and what rounding can have taken from it."""
        point = self._point(theta)
        (weight, bias), (out, shift) = self._first.weights(point), self._last.weights(point)
        hidden, size = self._x @ weight.T, self._x.abs() @ weight.abs().T
        if bias is not None:
            hidden, size = hidden + bias, size + bias.abs()
        output = self._activation.value([hidden], point) @ out.T
        size = size @ out.abs().T
        if shift is not None:
            output, size = output + shift, size + shift.abs()
        off = 8 * (sum(weight.shape) + 16) * UNIT * (size + self._y.abs())
        error = ((output - self._y).abs() + off).square().sum(1)
        total = float((self._shares * error).sum()) * (1 + (error.numel() + 64) * UNIT)
        return total if math.isfinite(total) else math.inf

    def _point(self, theta: Tensor) -> dict[str, Tensor]:
        return {name: value.double() for name, value in self._surface.parameters(theta).items()}


def word(label: Label | None) -> tuple[tuple[int, int], ...] | None:
    """A label without the numbers of the units: what it shares with every reordering of them."""
    return None if label is None else tuple((slope, sign) for _, slope, sign in label)
