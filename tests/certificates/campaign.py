"""Random networks, segments and data, and the loss evaluated by code that shares nothing with the bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils import parameters_to_vector

from lightning_landscape import LossSurface
from lightning_landscape.certificates.along_paths import Line, bound_of
from lightning_landscape.certificates.losses import ConvexLoss, CrossEntropy
from lightning_landscape.certificates.recognise import recognise

Loss = Callable[[Any, Any], Tensor]
ACTIVATIONS = [nn.ReLU, nn.ReLU, nn.ReLU, lambda: nn.LeakyReLU(0.1), nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Softplus]


class Residual(nn.Module):
    """x - f(x) / 2."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x - 0.5 * self.inner(x)
        return added


class Case(NamedTuple):
    """One network, its loss on one batch, and a segment."""

    module: nn.Module
    batch: tuple[Tensor, Tensor]
    loss: Loss
    start: Tensor
    end: Tensor
    known: ConvexLoss | None


def random_case(seed: int) -> Case:
    """A small network of layers drawn at random, with ties, zeros, huge weights and dead units among them."""
    generator = torch.Generator().manual_seed(seed)

    def pick(count: int) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    dtype = (torch.float64, torch.float32)[pick(2)]
    examples, outputs = (1, 2, 7)[pick(3)], 2 + pick(3)

    def activation() -> nn.Module:
        module: nn.Module = ACTIVATIONS[pick(len(ACTIVATIONS))]()
        return module

    if pick(2):
        width = 1 + pick(5)
        layers: list[nn.Module] = [nn.Linear(3, width, bias=bool(pick(2))), activation()]
        if pick(2):
            layers += [Residual(nn.Sequential(nn.Linear(width, width), activation())), nn.BatchNorm1d(width)]
        layers += [nn.Dropout(), nn.Linear(width, outputs)] + ([activation()] if pick(4) == 0 else [])
        inputs = torch.randn(examples, 3, generator=generator, dtype=torch.float64)
    else:
        channels = 2 * (1 + pick(2))
        pool = [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2)][pick(4)]
        order = [activation(), pool] if pick(2) else [pool, activation()]
        layers = [nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), *order]
        layers += [nn.Conv2d(channels, channels, 3, padding=1, groups=1 + pick(2)), activation(), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(channels, outputs)]
        inputs = torch.randn(examples, 1, 4 + pick(2), 4, generator=generator, dtype=torch.float64)
    module = nn.Sequential(*layers)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.running_mean is not None:
            layer.running_mean.normal_(generator=generator)
            layer.running_var = torch.rand(layer.num_features, generator=generator) + 0.1
    module = module.to(dtype).eval()
    size = parameters_to_vector(module.parameters()).numel()
    scale = (1e-3, 0.1, 1.0, 1.0, 1.0, 10.0, 1e3, 1e6)[pick(8)]
    start = torch.randn(size, generator=generator, dtype=torch.float64) * (1.0, scale)[pick(2)]
    step = torch.randn(size, generator=generator, dtype=torch.float64) * (1e-4, 0.1, 1.0, scale)[pick(4)]
    start[torch.rand(size, generator=generator) < (0.0, 0.3)[pick(2)]] = 0.0
    step[torch.rand(size, generator=generator) < (0.0, 0.5, 0.9)[pick(3)]] = 0.0
    if pick(4) == 0:
        start, step = start.round(), step.round()  # ties
        inputs = inputs.round()
    end = -start if pick(10) == 0 else start + step
    loss, targets, known = _loss(pick, generator, examples, outputs, dtype)
    return Case(module, (inputs.to(dtype), targets), loss, start.to(dtype), end.to(dtype), known)


def _loss(
    pick: Callable[[int], int], generator: torch.Generator, examples: int, outputs: int, dtype: torch.dtype
) -> tuple[Loss, Tensor, ConvexLoss | None]:
    if pick(3) == 0:
        targets = torch.randn(examples, outputs, generator=generator, dtype=torch.float64).to(dtype)
        return (lambda module, batch: functional.mse_loss(module(batch[0]), batch[1])), targets, None
    labels = torch.randint(outputs, (examples,), generator=generator)
    if pick(2):
        return (lambda module, batch: functional.cross_entropy(module(batch[0]), batch[1])), labels, None
    weight = torch.rand(outputs, generator=generator, dtype=torch.float64).to(dtype) + 0.1
    smoothing = (0.0, 0.2)[pick(2)]

    def loss(module: Any, batch: Any) -> Tensor:
        output = module(batch[0])
        return functional.cross_entropy(output, batch[1], weight.to(output), label_smoothing=smoothing)

    return loss, labels, CrossEntropy(smoothing, weight)


def shortfall(case: Case, points: int = 100) -> float:
    """Largest ``E - bound`` on the segment, taken as one piece: above 0 is a false proof.

    E is that of torch's own modules in double precision; the bound is that at each s, and the one of the whole piece.
    Where the bound is not finite nothing is claimed, and the shortfall is minus infinity.
    """
    surface = LossSurface(case.module, [case.batch], loss_fn=case.loss, batch_norm="frozen", vectorize=False)
    problem = recognise(surface, torch.stack([case.start, case.end]), case.known)
    line = Line(surface, problem, case.start, case.end)
    pieces = [line.start, line.at(0.375), line.at(1.0)]
    worst = -torch.inf
    for (here, begin), (there, end) in ((pieces[0], 0.0), (pieces[2], 1.0)), ((pieces[0], 0.0), (pieces[1], 0.375)):
        excess = line.bound(here, there)
        s = torch.linspace(0, 1, points, dtype=torch.float64)
        gain = max(excess.bent_start - excess.start, excess.bent_end - excess.end, 0.0)
        at = (1 - s) * excess.start + s * excess.end + 4 * s * (1 - s) * gain + excess.slack
        losses = exact_losses(case, begin + (end - begin) * s)
        both = at.clamp_max(bound_of(excess))
        if bool(both.isfinite().all()):
            worst = max(worst, float((losses - both).max()))
    return worst


def exact_losses(case: Case, s: Tensor) -> Tensor:
    """E at some points of the segment, by torch's modules in double precision."""
    names = [(name, value.shape, value.numel()) for name, value in case.module.named_parameters()]
    buffers = {name: value.double() for name, value in case.module.named_buffers()}
    inputs, targets = case.batch
    batch = inputs.double(), targets.double() if targets.is_floating_point() else targets
    losses = []
    for weight in s:
        theta = case.start.double() * (1 - weight) + case.end.double() * weight
        chunks = theta.split([size for _, _, size in names])
        state = {name: chunk.view(shape) for (name, shape, _), chunk in zip(names, chunks, strict=True)}

        def run(x: Tensor, state: dict[str, Tensor] = state) -> Tensor:
            output: Tensor = functional_call(case.module, {**state, **buffers}, (x,))
            return output

        losses.append(case.loss(run, batch).detach())
    return torch.stack(losses)
