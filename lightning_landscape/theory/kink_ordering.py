r"""Narrow ReLU networks with at most two hidden layers keep their first layer in order.

On the half-plane of inputs ``(s, 1, 0, ...)`` a unit of the first layer has one kink, at the s where ``w . x = 0``.
Data with T kinks, each of them at the middle of three neighbouring points, is fitted only by a function that has a
kink between the outer two of each triple: a function without one is linear there, and pays the squared residual of the
best line. T is chosen as the most that the architecture can do, so that a network which fits has all its units in use:

*Lemma.* On R, a sum of n terms ``v_i relu(+-(s - t_i))`` changes sign at most n - 1 times. Proof. With the rows
``relu(t_i - s)`` for increasing t_i, followed by the rows ``relu(s - t_i)`` for increasing t_i, the kernel is totally
positive: it is a product of two staircases of zeros and ones, ``relu(t - s) = int 1[u < t] 1[s < u] du`` over one copy
of the line and ``relu(s - t) = int 1[t < u] 1[u < s] du`` over a second one put after it, whose rows are intervals with
increasing ends on either side. A totally positive kernel does not increase the number of sign changes of v.

*Consequence.* With n_1 units in the first layer and n_2 in the second (0 if there is none), a function has at most
``D + n_2 (n_1 - 1)`` kinks, where D counts the distinct kinks of the first layer: all others are at sign changes of
the n_2 sums. Where two units share a kink, or one has none among the data, D <= n_1 - 1 and the count is below
``T = n_1 + n_2 (n_1 - 1)``: one triple is not fitted, and E is at least the least of the T residuals over N.

Below that height the kinks of the first layer are distinct and move continuously with theta, so that their order along
the line is the same in all of a component. Two units that change places are in another one: N_u >= n_1!.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from lightning_landscape.theory.weight_lists import Weights

_REACH = 2.0  # of the data to the left of the first kink, the weakest one


def fitted(widths: tuple[int, ...]) -> tuple[Weights, Tensor, float]:
    """A network with all kinks that its widths allow, and data that needs every one of them.

    Args:
        widths: (n_0, n_1, n_K) or (n_0, n_1, n_2, n_K) with n_0, n_1, n_2 >= 2.

    Returns:
        The weights, inputs (N, n_0) whose answers by these weights are the targets, and the height that E
        reaches where the units of the first layer are out of order. The mean square of the targets is 1.
    """
    knots = torch.arange(1, widths[1] + 1, dtype=torch.float64)
    first = torch.zeros(widths[1], widths[0], dtype=torch.float64)
    first[:, 0], first[:, 1] = 1.0, -knots
    last = torch.zeros(widths[-1], widths[-2], dtype=torch.float64)
    if len(widths) == 3:
        kinks = knots
        last[0] = 2.0 * (-1.0) ** torch.arange(widths[1])
        last[0, 0] = 1.0
        weights = [first, last]
    else:
        second, crossings = _zigzags(widths[1], widths[2])
        kinks = torch.cat([knots, crossings]).sort().values
        last[0] = 1.0
        weights = [first, second, last]
    ends = kinks[0] - _REACH, kinks[-1] + (kinks[-1] - kinks[-2]) / 2
    positions = torch.stack([ends[0], *_between(kinks), ends[1]])
    inputs = torch.zeros(len(positions), widths[0], dtype=torch.float64)
    inputs[:, 0], inputs[:, 1] = positions, 1.0
    answers = inputs
    for weight in weights[:-1]:
        answers = torch.relu(answers @ weight.T)
    scale = (answers @ last[0]).square().mean().sqrt()
    last /= scale
    targets = answers @ last[0]
    residuals = [
        _squared_residual(positions[i - 1 : i + 2], targets[i - 1 : i + 2]) for i in range(1, len(positions) - 1, 2)
    ]
    return weights, inputs, min(residuals) / len(positions)


def order(weights: Weights, inputs: Tensor) -> tuple[int, ...] | None:
    """The first layer's units as their kinks come along the data; ``None`` where two share one, or one has none."""
    slopes, offsets = weights[0][:, 0], weights[0][:, 1]
    low, high = inputs[:, 0].min(), inputs[:, 0].max()
    # Compared without dividing, for a unit may be flat.
    inside = ((slopes * low + offsets) * (slopes * high + offsets)) < 0
    kinks = -offsets / torch.where(inside, slopes, 1.0)
    if not bool(inside.all()) or len(kinks.unique()) < len(kinks):
        return None
    return tuple(kinks.argsort().tolist())


def _zigzags(num_knots: int, num_units: int) -> tuple[Tensor, Tensor]:
    """Second-layer rows over ``relu(s - i)``, i = 1, ..., that cross zero once in each piece, and where they cross.

    Unit j goes up or down first, by turns. It crosses at a share of each piece that is its own, mirrored from
    piece to piece, so that the waves neither grow nor fade.
    """
    rows, crossings = [], []
    for unit in range(num_units):
        share = (unit + 1) / (num_units + 1)
        slopes = [0.0, 1.0]
        height = 1.0
        for piece in range(2, num_knots + 1):
            crossings.append(piece + share)
            slopes.append(-height / share)
            height *= -(1 - share) / share
            share = 1 - share
        rows.append(torch.tensor([after - before for before, after in pairwise(slopes)], dtype=torch.float64))
        rows[-1] *= (-1.0) ** unit
    return torch.stack(rows), torch.tensor(crossings, dtype=torch.float64)


def _between(kinks: Tensor) -> list[Tensor]:
    """The kinks and the middles between them, in order."""
    points = [kinks[0]]
    for before, after in pairwise(kinks):
        points += [(before + after) / 2, after]
    return points


def _squared_residual(positions: Tensor, values: Tensor) -> float:
    """Least squared error of a line at three points: the part of ``values`` along the one direction that lines lack."""
    left, right = positions[1] - positions[0], positions[2] - positions[1]
    direction = torch.stack([right, -(left + right), left])
    return float((direction @ values) ** 2 / (direction @ direction))
