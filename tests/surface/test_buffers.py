"""At an end of a pair E is the loss of that model with its own buffers, or the pair is refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm

from lightning_landscape import LossSurface
from lightning_landscape.finders import LinearPath
from tests.cases.running import NORMALISERS, Codebook, MovingAverage, Welford, data, mse, own_loss, trained


def behind(front: Callable[[int], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(front(6), nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))


def spectral(normalise: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        MovingAverage(6), normalise(nn.Linear(6, 32)), nn.Tanh(), normalise(nn.Linear(32, 12)), nn.Linear(12, 3)
    )


def instance_norm() -> nn.Module:
    norm = nn.InstanceNorm1d(3, track_running_stats=True)
    return nn.Sequential(
        nn.BatchNorm1d(6), nn.Linear(6, 12), nn.Unflatten(1, (3, 4)), norm, nn.Flatten(), nn.Linear(12, 3)
    )


ESTIMATED = {name: behind(front) for name, front in NORMALISERS.items()} | {
    "spectral norm": spectral(parametrizations.spectral_norm),
    "old spectral norm": spectral(spectral_norm),
    "instance norm": instance_norm,
}


@pytest.mark.parametrize("case", ESTIMATED)
def test_e_at_a_partner_is_its_own_loss_and_a_point_can_be_loaded(case: str) -> None:
    a, b = (trained(ESTIMATED[case], seed) for seed in (1, 2))
    surface = LossSurface(a, data(), mse)
    theta = surface.point(b.state_dict())
    assert surface.loss(surface.point()) == pytest.approx(own_loss(a), rel=0.1)
    assert surface.loss(theta) == pytest.approx(own_loss(b), rel=0.1)
    # The surface over the other model has the same values: no buffer of the one reaches the other's.
    other = LossSurface(b, data(), mse)
    middle = (surface.point() + theta) / 2
    assert surface.loss(middle) == pytest.approx(other.loss(middle), rel=1e-3)
    for point in (theta, middle):
        loaded = ESTIMATED[case]()
        loaded.load_state_dict(surface.state(point))
        assert own_loss(loaded) == pytest.approx(surface.loss(point), rel=1e-5)
    assert not a.training
    assert surface.choice() == {"losses": False, "gradients": False} or case == "instance norm"


def test_the_height_of_a_line_between_spectral_norms_is_no_artefact() -> None:
    a, b = (trained(ESTIMATED["spectral norm"], seed) for seed in (1, 2))
    surface = LossSurface(a, data(), mse)
    found = LinearPath().connect(surface, surface.point(), surface.point(b.state_dict()))
    assert max(found.loss_a, found.loss_b) < found.height < 3


def masked() -> nn.Module:
    net = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    prune.random_unstructured(net[0], "weight", 0.5)
    return net


FIXED = {
    "pruning masks": (masked, "0.weight_mask"),
    "codebook": (lambda: nn.Sequential(nn.Linear(6, 4), Codebook(4), nn.Linear(4, 3)), "1.codes"),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(6, 3)), "parametrizations.weight.0.base"),
}


@pytest.mark.parametrize("case", FIXED)
def test_what_cannot_be_estimated_is_refused_by_name_unless_it_is_shared(case: str) -> None:
    make, name = FIXED[case]
    a, b = (trained(make, seed, steps=100) for seed in (1, 2))
    surface = LossSurface(a, data(), mse)
    with pytest.raises(ValueError, match=rf"'{name}'.*buffers=\['{name}'\]"):
        surface.point(b.state_dict())
    surface = LossSurface(a, data(), mse, buffers=[f"*{name[-5:]}"])
    with_a = make()
    with_a.load_state_dict(b.state_dict() | {name: a.state_dict()[name]})
    assert surface.loss(surface.point(b.state_dict())) == pytest.approx(own_loss(with_a), rel=1e-5)
    same = LossSurface(a, data(), mse)
    assert same.loss(same.point(a.state_dict())) == pytest.approx(own_loss(a), rel=0.02)


def lagging() -> nn.Module:
    return nn.Sequential(MovingAverage(6), nn.Linear(6, 12), Welford(12), nn.Tanh(), nn.Linear(12, 3))


def test_averages_that_lag_behind_the_weights_are_estimated_and_told_of() -> None:
    a, b = (trained(lagging, seed, settle=False) for seed in (1, 2))
    surface = LossSurface(a, data(), mse)
    with pytest.warns(UserWarning, match="taken over other batches or under earlier weights"):
        theta = surface.point(b.state_dict())
    # The statistics of b's own weights, computed by hand.
    inputs = torch.cat([x for x, _ in data()])
    mean, var = (torch.stack([f(x) for x, _ in data()]).mean(0) for f in (lambda x: x.mean(0), lambda x: x.var(0)))
    with torch.no_grad():
        hidden = b[1]((inputs - mean) / (var + 1e-5).sqrt())
        b[0].mean.copy_(mean), b[0].var.copy_(var)
        b[2].mean.copy_(hidden.mean(0)), b[2].var.copy_(hidden.var(0, unbiased=False))
    assert surface.loss(theta) == pytest.approx(own_loss(b), rel=0.03)


class Sequentially(nn.Module):
    """Count, mean and sum of squared deviations, one example after another, as agents normalise what they observe."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        for name in ("mean", "squares"):
            self.register_buffer(name, torch.zeros(width, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        for row in x.detach().double() if self.training else ():
            self.count += 1
            off = row - self.mean
            self.mean += off / self.count
            self.squares += off * (row - self.mean)
        scale = (self.squares / (self.count - 1).clamp(min=1)).clamp(min=1e-4).sqrt()
        return ((x - self.mean) / scale).to(x.dtype)


def test_sums_around_a_mean_are_estimated() -> None:
    make = lambda: nn.Sequential(nn.Linear(6, 5), Sequentially(5), nn.Tanh(), nn.Linear(5, 3))  # noqa: E731
    a, b = (trained(make, seed, steps=20) for seed in (1, 2))
    surface = LossSurface(a, data(), mse)
    found = surface.state(surface.point(b.state_dict()))
    with torch.no_grad():
        hidden = b[0](torch.cat([x for x, _ in data()])).double()
    torch.testing.assert_close(found["1.mean"], hidden.mean(0))
    torch.testing.assert_close(found["1.squares"] / (found["1.count"] - 1), hidden.var(0))


class SetByTheFirstBatch(nn.Module):
    """A shift that the first batch decides, and that is trained from then on."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(6))
        self.register_buffer("begun", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.begun:
            self.shift.data.copy_(-x.mean(0))
            self.begun.fill_(True)
        return x + self.shift


def test_a_layer_that_sets_its_weights_by_the_first_batch_does_not_set_them_at_every_point() -> None:
    module = nn.Sequential(SetByTheFirstBatch(), nn.Linear(6, 3))
    surface = LossSurface(module, data(), mse)
    assert surface.loss(surface.point()) == pytest.approx(own_loss(module), rel=1e-6)
    theta = surface.point() + 0.1
    loaded = nn.Sequential(SetByTheFirstBatch(), nn.Linear(6, 3))
    loaded.load_state_dict(surface.state(theta))
    assert surface.loss(theta) == pytest.approx(own_loss(loaded), rel=1e-6)


def test_frozen_parameters_that_change_the_loss_are_refused_and_others_may_differ() -> None:
    def make(read: bool) -> nn.Module:
        net = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 3))
        net[1 if read else 0].requires_grad_(False)
        return net if read else nn.ModuleList([net[0], net[1]])

    a, b = make(read=True), make(read=True)
    with pytest.raises(ValueError, match=r"2 frozen parameters differ.*'1\.bias', '1\.weight'.*change the loss"):
        LossSurface(a, data(), mse).point(b.state_dict())
    last = lambda module, batch: mse(module[1], (batch[0][:, :3], batch[1]))  # noqa: E731
    a, b = make(read=False), make(read=False)
    surface = LossSurface(a, data(), last)
    expected = LossSurface(b, data(), last)
    assert surface.loss(surface.point(b.state_dict())) == expected.loss(expected.point())
    assert torch.equal(surface.state(surface.point())["0.weight"], a[0].weight)


def test_the_state_of_a_compiled_module_has_its_names() -> None:
    module = torch.compile(nn.Linear(6, 3), backend="eager")
    surface = LossSurface(module, data(), mse)
    module.load_state_dict(surface.state(surface.point() + 1))
    assert own_loss(module) == pytest.approx(surface.loss(surface.point() + 1), rel=1e-6)


def test_buffers_that_the_loss_does_not_read_may_differ() -> None:
    class Watched(nn.Linear):
        def __init__(self) -> None:
            super().__init__(6, 3)
            self.register_buffer("best", torch.zeros(()))

    a, b = Watched(), Watched()
    b.best.fill_(3.0)
    surface = LossSurface(a, data(), mse)
    assert surface.loss(surface.point(b.state_dict())) == pytest.approx(own_loss(b), rel=1e-6)


def test_a_pattern_that_names_no_buffer_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"buffers='\*mask' names no buffer of the module, which has \['1.running_mean'"
    ):
        LossSurface(nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)), data(), mse, buffers=["*mask"])


def test_normalisers_that_their_owner_froze_keep_what_they_have() -> None:
    module = behind(MovingAverage)()
    module[0].eval()
    module[0].mean.fill_(4.0)
    surface = LossSurface(module, data(), mse)
    assert surface.loss(surface.point()) == pytest.approx(own_loss(module), rel=1e-6)
    assert torch.equal(surface.state(surface.point())["0.mean"], module[0].mean)


def test_few_examples_under_batch_norm_are_told_of() -> None:
    module = trained(lambda: nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 3)), 1)
    surface = LossSurface(
        nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 3)),
        [(x[:2], y[:2]) for x, y in data()[:1]],
        mse,
    )
    with pytest.warns(UserWarning, match="give more or larger batches"):
        surface.point(module.state_dict())


def test_a_buffer_that_a_forward_pass_resizes_is_put_back() -> None:
    class Observed(nn.Linear):
        def __init__(self) -> None:
            super().__init__(6, 3)
            self.register_buffer("low", torch.zeros(0))

        def forward(self, x: Tensor) -> Tensor:
            lowest = x.detach().amin(0)
            self.low = lowest if self.low.numel() == 0 else torch.minimum(self.low, lowest)
            return super().forward(x - self.low)

    surface = LossSurface(Observed(), data(), mse)
    thetas = surface.point().repeat(3, 1)
    assert surface.losses(thetas).unique().numel() == 1
    assert surface.gradients(thetas, data()[0])[1].isfinite().all()
