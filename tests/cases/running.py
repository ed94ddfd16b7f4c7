"""Layers that estimate their buffers while they train, in the ways people write them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class MovingAverage(nn.Module):
    """A normaliser by exponential moving averages."""

    def __init__(self, width: int, rate: float = 0.05) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(x.mean(0), self.rate)
                self.var.lerp_(x.var(0), self.rate)
        return (x - self.mean) / (self.var + 1e-5).sqrt()


class CountedAverage(MovingAverage):
    """The same, with a count of batches that it does not use."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        return super().forward(x)


class Debiased(nn.Module):
    """Moving averages divided by 1 - decay^steps, as Adam's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("first", "second"):
            self.register_buffer(name, torch.zeros(width))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.first.lerp_(x.mean(0), 0.05)
                self.second.lerp_(x.square().mean(0), 0.05)
                self.steps += 1
        weight = 1 - 0.95 ** self.steps.clamp(min=1)
        mean = self.first / weight
        return (x - mean) / ((self.second / weight - mean**2).clamp(min=0) + 1e-5).sqrt()


class Welford(nn.Module):
    """Mean and variance over all that was seen, by Chan's update."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))
        self.register_buffer("count", torch.tensor(1e-4))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                off, total = x.mean(0) - self.mean, self.count + len(x)
                moment = self.var * self.count + x.var(0, unbiased=False) * len(x)
                self.var.copy_((moment + off**2 * self.count * len(x) / total) / total)
                self.mean += off * len(x) / total
                self.count.copy_(total)
        return (x - self.mean) / (self.var + 1e-5).sqrt()


class Sums(nn.Module):
    """Sums and a count."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("first", "second"):
            self.register_buffer(name, torch.zeros(width))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.first += x.sum(0)
                self.second += x.square().sum(0)
                self.count += len(x)
        count = self.count.clamp(min=1)
        mean = self.first / count
        return (x - mean) / ((self.second / count - mean**2).clamp(min=0) + 1e-5).sqrt()


class Codebook(nn.Module):
    """A vector quantiser whose codes are moving averages of what falls to them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.randn(6, width))

    def forward(self, x: Tensor) -> Tensor:
        nearest = torch.cdist(x, self.codes).argmin(1)
        if self.training:
            with torch.no_grad():
                for code in nearest.unique():
                    self.codes[code].lerp_(x[nearest == code].mean(0), 0.1)
        return x + (self.codes[nearest] - x).detach()


NORMALISERS: dict[str, Callable[[int], nn.Module]] = {
    "moving average": MovingAverage,
    "counted": CountedAverage,
    "debiased": Debiased,
    "all that was seen": Welford,
    "sums": Sums,
}


def data(batches: int = 8, size: int = 64) -> list[tuple[Tensor, Tensor]]:
    """Inputs that are far from normalised, and targets."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 3, generator=generator)
    inputs = torch.randn(batches * size, 6, generator=generator)
    targets = torch.tanh(inputs @ mixing)
    shifted = inputs * torch.tensor([0.2, 1.0, 3.0, 5.0, 0.5, 2.0]) + 4
    return list(zip(shifted.split(size), targets.split(size), strict=True))


def mse(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return functional.mse_loss(module(batch[0]), batch[1])


def own_loss(module: nn.Module) -> float:
    """The loss of a model as it is, in eval mode, over :func:`data`."""
    module.eval()
    with torch.no_grad():
        return sum(mse(module, batch).item() for batch in data()) / len(data())


def trained(make: Callable[[], nn.Module], seed: int, steps: int = 400, settle: bool = True) -> nn.Module:
    """A model of its own seed, trained with a rate that falls to zero if its estimates shall settle."""
    torch.manual_seed(seed)
    module, batches = make(), data()
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        mse(module, batches[step % len(batches)]).backward()
        optimizer.step()
        if settle:
            schedule.step()
    return module.eval()
