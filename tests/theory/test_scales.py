"""The constructions on data and weights far from 1, where monomials of different degrees differ by powers of ten."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from theorem_cases import Batch, batch_of, theta_of
from torch import Tensor, nn

from lightning_landscape.models import DeepLinearNetwork, PolynomialNetwork, QuadraticNetwork
from lightning_landscape.theory import connecting_path, descent_path, measure_bound
from lightning_landscape.theory.attained import require_minimum
from lightning_landscape.theory.intrinsic_dimension import intrinsic_dimension

SIZES = (1e-6, 1e-3, 1.0, 1e3, 1e6)


def polynomial(coefficients: tuple[float, ...]) -> PolynomialNetwork:
    return PolynomialNetwork(2, 2 * intrinsic_dimension(2, coefficients), 1, coefficients)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "z^2 + 1": partial(polynomial, (1.0, 0.0, 1.0)),
    "z^3 + z": partial(polynomial, (1.0, 0.0, 1.0, 0.0)),
    "z^4 + 1": partial(polynomial, (1.0, 0.0, 0.0, 0.0, 1.0)),
    "1e-6 z^2 + z": partial(polynomial, (1e-6, 1.0, 0.0)),
    "quadratic": partial(QuadraticNetwork, 2, 12, 1),
    "linear": partial(DeepLinearNetwork, 2, 1, [3, 3]),
}


def scaled(module: nn.Module, of_inputs: float, of_weights: float) -> tuple[Batch, Tensor, Tensor]:
    x, y = batch_of("generic", 2, 1, 3)
    ends = [theta_of("generic", module, seed) for seed in (1, 2)]
    first = next(module.parameters()).numel()
    for theta in ends:
        theta[:first] *= of_weights
    return (of_inputs * x, y), ends[0], ends[1]


def least_error(module: nn.Module, batch: Batch) -> float:
    """The minimum of E by another road: least squares on the values of many random units, of normalised inputs."""
    x = batch[0] / batch[0].square().mean().sqrt()
    values = x @ torch.randn(2, 200, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    if isinstance(module, PolynomialNetwork):
        # Each power by itself: their span is that of all units, whatever the coefficients.
        degrees = range(len(module.coefficients) - 1, -1, -1)
        values = torch.cat([values**k for k, c in zip(degrees, module.coefficients, strict=True) if c], dim=1)
    values = values / values.norm(dim=0)
    solution = torch.linalg.lstsq(values, batch[1], driver="gelsd", rcond=1e-12).solution
    return float((values @ solution - batch[1]).square().sum(1).mean())


@pytest.mark.parametrize("name", NETWORKS)
def test_paths_hold_their_bounds_and_end_at_the_minimum_at_any_scale(name: str) -> None:
    module = NETWORKS[name]()
    for of_inputs, of_weights in product(SIZES, SIZES):
        batch, start, end = scaled(module, of_inputs, of_weights)
        joined = measure_bound(module, connecting_path(module, start, end, batch), batch, num_points=100)
        descent = measure_bound(module, descent_path(module, start, batch), batch, num_points=100, scale=1.0)
        case = (of_inputs, of_weights)
        assert joined.excess <= 1e-8, case
        assert descent.rise <= 1e-9 * descent.profile.loss[0], case
        assert descent.profile.loss[-1] == pytest.approx(least_error(module, batch), rel=1e-7), case


@pytest.mark.parametrize("name", ["z^3 + z", "linear"])
def test_each_input_in_units_of_its_own(name: str) -> None:
    module = NETWORKS[name]()
    batch, start, _ = scaled(module, 1.0, 1.0)
    expected = measure_bound(module, descent_path(module, start, batch), batch).profile.loss[-1]
    batch = batch[0] * torch.tensor([1e6, 1e-6]), batch[1]
    found = measure_bound(module, descent_path(module, start, batch), batch).profile.loss[-1]
    assert found == pytest.approx(expected, rel=1e-7)


def test_an_end_above_the_minimum_is_an_error() -> None:
    module = NETWORKS["linear"]()
    batch, start, _ = scaled(module, 1.0, 1.0)
    path = descent_path(module, start, batch)
    require_minimum(module, path, batch, least_error(module, batch))
    with pytest.raises(RuntimeError, match=r"where the minimum is 0: .* other units"):
        require_minimum(module, path, batch, 0.0)
