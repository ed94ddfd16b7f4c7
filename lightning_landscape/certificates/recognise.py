"""Which convex loss of which outputs E is, checked against E itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_landscape.certificates.losses import ConvexLoss, CrossEntropy, SquaredError
from lightning_landscape.certificates.network import Network
from lightning_landscape.certificates.operation import UnsupportedError
from lightning_landscape.surface import LossSurface

_MERGED = 1024  # examples that are bounded together


class Examples(NamedTuple):
    """Some examples: inputs and targets in double precision, and what each counts in E."""

    inputs: Tensor
    targets: Tensor
    shares: Tensor


class Problem(NamedTuple):
    """E as the bound sees it."""

    network: Network
    loss: ConvexLoss
    parts: list[Examples]


def recognise(surface: LossSurface, thetas: Tensor, loss: ConvexLoss | None = None) -> Problem:
    """Finds the loss that E is.

    Args:
        surface: the loss surface, over batches ``(inputs, targets)``.
        thetas: points (K, P) where E is compared with the loss that was found.
        loss: the loss; ``None`` tries those that go with the targets, and any ``nn.CrossEntropyLoss`` that the module
            holds.

    Raises:
        UnsupportedError: if E is none of them, or the network has a part that the bound does not know.
    """
    _require_plain(surface)
    batches = [_pair(batch, surface.device) for batch in surface.batches]
    inputs, targets = batches[0]
    network = Network(surface.module, inputs)
    candidates = [loss] if loss is not None else _candidates(surface.module, targets)
    found = _fitting(surface, thetas, batches, candidates)
    return Problem(network, found, _merged(batches, found))


def examples_of(surface: LossSurface, batches: Iterable[Any], problem: Problem) -> list[Examples]:
    """Other examples for the same network and loss.

    Raises:
        UnsupportedError: if a batch is no pair of inputs and targets of this problem, or classes have weights: their
            mean is no mean over examples.
    """
    pairs = [_pair(batch, surface.device) for batch in batches]
    if not problem.loss.plain:
        raise UnsupportedError("classes have weights, so that E is no mean over examples: give a loss without weights")
    for inputs, targets in pairs:
        if not _suits(problem.loss, _outputs(surface, surface.point(), inputs), targets):
            raise UnsupportedError("a batch of the sample has other targets than the surface: give pairs like its own")
    return [part for pair in pairs for part in _merged([pair], problem.loss)]


def _require_plain(surface: LossSurface) -> None:
    if surface.device.type == "mps":
        raise UnsupportedError("the bound needs double precision, which mps has not: build the surface on the CPU")
    if surface.noise != "none":
        raise UnsupportedError("the loss draws random numbers")
    if surface.evaluation_passes != sum(1 for _ in surface.batches):
        raise UnsupportedError(
            "running statistics are estimated anew at every point, so that E is no function of this network with fixed "
            "ones: build the surface with batch_norm='frozen'"
        )


def _pair(batch: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    if not (isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
        raise UnsupportedError("a batch must be a pair of tensors, inputs and targets")
    inputs, targets = (part.to(device) for part in batch)
    if not inputs.is_floating_point() or len(inputs) != len(targets) or not len(inputs):
        raise UnsupportedError("a batch must hold real inputs, and as many targets")
    return inputs, targets


def _candidates(module: nn.Module, targets: Tensor) -> list[ConvexLoss]:
    if targets.is_floating_point():
        return [SquaredError(scale) for scale in (None, 1.0, 0.5)]
    held = [
        CrossEntropy(layer.label_smoothing, layer.weight)
        for layer in module.modules()
        if isinstance(layer, nn.CrossEntropyLoss)
    ]
    return [*held, CrossEntropy()]


def _fitting(
    surface: LossSurface, thetas: Tensor, batches: Sequence[tuple[Tensor, Tensor]], candidates: Sequence[ConvexLoss]
) -> ConvexLoss:
    losses = surface.losses(thetas)
    if not bool(losses.isfinite().all()):
        raise UnsupportedError("E is not finite at a point of the path")
    outputs = [[_outputs(surface, theta, inputs) for inputs, _ in batches] for theta in thetas]
    double = thetas.dtype == torch.float64
    relative, absolute = (1e-10, 1e-10) if double else (1e-5, 1e-6)
    for loss in candidates:
        if not all(_suits(loss, output, targets) for output, (_, targets) in zip(outputs[0], batches, strict=True)):
            continue
        own = torch.stack(
            [
                torch.stack([loss.mean(output, y).double() for output, (_, y) in zip(row, batches, strict=True)]).mean()
                for row in outputs
            ]
        )
        if bool(((own - losses).abs() <= relative * losses.abs() + absolute).all()):
            return loss
    raise UnsupportedError(
        "E is no cross-entropy and no squared error of what forward returns for the first part of a batch, as its "
        "values at the corners of the path show: give certify the loss, as loss=CrossEntropy(label_smoothing=..., "
        "weight=...) or SquaredError(scale)"
    )


def _outputs(surface: LossSurface, theta: Tensor, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        output = functional_call(surface.module, surface.parameters(theta), (inputs,))
    if not isinstance(output, Tensor):
        raise UnsupportedError(f"forward returns {type(output).__name__}, not a tensor")
    return output


def _suits(loss: ConvexLoss, output: Tensor, targets: Tensor) -> bool:
    if isinstance(loss, CrossEntropy):
        if output.ndim != 2 or targets.ndim != 1 or targets.is_floating_point():
            return False
        return int(targets.min()) >= 0 and int(targets.max()) < output.shape[1]
    return output.shape == targets.shape and targets.is_floating_point()


def _merged(batches: Sequence[tuple[Tensor, Tensor]], loss: ConvexLoss) -> list[Examples]:
    """All examples, in parts of some hundreds: E is the mean over the batches of the means over each."""
    wide = [
        Examples(x.double(), y.double() if y.is_floating_point() else y, loss.shares(y) / len(batches))
        for x, y in batches
    ]
    parts: list[list[Examples]] = []
    for examples in wide:
        room = parts and sum(len(part.inputs) for part in parts[-1]) + len(examples.inputs) <= _MERGED
        if room and parts[-1][0].inputs.shape[1:] == examples.inputs.shape[1:]:
            parts[-1].append(examples)
        else:
            parts.append([examples])
    return [Examples(*(torch.cat(tensors) for tensors in zip(*part, strict=True))) for part in parts]
