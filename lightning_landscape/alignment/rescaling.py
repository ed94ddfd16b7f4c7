"""REPAIR: networks between two others, their units rescaled so that they do not fade."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lightning_landscape.alignment.labelling import LabelledModule, forward_inputs
from lightning_landscape.alignment.specification import PermutationSpec, specify
from lightning_landscape.surface.batch_norm import Norms
from lightning_landscape.surface.names import modules_in_eval

_AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def repair(module: nn.Module, theta_a: Tensor, theta_b: Tensor, batches: Iterable[Any], t: float = 0.5) -> Tensor:
    """The network at ``t`` between two, whose hidden units get the mean and spread of those at the ends.

    Averaging the weights of units that respond differently makes responses fade, layer by layer. At
    ``theta = (1 - t) theta_a + t theta_b`` each hidden linear or convolutional layer with a bias, in the order
    in which forward comes to them, is corrected unit by unit: where its output y has mean m and standard
    deviation s on the batches,

        y <- s* (y - m) / s + m*,    m* = (1 - t) m_a + t m_b,    s* = (1 - t) s_a + t s_b,

    which its weight and bias take up. A unit with s = 0 is only shifted. What stays as it is: layers whose
    units no group of :func:`permutation_spec` permutes, such as the last; layers that are called twice or
    tied; layers without bias, behind which a batch norm, recalibrated by ``LossSurface``, does the same.
    Batch norm uses each batch's statistics here. At t = 0 and 1 nothing changes, up to rounding.

    Args:
        module: the architecture; its own parameter values do not matter.
        theta_a: first end, shape (P,).
        theta_b: second end, shape (P,), aligned with the first beforehand.
        batches: a re-iterable over batches of examples, as :func:`activation_matching` takes them; it is read
            once for each layer and once more.
        t: place between the ends, in [0, 1].

    Returns:
        The corrected parameters, shape (P,).

    Raises:
        ValueError: as :func:`permutation_spec` does, for ``t`` out of range, no batches, or batches that can be
            read only once.

    Source: Jordan, Sedghi, Saukh, Entezari & Neyshabur (2023), "REPAIR", arXiv 2211.08403, Sec. 3.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> theta = nn.utils.parameters_to_vector(net.parameters()).detach()
        >>> images = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
        >>> torch.allclose(repair(net, theta, theta, [images]), theta, atol=1e-6)
        True
    """
    if not 0 <= t <= 1:
        raise ValueError(f"t must lie in [0, 1], got {t}")
    return repair_mean(module, (theta_a, theta_b), (1 - t, t), batches)


def repair_mean(
    module: nn.Module, points: Sequence[Tensor], weights: Sequence[float], batches: Iterable[Any]
) -> Tensor:
    """The weighted mean of several networks, corrected as :func:`repair` corrects that of two.

    Args:
        module: the architecture; its own parameter values do not matter.
        points: the networks, (P,) each, aligned beforehand.
        weights: one for each, at least 0, with the sum 1. They weight parameters, means and spreads alike.
        batches: see :func:`repair`.

    Returns:
        The corrected parameters, shape (P,).

    Raises:
        ValueError: as :func:`repair` does.
    """
    if iter(batches) is batches:
        raise ValueError("batches is an iterator and can be read only once: pass list(batches) or a DataLoader")
    with torch.random.fork_rng(devices=[]):  # a DataLoader draws from the global generator
        return _repaired(module, points, weights, batches)


def weighted_mean(points: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """``sum_i weights_i points_i``, exactly a point where all the weight lies on it or all points are equal.

    Example:
        >>> weighted_mean([torch.tensor([0.0]), torch.tensor([4.0])], [0.25, 0.75])
        tensor([3.])
    """
    first = points[0]
    if len(points) == 2:
        return torch.lerp(first, points[1].to(first), weights[1])
    # As steps from the first point, so that equal points give it without rounding.
    mean = first.clone()
    for point, weight in zip(points[1:], weights[1:], strict=True):
        mean += weight * (point.to(first) - first)
    return mean


def _repaired(module: nn.Module, points: Sequence[Tensor], weights: Sequence[float], batches: Iterable[Any]) -> Tensor:
    first = next(iter(batches), None)
    if first is None:
        raise ValueError("batches is empty: means and spreads need examples")
    traced = LabelledModule(module, forward_inputs(module, first))
    spec, _ = specify(traced)
    for number, theta in enumerate(points, start=1):
        if theta.shape != (spec.dimension,):
            raise ValueError(
                f"point {number} has shape {tuple(theta.shape)} and the module {spec.dimension} parameters"
            )
    Norms(traced.module, modules_in_eval(module), "batch").step()
    layers = _correctable(traced, spec)

    def moments(theta: Tensor, names: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
        traced.install(theta)
        found = {name: _Moments() for name in names}

        def observe(name: str, value: Any) -> None:
            if name in found:
                found[name].update(value, layers[name])

        for batch in batches:
            traced.run(forward_inputs(module, batch), observe)
        return {name: moment.result() for name, moment in found.items()}

    ends = [moments(theta, [*layers]) for theta in points]
    theta = weighted_mean(points, weights)
    chunks = theta.split([prod(shape) for shape in spec.shapes.values()])
    tensors = {name: chunk.view(shape) for (name, shape), chunk in zip(spec.shapes.items(), chunks, strict=True)}
    for name, layer in layers.items():
        mean, spread = moments(theta, [name])[name]
        wanted, wide = (weighted_mean(moment, weights) for moment in zip(*(end[name] for end in ends), strict=True))
        factor = torch.where(spread > 0, wide / spread, 1.0)
        weight, bias = tensors[f"{layer.target}.weight"], tensors[f"{layer.target}.bias"]
        # Views of theta, which the layers to come are measured at.
        weight.mul_(factor.to(weight).view(-1, *[1] * (weight.ndim - 1)))
        bias.copy_((bias.to(factor) - mean) * factor + wanted)
    return theta


@dataclass(frozen=True)
class _Layer:
    """A node of the graph that calls a layer: the layer's name, and the axis of its units counted from the end."""

    target: str
    axis: int


class _Moments:
    """Mean and standard deviation of each unit over batches."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | float = 0.0
        self._square: Tensor | float = 0.0

    def update(self, value: Tensor, layer: _Layer) -> None:
        """Adds the output of a layer on a batch."""
        rows = value.movedim(layer.axis, 0).flatten(1).double()
        self._count += rows.shape[1]
        self._sum = self._sum + rows.sum(1)
        self._square = self._square + rows.square().sum(1)

    def result(self) -> tuple[Tensor, Tensor]:
        """The mean and the standard deviation, (n,) each."""
        mean, square = torch.as_tensor(self._sum / self._count), torch.as_tensor(self._square / self._count)
        variance = square - mean.square()
        # What is left of a constant after rounding is no spread.
        return mean, torch.where(variance > 1e-12 * square, variance, 0.0).sqrt()


def _correctable(traced: LabelledModule, spec: PermutationSpec) -> dict[str, _Layer]:
    """The layers that can take up a correction, by the name of their node, in the order of the graph."""
    calls = [node for node in traced.graph.nodes if node.op == "call_module"]
    targets = Counter(str(node.target) for node in calls)
    names = Counter(map(id, traced.tensors.values()))
    layers = {}
    for node in calls:
        target = str(node.target)
        own = [traced.tensors.get(f"{target}.{name}") for name in ("weight", "bias")]
        if (
            type(layer := traced.module.get_submodule(target)) in _AFFINE
            and targets[target] == 1
            and all(names[id(tensor)] == 1 for tensor in own)
            and all(f"{target}.{name}" in spec.shapes for name in ("weight", "bias"))
            and any(factor.group is not None for part in spec.layouts[f"{target}.bias"][0] for factor in part)
        ):
            weight = layer.get_parameter("weight")
            layers[node.name] = _Layer(target, 1 - weight.ndim)
    return layers
