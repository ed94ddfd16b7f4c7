from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from lightning_landscape import LossSurface
from lightning_landscape.finders import (
    AutoNEB,
    BezierCurve,
    Budget,
    DynamicStringSampling,
    Ladder,
    LinearPath,
    PolygonalChain,
    SimplifiedString,
)
from lightning_landscape.models import ReLUNetwork
from lightning_landscape.path import Path
from lightning_landscape.theory import kink_ordering
from lightning_landscape.theory.separated_components import Counterexample, component, counterexample
from lightning_landscape.theory.weight_lists import flatten, weights_at

SINGLE = [(1, 1, 1), (2, 1, 1), (3, 4, 1, 2), (2, 1, 1, 3, 2), (2, 5, 1, 1)]
SPANNING = [(2, 2, 1), (2, 3, 2), (3, 3, 4), (2, 5, 4), (5, 4, 3), (2, 3, 3, 2), (4, 2, 5, 3, 2, 1), (2, 4, 4, 4, 3)]
ORDERED = [(2, 3, 1), (2, 6, 1), (4, 5, 3), (2, 2, 3, 1), (2, 3, 4, 2), (3, 4, 5, 1)]
PAIRS = [(1, 2, 1), (1, 2, 3), (1, 2, 4, 1), (2, 2, 5, 4, 1), (1, 3, 2, 1), (1, 4, 3, 2, 2), (1, 2, 2, 2, 1)]
ALL = SINGLE + SPANNING + ORDERED + PAIRS


def surface_of(example: Counterexample) -> LossSurface:
    return LossSurface(example.module, [example.batch])


@pytest.mark.parametrize("widths", ALL)
def test_both_ends_are_the_same_minimum_below_the_height_and_differ_in_their_label(widths: tuple[int, ...]) -> None:
    example = counterexample(widths)
    surface = surface_of(example)
    least = 0.5 if widths in SINGLE else 0.0
    assert surface.loss(example.theta_a) == pytest.approx(least, abs=1e-20)
    assert surface.loss(example.theta_b) == pytest.approx(least, abs=1e-20)
    assert torch.equal(surface.point(), example.theta_a)
    assert example.theta_a.dtype == example.batch[0].dtype == torch.float64
    assert float(example.batch[1].square().sum(1).mean()) == pytest.approx(1.0)
    assert example.separating_height > least + 1e-6
    assert component(example.module, example.theta_a) != component(example.module, example.theta_b)
    assert None not in (component(example.module, example.theta_a), component(example.module, example.theta_b))


@pytest.mark.parametrize("widths", SPANNING + ORDERED + PAIRS)
def test_the_ends_compute_one_function(widths: tuple[int, ...]) -> None:
    example = counterexample(widths)
    surface, x = surface_of(example), torch.randn(50, widths[0], dtype=torch.float64)
    first, second = (functional_call(example.module, surface.state(theta), (x,)) for theta in example[2:4])
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("units", range(2, 7))
def test_the_height_of_the_spanning_proof_is_tight(units: int) -> None:
    example = counterexample((2, units, units - 1))
    assert example.separating_height == pytest.approx(1 / (units * (units - 1)))
    corners = example.batch[1]
    torch.testing.assert_close(
        corners @ corners.T, torch.eye(units).double() * units / (units - 1) - 1 / (units - 1), atol=1e-12, rtol=0
    )
    # Targets cut to a half-space: the best that columns can do which span no more than it.
    directions = torch.randn(3000, units - 1, dtype=torch.float64)
    directions = torch.cat([-corners, directions / directions.norm(dim=1, keepdim=True)])
    missed = (corners @ directions.T).clamp_min(0).square().sum(0) / units
    assert float(missed.min()) == pytest.approx(example.separating_height)


def test_the_known_example_of_the_paper() -> None:
    assert counterexample((2, 3, 2)).separating_height == pytest.approx(1 / 6)


@pytest.mark.parametrize("seed", range(20))
def test_a_sum_of_n_ramps_changes_sign_at_most_n_minus_1_times(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    grid = torch.linspace(-6, 6, 6001, dtype=torch.float64)
    most = 0
    for _ in range(200):
        n = int(torch.randint(1, 7, (), generator=generator))
        slopes, offsets, factors = torch.randn(3, n, 1, generator=generator, dtype=torch.float64)
        if seed % 2:  # alternating weights, the worst case
            factors = factors.abs() * (-1.0) ** torch.arange(n)[:, None]
            slopes = slopes.abs() * (1.0 if seed % 4 == 1 else torch.where(torch.arange(n)[:, None] < n // 2, -1.0, 1))
        values = (factors * torch.relu(slopes * grid + offsets)).sum(0)
        signs = values[values.abs() > 1e-12].sign()
        changes = int((signs[1:] != signs[:-1]).sum())
        assert changes <= n - 1
        most = max(most, changes)
    assert most >= 2


def least_on(loss: Callable[[Tensor], Tensor], starts: Tensor, steps: int = 150) -> float:
    """The least value that Adam meets from a stack of points."""
    points = starts.clone().requires_grad_()
    optimizer, least = torch.optim.Adam([points], lr=0.03), float("inf")
    for _ in range(steps):
        values = vmap(loss)(points)
        least = min(least, values.min().item())
        optimizer.zero_grad()
        values.sum().backward()
        optimizer.step()
    return least


def confined(proof: str, widths: tuple[int, ...], weights: list[Tensor], noise: Tensor) -> list[Tensor]:
    """Weights put onto the wall between the components."""
    first, last = weights[0].clone(), weights[-1].clone()
    if proof == "single":
        last[0] = 0.0
    elif proof == "first pair":  # both units look the same way
        first = torch.cat([first[:, :1].abs(), first[:, 1:]], dim=1)
    elif proof == "last pair":
        last = torch.cat([last[:1].abs(), last[1:]])
    elif proof == "spanning":
        size = widths[-2] - 1
        direction = noise[:size] / noise[:size].norm()
        cut = last[:size]
        last = torch.cat([cut - direction[:, None] * torch.relu(direction @ cut), last[size:]])
    else:
        shared = torch.cat([first[:1, :2], first[1:2, :1] * first[:1, :2], first[2:, :2]])  # units 0 and 1, one kink
        first = torch.cat([shared, first[:, 2:]], dim=1)
    return [first, *weights[1:-1], last]


@pytest.mark.parametrize(
    ("proof", "widths"),
    [
        ("single", (2, 1, 3, 1)),
        ("first pair", (1, 2, 1)),
        ("first pair", (1, 2, 3, 1)),
        ("last pair", (1, 3, 2, 1)),
        ("spanning", (2, 3, 2)),
        ("spanning", (3, 4, 4, 3)),
        ("order", (2, 3, 1)),
        ("order", (2, 5, 1)),
        ("order", (2, 2, 4, 1)),
        ("order", (2, 3, 3, 1)),
    ],
)
def test_on_the_wall_no_weights_get_below_the_height(proof: str, widths: tuple[int, ...]) -> None:
    example = counterexample(widths)
    x, y = example.batch
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(max(widths), generator=generator, dtype=torch.float64)
    if proof == "spanning":
        noise[: widths[-2] - 1] = -y[0, : widths[-2] - 1]  # the direction that gives most away

    def loss(theta: Tensor) -> Tensor:
        state, parts = x, []
        for parameter in example.module.parameters():
            part, theta = theta[: parameter.numel()], theta[parameter.numel() :]
            parts.append(part.reshape(parameter.shape))
        weights = confined(proof, widths, parts, noise)
        for weight in weights[:-1]:
            state = torch.relu(state @ weight.T)
        return (state @ weights[-1].T - y).square().sum(1).mean()

    scales = torch.tensor([0.01, 0.1, 0.5, 1.0], dtype=torch.float64).repeat(4)[:, None]
    starts = example.theta_a + scales * torch.randn(16, len(example.theta_a), generator=generator, dtype=torch.float64)
    least = least_on(loss, starts)
    assert least >= example.separating_height * (1 - 1e-9)
    assert least < 1.0 if proof != "single" else least == pytest.approx(1.0)


@pytest.mark.parametrize("widths", ALL)
def test_where_the_label_is_missing_or_about_to_change_e_is_above_the_height(widths: tuple[int, ...]) -> None:
    example = counterexample(widths)
    surface = surface_of(example)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        middle = torch.lerp(example.theta_a, example.theta_b, 0.5)
        middle = middle + torch.randn(middle.shape, generator=generator, dtype=torch.float64)
        t = torch.linspace(0, 1, 60, dtype=torch.float64)[:, None]
        path = torch.cat(
            [torch.lerp(example.theta_a, middle, t), torch.lerp(middle, example.theta_b, t[1:])]
        )  # a path around
        losses = surface.losses(path)
        assert losses.max() >= example.separating_height
        labels = [component(example.module, theta) for theta in path]
        for loss, label in zip(losses, labels, strict=True):
            assert label is not None or loss >= example.separating_height * (1 - 1e-9)
        inside = [label for loss, label in zip(losses, labels, strict=True) if loss < example.separating_height]
        assert inside[0] == labels[0]
        assert inside[-1] == labels[-1]
        # Between two neighbours below the height the label cannot change.
        for index in range(len(path) - 1):
            if max(losses[index], losses[index + 1]) < 0.1 * example.separating_height:
                assert labels[index] == labels[index + 1]


@pytest.mark.parametrize("widths", [(2, 1, 2), (2, 3, 2), (2, 4, 1), (2, 3, 3, 1), (1, 2, 1), (1, 3, 2, 1)])
def test_a_walk_below_the_height_keeps_its_label(widths: tuple[int, ...]) -> None:
    example = counterexample(widths)
    surface, generator = surface_of(example), torch.Generator().manual_seed(0)
    theta, start = example.theta_a, component(example.module, example.theta_a)
    size = 0.03 * example.separating_height**0.5
    for _ in range(60):
        proposals = theta + size * torch.randn(32, len(theta), generator=generator, dtype=torch.float64)
        allowed = proposals[surface.losses(proposals) < 0.8 * example.separating_height]
        if len(allowed):
            theta = allowed[(allowed - example.theta_a).norm(dim=1).argmax()]
            assert component(example.module, theta) == start
    assert (theta - example.theta_a).norm() > 5 * size


FINDERS: dict[str, Any] = {
    "linear": LinearPath(),
    "string": DynamicStringSampling(max_depth=4, max_bead_steps=60),
    "midpoint": DynamicStringSampling(max_depth=4, max_bead_steps=60, split="midpoint"),
}
OTHERS: dict[str, Any] = {
    "string": DynamicStringSampling(),
    "chain": PolygonalChain(),
    "bezier": BezierCurve(),
    "neb": AutoNEB(),
    "simplified": SimplifiedString(),
    "ladder": Ladder(),
}


def search(finder: Any, widths: tuple[int, ...], share: float, work: float | None) -> None:
    example = counterexample(widths)
    surface = surface_of(example)
    least = surface.loss(example.theta_a)
    level = least + share * (example.separating_height - least)
    found = finder.connect(surface, example.theta_a, example.theta_b, level, budget=Budget(work))
    assert found.verdict == "not_found"
    assert found.height >= example.separating_height * (1 - 1e-3)
    assert found.path is not None
    labels = {component(example.module, theta) for theta in found.path.resample(401).beads}
    assert {component(example.module, example.theta_a), component(example.module, example.theta_b)} <= labels


@pytest.mark.parametrize("widths", [(2, 1, 1), (2, 3, 2), (2, 3, 1), (2, 3, 3, 2)])
@pytest.mark.parametrize("finder", FINDERS)
def test_finders_do_not_find_what_is_not_there(finder: str, widths: tuple[int, ...]) -> None:
    search(FINDERS[finder], widths, 0.9, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("widths", [(2, 3, 2), (2, 3, 1)])
@pytest.mark.parametrize("finder", OTHERS)
def test_no_finder_finds_what_is_not_there(finder: str, widths: tuple[int, ...]) -> None:
    search(OTHERS[finder], widths, 0.9, 2000)


def test_three_units_on_one_input_are_connected_where_two_are_not() -> None:
    two = counterexample((1, 2, 1))
    assert two.batch[1].flatten().tolist() == [1.0, 1.0]  # |x| at 1 and -1
    assert two.separating_height == 0.5
    surface = LossSurface(ReLUNetwork((1, 3, 1)).double(), [two.batch])
    corners = [
        [1.0, -1, 1, 1, 1, 0],
        [1.0, -1, 1, 0, 1, 1],  # unit 2 takes over from unit 0,
        [-1.0, -1, 1, 0, 1, 1],  # which looks the other way
        [-1.0, -1, 1, 1, 0, 1],  # and takes over from unit 1
        [-1.0, 1, 1, 1, 0, 1],
        [-1.0, 1, 1, 1, 1, 0],
    ]
    assert surface.losses(Path(torch.tensor(corners, dtype=torch.float64)).resample(101).beads).max() < 1e-20


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((1, 3, 1), "all level sets are connected"),
        ((1, 3, 3, 1), "the first or the last hidden layer must have two units"),
        ((2, 4, 4, 4, 1), "at least 3 outputs"),
        ((2, 3), "at least one hidden layer"),
        ((2, 0, 1), r"widths\[1\] must be an integer of at least 1"),
        ((2, 2.5, 1), r"widths\[1\] must be an integer of at least 1"),
    ],
)
def test_widths_without_a_proof_are_refused(widths: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        counterexample(widths)


def test_a_label_needs_parameters_of_the_module() -> None:
    module = ReLUNetwork((2, 3, 2))
    with pytest.raises(ValueError, match=r"expected parameters of shape \(12,\)"):
        component(module, torch.zeros(11))
    assert component(module, torch.zeros(12)) is None


def test_nothing_is_drawn_at_random() -> None:
    before = torch.get_rng_state()
    first, second = counterexample((2, 4, 1)), counterexample([2, 4, 1])
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.theta_b, second.theta_b)


@pytest.mark.parametrize("widths", ORDERED)
def test_the_data_need_every_kink_that_the_network_has(widths: tuple[int, ...]) -> None:
    weights, x, _ = kink_ordering.fitted(widths)
    second = widths[2] if len(widths) == 4 else 0
    assert len(x) == 2 * (widths[1] + second * (widths[1] - 1)) + 1
    assert bool((x[1:, 0] > x[:-1, 0]).all())
    y = counterexample(widths).batch[1]
    lines = [np.polyfit(x[i - 1 : i + 2, 0], y[i - 1 : i + 2, 0], 1, full=True)[1] for i in range(1, len(x), 2)]
    assert counterexample(widths).separating_height == pytest.approx(np.min(lines) / len(x), rel=1e-6)
    # Units taken out one at a time: none of them can be spared.
    module = ReLUNetwork(widths).double()
    for unit in range(widths[1]):
        fewer = [weight.clone() for weight in weights]
        fewer[1][:, unit] = 0.0
        assert component(module, flatten(weights_at(module, flatten(fewer)))) is not None
        torch.nn.utils.vector_to_parameters(flatten(fewer), module.parameters())
        assert module.squared_error((x, y)).item() >= counterexample(widths).separating_height


def test_a_relu_network_is_its_formula() -> None:
    module, x = ReLUNetwork((3, 4, 2, 5)), torch.randn(6, 3)
    first, second, third = module.parameters()
    torch.testing.assert_close(module(x), torch.relu(torch.relu(x @ first.T) @ second.T) @ third.T)
