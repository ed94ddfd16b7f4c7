r"""A data distribution for which the level sets of a given ReLU network are not connected.

Statement (after Freeman & Bruna 2017, Sec. 2.3.1, who show that one exists; Venturi, Bandeira & Bruna 2019, Sec. 4, who
show that overparametrisation alone does not prevent it). For ``E(theta) = (1/N) sum_i ||f(x_i) - y_i||^2`` with a ReLU
network f without biases of widths n_0, ..., n_K, there are data, two global minima theta_a and theta_b and a height c
above both such that every path from one to the other has a point with E >= c. Hence N_u >= 2 for each u in
[min E, c). The minima are one network with two hidden units swapped, or its mirror image. Four proofs share the work;
each finds a label that is constant on every component of {E < c}, and differs at the two ends.

1. *A hidden layer of a single unit.* After it f(x) = p(x) v with p >= 0, where v is the answer to 1. For two opposite
   points with targets e_1 and -e_1 either sign of v_1 serves one target alone, so that E >= 1/2, and v_1 = 0 has
   E >= 1. The label is the sign of v_1, and c = 1.
2. *At least M - 1 outputs for M units in the last hidden layer* (any depth, M >= 2, hidden widths and inputs >= 2).
   Put d = M - 1. The targets of M points are the corners of a regular simplex in R^d, of norm 1, and zeros in the other
   outputs. f(x) lies in the cone of the columns V_j of W_K, cut to d coordinates. If the columns do not positively span
   R^d, a unit vector p has p . V_j <= 0 for all j, hence p . f <= 0, and N E >= sum_i max(0, p . y_i)^2 >= 1/d: among
   vectors of given norm and sum zero the positive part is least where a single entry is negative. So c = 1/(M (M - 1)),
   which is 1/6 for the network 2-3-2. Below it the M columns positively span R^(M-1), any M - 1 of them are
   independent, and the sign of the determinant of the first M - 1 is the label: a swap of two columns turns it around.
3. *At most two hidden layers*, any number of outputs: the order of the first layer, see
   :mod:`lightning_landscape.theory.kink_ordering`.

4. *Two units in the first or in the last hidden layer*, any other widths of at least 2, one input included. The data
   are two opposite points. First layer: both targets are e_1. If the two units look the same way, neither sees one of
   the points, f = 0 there, and E >= 1/2; the label is the side that the first unit looks to. Last layer: the targets
   are e_1 and -e_1, of which one sign of output weights serves one alone, E >= 1/2; the label is the first unit's sign.

What none of the four covers is refused: one input, without a bias, and first and last hidden layers of three units or
more; and three or more hidden layers, the first of three units or more, with fewer than M - 1 outputs. For one input
and one hidden layer of M >= 3 units there is no counterexample: all level sets are connected. Proof: f is
``A max(0, x) + B max(0, -x)``, so that E is convex in (A, B). Along a path of equal f each of the two sums becomes the
work of one unit. The others have weight 0 then, so that they may look anywhere and take over from either; so any two
units reach any two others' places, and (A, B) moves along a line in the convex set of what E allows.

The label is the check: a path whose ends have different labels has a point with another label or none next to it, and
there E >= c. It serves as the negative control of a path finder, which must answer ``not_found`` below c.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_landscape.models.theorems.relu_network import ReLUNetwork
from lightning_landscape.theory import kink_ordering
from lightning_landscape.theory.weight_lists import Weights, flatten, weights_at

Batch = tuple[Tensor, Tensor]


class Counterexample(NamedTuple):
    """Two minima of a network that no path joins below a height.

    Attributes:
        module: the network in float64, at ``theta_a``; its ``training_step`` is E.
        batch: (x, y), the data.
        theta_a: a global minimum of E, shape (P,), in the coordinates of ``LossSurface``.
        theta_b: another one, of the same E.
        separating_height: c; every path between the two has a point with E >= c.
    """

    module: ReLUNetwork
    batch: Batch
    theta_a: Tensor
    theta_b: Tensor
    separating_height: float


def counterexample(widths: Sequence[int]) -> Counterexample:
    """Data and two global minima of a ReLU network that are in different components of {E < c}.

    Nothing is drawn at random: equal widths give equal results.

    Args:
        widths: (n_0, ..., n_K): inputs, hidden widths, outputs.

    Raises:
        ValueError: for widths that none of the four proofs covers; the message says which widths they cover.

    Example:
        >>> module, batch, theta_a, theta_b, height = counterexample([2, 3, 2])
        >>> round(height, 6), component(module, theta_a), component(module, theta_b)
        (0.166667, (1,), (-1,))
    """
    with torch.random.fork_rng(devices=[]):  # weights are drawn, and replaced below
        module = ReLUNetwork(widths).double()
    weights_a, weights_b, batch, height = _PROOFS[_proof(module.widths)](module.widths)
    theta_a = flatten(weights_a)
    torch.nn.utils.vector_to_parameters(theta_a, module.parameters())
    return Counterexample(module, batch, theta_a, flatten(weights_b), height)


def component(module: ReLUNetwork, theta: Tensor) -> tuple[int, ...] | None:
    """The label of ``theta`` (P,) for the data of :func:`counterexample`, constant on components of {E < c}.

    It is a sign in three of the proofs and in the third the order of the units. ``None`` where it is not
    defined, which implies E >= c.

    Args:
        module: the network, whose widths choose the proof; its weights are not read.
        theta: parameters, shape (P,), in the order of ``named_parameters()``.

    Raises:
        ValueError: for widths that none of the proofs covers, or parameters of another shape.
    """
    weights, widths = weights_at(module, theta), module.widths
    proof = _proof(widths)
    if proof == "order":
        return kink_ordering.order(weights, kink_ordering.fitted(widths)[1])
    if proof == "sign":
        answer = _answer_to_one(weights, widths.index(1, 1))
        return (int(answer.sign()),) if answer != 0 else None
    if proof in ("first pair", "last pair"):
        one, other = weights[0][:, 0] if proof == "first pair" else weights[-1][0]
        return (int(one.sign()),) if one * other < 0 else None
    columns = weights[-1][: widths[-2] - 1]
    # The one linear relation of the columns, by Cramer's rule; they span positively iff its entries have one sign.
    relation = torch.stack(
        [(-1) ** j * torch.linalg.det(_without_column(columns, j)) for j in range(columns.shape[1])]
    ).sign()
    spanning = bool((relation == relation[0]).all()) and relation[0] != 0
    return (int(relation[-1]) * (-1) ** (columns.shape[1] - 1),) if spanning else None


def _proof(widths: tuple[int, ...]) -> str:
    hidden = widths[1:-1]
    if 1 in hidden:
        return "sign"
    if widths[0] >= 2 and widths[-1] >= hidden[-1] - 1:
        return "span"
    if widths[0] >= 2 and len(hidden) <= 2:
        return "order"
    if hidden[0] == 2:
        return "first pair"
    if hidden[-1] == 2:
        return "last pair"
    if widths[0] == 1:
        known = (
            "; with one hidden layer of three units or more all level sets are connected" if len(hidden) == 1 else ""
        )
        raise ValueError(
            f"no counterexample is proved for widths {widths}: with one input, without a bias, the first or the last "
            f"hidden layer must have two units, or any one{known}"
        )
    raise ValueError(
        f"no counterexample is proved for widths {widths}: with three or more hidden layers, of two units at least, "
        f"the first must have two, or there must be at least {hidden[-1] - 1} outputs, the units of the last less one"
    )


def _single_unit(widths: tuple[int, ...]) -> tuple[Weights, Weights, Batch, float]:
    layers = [torch.zeros(m, n, dtype=torch.float64) for n, m in pairwise(widths)]
    for layer in layers:
        layer[0, 0] = 1.0
    mirrored = [-layers[0], *layers[1:-1], -layers[-1]]
    inputs = torch.zeros(2, widths[0], dtype=torch.float64)
    targets = torch.zeros(2, widths[-1], dtype=torch.float64)
    inputs[:, 0] = targets[:, 0] = torch.tensor([1.0, -1.0])
    return layers, mirrored, (inputs, targets), 1.0


def _spanning(widths: tuple[int, ...]) -> tuple[Weights, Weights, Batch, float]:
    units = widths[-2]
    layers = [torch.zeros(m, n, dtype=torch.float64) for n, m in pairwise(widths)]
    for layer in layers[:-2]:  # carries the two coordinates of an input, which are positive
        layer[0, 0] = layer[1, 1] = 1.0
    steps = torch.arange(units, dtype=torch.float64)
    layers[-2][:, 0], layers[-2][:, 1] = 1.0, -steps
    inputs = torch.zeros(units, widths[0], dtype=torch.float64)
    inputs[:, 0], inputs[:, 1] = steps + 1, 1.0
    targets = torch.zeros(units, widths[-1], dtype=torch.float64)
    targets[:, : units - 1] = _simplex(units)
    # Unit j answers max(0, i - j + 1) to point i: a triangular system.
    activations = torch.relu(steps[:, None] + 1 - steps)
    layers[-1] = torch.linalg.solve_triangular(activations, targets, upper=False).T
    return layers, _swapped(layers, len(layers) - 2), (inputs, targets), 1 / (units * (units - 1))


def _ordered(widths: tuple[int, ...]) -> tuple[Weights, Weights, Batch, float]:
    weights, inputs, height = kink_ordering.fitted(widths)
    targets = inputs
    for weight in weights[:-1]:
        targets = torch.relu(targets @ weight.T)
    return weights, _swapped(weights, 0), (inputs, targets @ weights[-1].T), height


def _first_pair(widths: tuple[int, ...]) -> tuple[Weights, Weights, Batch, float]:
    layers, (inputs, targets) = _opposite(widths)
    for layer in layers[1:]:
        layer[0, :2] = 1.0  # the sum of the two goes on, and the units beside it have nothing
        layer[1:] = 0.0
    targets[:, 0] = 1.0
    return layers, _swapped(layers, 0), (inputs, targets), 0.5


def _last_pair(widths: tuple[int, ...]) -> tuple[Weights, Weights, Batch, float]:
    layers, batch = _opposite(widths)
    return layers, _swapped(layers, len(layers) - 2), batch, 0.5


def _opposite(widths: tuple[int, ...]) -> tuple[Weights, Batch]:
    """Two opposite points, a network that keeps each in a unit of its own, and its answers e_1 and -e_1."""
    layers = [torch.zeros(m, n, dtype=torch.float64) for n, m in pairwise(widths)]
    for layer in layers[1:-1]:
        layer[0, 0] = layer[1, 1] = 1.0
    layers[0][0, 0] = layers[-1][0, 0] = 1.0
    layers[0][1, 0] = layers[-1][0, 1] = -1.0
    inputs = torch.zeros(2, widths[0], dtype=torch.float64)
    targets = torch.zeros(2, widths[-1], dtype=torch.float64)
    inputs[:, 0] = targets[:, 0] = torch.tensor([1.0, -1.0])
    return layers, (inputs, targets)


_PROOFS = {
    "sign": _single_unit,
    "span": _spanning,
    "order": _ordered,
    "first pair": _first_pair,
    "last pair": _last_pair,
}


def _swapped(weights: Weights, layer: int) -> Weights:
    """The same network with the first two units of a hidden layer changing places."""
    units = torch.arange(len(weights[layer]))
    units[:2] = torch.tensor([1, 0])
    changed = [*weights]
    changed[layer], changed[layer + 1] = weights[layer][units], weights[layer + 1][:, units]
    return changed


def _simplex(corners: int) -> Tensor:
    """Corners of norm 1 of a regular simplex around the origin, shape (M, M - 1), of positive orientation."""
    size = corners - 1
    rows = torch.zeros(corners, size, dtype=torch.float64)
    for i in range(size):
        rows[i, i] = (1 - rows[i, :i].square().sum()).sqrt()
        # All other corners have the inner product -1 / size with corner i.
        rows[i + 1 :, i] = (-1 / size - rows[i + 1 :, :i] @ rows[i, :i]) / rows[i, i]
    return rows


def _answer_to_one(weights: Weights, layer: int) -> Tensor:
    """v_1, where the layer has the single unit: the first output of what follows it, for the input 1."""
    state = torch.ones(1, dtype=torch.float64)
    for weight in weights[layer:-1]:
        state = torch.relu(weight @ state)
    return (weights[-1] @ state)[0]


def _without_column(matrix: Tensor, column: int) -> Tensor:
    return torch.cat([matrix[:, :column], matrix[:, column + 1 :]], dim=1)
