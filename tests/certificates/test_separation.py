"""What is proved apart is apart, and what a path joins is never proved apart."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_landscape import LossSurface
from lightning_landscape.certificates import certify, same_component, separation_bound
from lightning_landscape.certificates.operation import UnsupportedError
from lightning_landscape.certificates.segmented import least_error
from lightning_landscape.certificates.separation import OneLine
from lightning_landscape.finders import Budget, DynamicStringSampling
from lightning_landscape.models import ReLUNetwork

LANDSCAPES = range(20)


def network(units: int = 3, outputs: int = 1, bias: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Linear(1, units), nn.ReLU(), nn.Linear(units, outputs, bias=bias)).double()


def planted(seed: int, outputs: int = 1) -> tuple[nn.Sequential, Tensor, tuple[Tensor, Tensor]]:
    """A network whose kinks lie among its data, the data with a little noise, and the point."""
    generator = torch.Generator().manual_seed(seed)
    module, units = network(outputs=outputs), 3
    s = torch.linspace(-2, 2, 24, dtype=torch.float64)[:, None]
    slopes = torch.randint(2, (units,), generator=generator) * 2.0 - 1
    kinks = torch.tensor([-1.2, 0.1, 1.1]) + 0.2 * torch.rand(units, generator=generator)
    turns = torch.tensor([1.0, -2.0, 2.0]) * (1 + torch.rand(outputs, units, generator=generator))
    theta = torch.cat([slopes, -slopes * kinks, turns.flatten(), torch.zeros(outputs)]).double()
    nn.utils.vector_to_parameters(theta, module.parameters())
    noise = 0.01 * torch.randn(len(s), outputs, generator=generator, dtype=torch.float64)
    return module, theta, (s, module(s).detach() + noise)


def surface_of(module: nn.Module, batch: tuple[Tensor, Tensor]) -> LossSurface:
    return LossSurface(module, [batch], loss_fn=lambda net, pair: functional.mse_loss(net(pair[0]), pair[1]))


def exchanged(theta: Tensor, order: list[int], outputs: int = 1) -> Tensor:
    weight, bias, out, shift = theta.split([3, 3, 3 * outputs, outputs])
    return torch.cat([weight[order], bias[order], out.view(outputs, 3)[:, order].flatten(), shift])


def exact_error(s: list[float], y: list[float], weights: list[float], pieces: int) -> Fraction:
    points = sorted(set(map(Fraction, s)))
    data = [(Fraction(a), Fraction(b), Fraction(c)) for a, b, c in zip(s, y, weights, strict=True)]

    def residual(low: int, high: int) -> Fraction:
        own = [row for row in data if points[low] <= row[0] <= points[high - 1]]
        mass = sum(w for _, _, w in own)
        s0, y0 = (sum(row[k] * row[2] for row in own) / mass for k in (0, 1))
        ss, sy, yy = (
            sum(w * u * v for u, v, w in ((row[i] - a, row[j] - b, row[2]) for row in own))
            for i, j, a, b in ((0, 0, s0, s0), (0, 1, s0, y0), (1, 1, y0, y0))
        )
        return Fraction(yy - (sy * sy / ss if ss else 0))

    best: dict[int, Fraction] = {0: Fraction(0)}
    for _ in range(pieces):
        best = {
            end: min([best[i] + residual(i, end) for i in best if i < end], default=Fraction(0))
            for end in range(len(points) + 1)
        }
    return best[len(points)]


@pytest.mark.parametrize("seed", range(40))
def test_least_error_lies_just_below_that_in_exact_arithmetic(seed: int) -> None:
    draw = np.random.default_rng(seed)
    count, pieces = int(draw.integers(1, 11)), int(draw.integers(1, 5))
    s = draw.normal(size=count) * 10.0 ** draw.integers(-3, 4) + draw.choice([0, 10])
    s = np.round(s) if seed % 3 == 0 else s
    y, weights = draw.normal(size=count), draw.uniform(0.1, 1, size=count)
    found = least_error(s, y[:, None], weights, pieces)
    exact = exact_error(s.tolist(), y.tolist(), weights.tolist(), pieces)
    assert Fraction(found) <= exact
    assert found >= float(exact) * (1 - 1e-6) - 1e-9


def test_several_outputs_share_their_intervals() -> None:
    s, ones = np.arange(6.0), np.ones(6)
    early, late = np.array([0.0, 1, 0, -1, -2, -3]), np.array([0.0, 1, 2, 3, 2, 1])
    assert least_error(s, early[:, None], ones, 2) == pytest.approx(0, abs=1e-9)
    assert least_error(s, late[:, None], ones, 2) == pytest.approx(0, abs=1e-9)
    assert least_error(s, np.stack([early, late], 1), ones, 2) > 0.3


@pytest.mark.parametrize("seed", LANDSCAPES)
def test_no_point_of_a_wall_lies_below_the_height(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    module, theta, batch = planted(seed)
    surface, height = surface_of(module, batch), separation_bound(module, batch)
    for number in range(100):
        point = theta + 0.5 * torch.randn(len(theta), generator=generator, dtype=torch.float64)
        weight, bias, used = point[:3], point[3:6], [0, 1, 2]
        match number % 5:
            case 0:
                used = [1, 2]  # an output weight that is zero
            case 1:
                weight[1] = 0.0
            case 2:  # two kinks in one place
                weight[1], bias[1] = weight[0], bias[0]
            case 3:
                weight[1], bias[1] = -2 * weight[0], -2 * bias[0]
            case 4:  # a kink beyond the data
                bias[0] = 7 * weight[0]
        hidden = torch.cat([(batch[0] * weight + bias).relu(), torch.ones_like(batch[0])], 1)[:, [*used, 3]]
        best = torch.linalg.lstsq(hidden, batch[1], driver="gelsd").solution.flatten()  # the least E of the wall
        point[6:9] = 0.0
        point[[*(6 + unit for unit in used), 9]] = best
        assert surface.loss(point) >= height


@pytest.mark.parametrize("seed", LANDSCAPES)
def test_separated_landscapes_are_proved_so_and_no_path_is_certified(seed: int) -> None:
    module, theta, batch = planted(seed)
    surface = surface_of(module, batch)
    for order in ([1, 0, 2], [0, 2, 1], [1, 2, 0]):
        other = exchanged(theta, order)
        found = same_component(module, theta, other, batch)
        assert found.separated
        assert not found.reordered
        level = 0.99 * found.height
        path = DynamicStringSampling().connect(surface, theta, other, level=level, budget=Budget(200))
        assert not path.connected
        assert not certify(surface, path, level).certified


@pytest.mark.parametrize("seed", LANDSCAPES)
def test_connected_landscapes_are_never_proved_separated(seed: int) -> None:
    """A walk that E allows, with units that grow and shrink by factors at one and the same E."""
    generator = torch.Generator().manual_seed(seed)
    module, theta, batch = planted(seed)
    surface, line = surface_of(module, batch), OneLine.of_module(module, batch)
    here, moved = theta, 0
    for _ in range(60):
        grown = torch.exp(0.3 * torch.randn(3, generator=generator, dtype=torch.float64))
        there = here * torch.cat([grown, grown, 1 / grown, grown.new_ones(1)])
        there = there + 0.02 * torch.randn(len(theta), generator=generator, dtype=torch.float64)
        if certify(surface, torch.stack([here, there]), line.height * 0.999).certified:
            here, moved = there, moved + 1
            assert not line.compare(theta, here).separated
    assert moved > 2


def test_units_that_look_the_other_way_are_separated_after_every_reordering() -> None:
    module = network(units=2)
    s = torch.linspace(-2, 2, 21, dtype=torch.float64)[:, None]
    batch = s, (s + 1).relu() - (s - 1).relu()  # which is 2 + relu(-s - 1) - relu(1 - s)
    right = torch.tensor([1.0, 1, 1, -1, 1, -1, 0], dtype=torch.float64)
    left = torch.tensor([-1.0, -1, -1, 1, 1, -1, 2], dtype=torch.float64)
    assert same_component(module, right, left, batch).reordered
    swapped = left[[1, 0, 3, 2, 5, 4, 6]]
    assert same_component(module, right, swapped, batch).reordered
    alone = same_component(module, left, swapped, batch)
    assert alone.separated
    assert not alone.reordered


@pytest.mark.parametrize("seed", range(5))
def test_with_two_outputs_the_order_counts_and_the_signs_of_output_weights_do_not(seed: int) -> None:
    module, theta, batch = planted(seed, outputs=2)
    assert same_component(module, theta, exchanged(theta, [1, 0, 2], 2), batch).separated
    line = OneLine.of_module(module, batch)
    turned = theta.clone()
    turned[6:12] *= -1
    assert line.label(theta) == line.label(turned)


def test_a_column_of_ones_is_a_bias() -> None:
    module, theta, (s, y) = planted(0)
    plain = ReLUNetwork([2, 3, 1]).double()
    weight, bias, out, _ = theta.split([3, 3, 3, 1])
    flat = torch.cat([torch.stack([weight, bias], 1).flatten(), out])
    swapped = torch.cat([torch.stack([weight, bias], 1)[[1, 0, 2]].flatten(), out[[1, 0, 2]]])
    batch = torch.cat([s, torch.ones_like(s)], 1), y
    assert separation_bound(plain, batch) == separation_bound(module, (s, y))
    assert same_component(plain, flat, swapped, batch).separated


def test_a_point_above_the_height_proves_nothing() -> None:
    module, theta, batch = planted(0)
    far = exchanged(theta, [1, 0, 2]) * 3
    found = same_component(module, theta, far, batch)
    assert not found.separated
    assert found.reason is not None
    assert "not below" in found.reason


def test_walls_have_no_label() -> None:
    module, theta, batch = planted(0)
    line = OneLine.of_module(module, batch)
    for index in (0, 6):
        wall = theta.clone()
        wall[index] = 0.0
        assert line.label(wall) is None


@pytest.mark.parametrize(
    ("module", "x", "message"),
    [
        (nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), torch.randn(6, 2), "along a line"),
        (nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)), torch.randn(6, 1), "one hidden layer"),
        (nn.Sequential(nn.Linear(1, 3)), torch.randn(6, 1), "one hidden layer"),
        (nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1)), torch.ones(6, 1), "along a line"),
    ],
)
def test_what_no_proof_covers_is_refused_by_name(module: nn.Module, x: Tensor, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        separation_bound(module, (x, torch.randn(6, len(module(x)[0]))))


def test_the_order_along_a_long_walk_is_that_of_its_parts() -> None:
    module, theta, batch = planted(3)
    orders = [exchanged(theta, order) for order in ([0, 1, 2], [1, 0, 2], [1, 2, 0], [2, 1, 0])]
    assert all(same_component(module, a, b, batch).separated for a, b in pairwise(orders))
