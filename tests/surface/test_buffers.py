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


def test_averages_that_lag_behind_the_weights_are_refused() -> None:
    make = lambda: nn.Sequential(MovingAverage(6), nn.Linear(6, 12), Welford(12), nn.Tanh(), nn.Linear(12, 3))  # noqa: E731
    a, b = (trained(make, seed, settle=False) for seed in (1, 2))
    with pytest.raises(ValueError, match=r"'2\.mean'"):
        LossSurface(a, data(), mse).point(b.state_dict())


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
