from __future__ import annotations

import pytest
import torch

from lightning_landscape import LossSurface, Path, Profile
from lightning_landscape.models import DeepLinearNetwork, QuadraticNetwork
from lightning_landscape.theory import PathBound, measure_bound


def line(num_points: int = 11) -> PathBound:
    """E(w) = (w - 1)^2 on the way from w = 0 to w = 3, of a network that is one number."""
    path = Path(torch.tensor([[0.0], [3.0]], dtype=torch.float64))
    return measure_bound(DeepLinearNetwork(1, 1, []), path, (torch.ones(2, 1), torch.ones(2, 1)), num_points, scale=1.0)


def test_the_profile_is_the_loss_along_the_path() -> None:
    bound = line()
    for t, loss in zip(*bound.profile, strict=True):
        assert loss == pytest.approx((3 * t - 1) ** 2, abs=1e-14)
    assert bound.height == 4.0
    assert bound.excess == 0.0
    assert bound.rise == pytest.approx(4.0 - min(bound.profile.loss))


def test_it_agrees_with_the_loss_surface() -> None:
    module = QuadraticNetwork(2, 3, 2)
    batch = torch.randn(5, 2), torch.randn(5, 2)
    path = Path(torch.randn(4, 12, dtype=torch.float64))
    bound = measure_bound(module, path, batch, num_points=7)
    surface = LossSurface(module.double(), [tuple(part.double() for part in batch)])
    expected = surface.losses(path(bound.profile.t))
    torch.testing.assert_close(torch.tensor(bound.profile.loss, dtype=torch.float64), expected)
    assert bound.scale == max(bound.profile.loss[0], bound.profile.loss[-1])


def test_beads_and_middles_are_measured_besides_the_equal_steps() -> None:
    path = Path(torch.tensor([[0.0], [1.0], [4.0]]))
    bound = measure_bound(DeepLinearNetwork(1, 1, []), path, (torch.ones(2, 1), torch.ones(2, 1)), 3)
    assert bound.profile.t == (0.0, 0.125, 0.25, 0.5, 0.625, 1.0)
    assert bound.profile.loss == (1.0, 0.25, 0.0, 1.0, 2.25, 9.0)


def test_beads_closer_than_the_rounding_of_t_are_measured() -> None:
    # The product of the two weights is 0 on the long way and turns into 1 on the last, very short one.
    path = Path(torch.tensor([[0.0, 0.0], [2.0**60, 0.0], [2.0**60, 2.0**-60]], dtype=torch.float64))
    batch = torch.ones(2, 1), torch.ones(2, 1)
    bound = measure_bound(DeepLinearNetwork(1, 1, [1]), path, batch, 3)
    assert bound.profile.t == (0.0, 0.5, 1.0, 1.0, 1.0)
    assert bound.profile.loss == (1.0, 1.0, 1.0, 0.25, 0.0)
    assert measure_bound(DeepLinearNetwork(1, 1, [1]), path.reversed(), batch, 3).rise == 1.0


@pytest.mark.parametrize(
    ("losses", "excess", "rise"),
    [((2.0, 1.0, 0.0), 0.0, 0.0), ((1.0, 3.0, 2.0), 0.5, 1.0), ((2.0, 0.0, 1.0, 2.0), 0.0, 1.0)],
)
def test_excess_and_rise(losses: tuple[float, ...], excess: float, rise: float) -> None:
    bound = PathBound(Profile(tuple(range(len(losses))), losses), scale=2.0)
    assert (bound.excess, bound.rise) == (excess, rise)


def test_a_loss_that_overflows_is_no_bound() -> None:
    path = Path(torch.tensor([[0.0], [1e200]], dtype=torch.float64))
    bound = measure_bound(DeepLinearNetwork(1, 1, []), path, (torch.ones(2, 1), torch.ones(2, 1)), 5, scale=1.0)
    assert not bound.excess <= 1e-9
    assert not bound.rise <= 1e-9


def test_module_and_gradients_are_left_alone() -> None:
    module = DeepLinearNetwork(2, 2, [2])
    before = [parameter.clone() for parameter in module.parameters()]
    measure_bound(module, Path(torch.randn(3, 8)), (torch.randn(4, 2), torch.randn(4, 2)))
    assert all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))
    assert all(parameter.dtype == torch.float32 and parameter.grad is None for parameter in module.parameters())


def test_bad_arguments() -> None:
    path, batch = Path(torch.ones(2, 1)), (torch.ones(2, 1), torch.ones(2, 1))
    with pytest.raises(ValueError, match="num_points must be at least 2, got 1"):
        measure_bound(DeepLinearNetwork(1, 1, []), path, batch, num_points=1)
    with pytest.raises(ValueError, match="path must be finite"):
        measure_bound(DeepLinearNetwork(1, 1, []), Path(torch.tensor([[0.0], [float("inf")]])), batch)
    with pytest.raises(ValueError, match=r"relative to 0\.0: give a positive scale"):
        measure_bound(DeepLinearNetwork(1, 1, []), path, batch)
