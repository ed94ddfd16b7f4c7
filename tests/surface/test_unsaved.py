"""What training changes and no file of weights holds, and what is neither an estimate nor fixed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from lightning_landscape import LossSurface
from lightning_landscape.surface.running import Recipe
from tests.cases.running import Codebook, MovingAverage, Welford, data, mse, own_loss, trained


class PlainMean(nn.Module):
    """A running mean that is a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(6)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return x - self.mean


class PlainScale(nn.Module):
    """The same of a number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * float(x.abs().max())
        return x / self.scale


class Steps(nn.Module):
    """Counts, and warms up by what it has counted."""

    def __init__(self, saved: bool) -> None:
        super().__init__()
        self.saved = saved
        if saved:
            self.register_buffer("step", torch.zeros(()))
        else:
            self.step = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.step = self.step + 1
        return x * min(1.0, float(self.step) / 1000)


class Unsaved(MovingAverage):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_buffer("mean", torch.zeros(width), persistent=False)


class Renormalised(nn.Module):
    """Batch renormalisation: training too normalises by the running statistics, within bounds."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return (x - self.mean) / self.std
        mean, std = x.mean(0), x.std(0) + 1e-3
        scale = (std.detach() / self.std).clamp(1 / 3, 3)
        shift = ((mean.detach() - self.mean) / self.std).clamp(-5, 5)
        self.mean += 0.05 * (mean.detach() - self.mean)
        self.std += 0.05 * (std.detach() - self.std)
        return (x - mean) / std * scale + shift


class Whitened(nn.Module):
    """A running covariance, by whose inverse root is multiplied."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("covariance", torch.eye(width))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                off = x - x.mean(0)
                self.mean.lerp_(x.mean(0), 0.05)
                self.covariance.lerp_(off.T @ off / len(x), 0.05)
        values, vectors = torch.linalg.eigh(self.covariance + 1e-2 * torch.eye(len(self.mean)))
        return (x - self.mean) @ (vectors * values.rsqrt()) @ vectors.T


def behind(*fronts: nn.Module) -> nn.Module:
    return nn.Sequential(*fronts, nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))


@pytest.mark.parametrize(("front", "name"), [(PlainMean, "0.mean"), (PlainScale, "0.scale")])
def test_attributes_that_no_file_holds_are_refused_by_name(front: Callable[[], nn.Module], name: str) -> None:
    module = trained(lambda: behind(front()), 1, steps=20)
    with pytest.raises(ValueError, match=rf"the attributes \['{name}'\] change.*register_buffer.*buffers=\['{name}'\]"):
        LossSurface(module, data(), mse)
    surface = LossSurface(module, data(), mse, buffers=[name])
    assert surface.loss(surface.point()) == pytest.approx(own_loss(module), rel=1e-6)


def test_attributes_are_where_they_were() -> None:
    module = behind(PlainMean())
    before, mean = module[0].mean.clone(), module[0].mean
    with pytest.raises(ValueError, match="the attributes"):
        LossSurface(module, data(), mse)
    assert module[0].mean is mean
    assert torch.equal(module[0].mean, before)


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("front", [MovingAverage, Welford])
def test_a_count_of_steps_is_as_it_is(saved: bool, front: Callable[[int], nn.Module]) -> None:
    a, b = (trained(lambda: behind(front(6), Steps(saved)), seed, steps=160) for seed in (1, 2))
    surface = LossSurface(a, data(), mse)
    assert surface.loss(surface.point()) == pytest.approx(own_loss(a), rel=0.02)
    assert surface.loss(surface.point(b.state_dict())) == pytest.approx(own_loss(b), rel=0.02)


def test_another_count_is_refused_where_it_changes_the_loss() -> None:
    a, b = (trained(lambda: behind(MovingAverage(6), Steps(True)), 1, steps=steps) for steps in (80, 160))
    with pytest.raises(ValueError, match=r"buffers \['1\.step'\] differ.*pass buffers=\['1\.step'\]"):
        LossSurface(a, data(), mse).point(b.state_dict())


def test_a_state_that_would_lack_estimates_is_refused_by_name() -> None:
    a, b = (trained(lambda: behind(Unsaved(6)), seed, steps=160) for seed in (1, 2))
    surface = LossSurface(a, data(), mse)
    assert surface.loss(surface.point(b.state_dict())) == pytest.approx(own_loss(b), rel=0.02)
    with pytest.raises(ValueError, match=r"buffers \['0\.mean'\] are estimated.*register them with persistent=True"):
        surface.state(surface.point())


HARD: dict[str, Callable[[], nn.Module]] = {
    "renormalised": lambda: nn.Sequential(
        MovingAverage(6), nn.Linear(6, 12), Renormalised(12), nn.Tanh(), nn.Linear(12, 3)
    ),
    "whitened": lambda: nn.Sequential(MovingAverage(6), nn.Linear(6, 12), Whitened(12), nn.Tanh(), nn.Linear(12, 3)),
    "spectral norm of a weight norm": lambda: nn.Sequential(
        MovingAverage(6),
        parametrizations.spectral_norm(parametrizations.weight_norm(nn.Linear(6, 12))),
        nn.Tanh(),
        nn.Linear(12, 3),
    ),
}


@pytest.mark.parametrize("case", HARD)
def test_estimates_behind_estimates(case: str) -> None:
    a, b = (trained(HARD[case], seed, steps=400) for seed in (1, 2))
    surface, other = (LossSurface(module, data(), mse) for module in (a, b))
    theta = surface.point(b.state_dict())
    assert surface.loss(theta) == pytest.approx(own_loss(b), rel=0.3)  # its own lag by 20 batches
    middle = (surface.point() + theta) / 2
    assert surface.loss(middle) == pytest.approx(other.loss(middle), rel=5e-3)
    loaded = HARD[case]()
    loaded.load_state_dict(surface.state(middle))
    assert own_loss(loaded) == pytest.approx(surface.loss(middle), rel=1e-5)


def test_a_surface_that_is_made_before_training_estimates_what_training_fills() -> None:
    make = lambda: nn.Sequential(Welford(6), nn.Linear(6, 12), Welford(12), nn.Tanh(), nn.Linear(12, 3))  # noqa: E731
    surface = LossSurface(make(), data(), mse)
    assert surface._objective.running.recipe == Recipe(1, anew=True)
    module = trained(make, 1)
    assert surface.with_module(module).loss(surface.with_module(module).point()) == pytest.approx(
        LossSurface(module, data(), mse).loss(surface.with_module(module).point()), rel=1e-6
    )


def test_what_a_surface_says_of_its_buffers() -> None:
    plain = nn.Linear(6, 3)
    codes = trained(lambda: nn.Sequential(nn.Linear(6, 4), Codebook(4), nn.Linear(4, 3)), 1, steps=100)
    said = [LossSurface(m, data(), mse) for m in (plain, nn.Sequential(nn.BatchNorm1d(6), plain), codes)]
    assert [(surface.buffers, surface.unknown) for surface in said] == [
        ("kept", []),
        ("estimated", []),
        ("kept", ["1.codes"]),
    ]
    assert LossSurface(codes, data(), mse, buffers=["*codes"]).unknown == []


def test_batch_norm_that_averages_over_all_of_training_is_told_of_in_both_directions() -> None:
    def make() -> nn.Module:
        norms = (nn.BatchNorm1d(6, momentum=None), nn.BatchNorm1d(12, momentum=None))
        return nn.Sequential(norms[0], nn.Linear(6, 12), norms[1], nn.Tanh(), nn.Linear(12, 3))

    module = trained(make, 1, steps=100, settle=False)
    with torch.no_grad():
        module[2].running_mean += 3 * module[2].running_var.sqrt()  # as early weights leave it
    surface = LossSurface(module, data(), mse)
    assert own_loss(module) > 2 * surface.loss(surface.point())
    with pytest.warns(UserWarning, match="under earlier weights"):
        surface.point(module.state_dict())


def test_frozen_parameters_can_be_shared() -> None:
    def make() -> nn.Module:
        net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
        net[0].requires_grad_(False)
        return net

    a, b = make(), make()
    with pytest.raises(ValueError, match=r"pass buffers=\['0\.bias'\]"):
        LossSurface(a, data(), mse).point(b.state_dict())
    surface = LossSurface(a, data(), mse, buffers=["0.*"])
    value = surface.loss(surface.point(b.state_dict()))
    with torch.no_grad():
        expected = sum(functional.mse_loss(b[1](a[0](x)), y).item() for x, y in data()) / len(data())
    assert value == pytest.approx(expected, rel=1e-5)
