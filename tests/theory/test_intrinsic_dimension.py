from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from theorem_cases import TOLERANCE, batch_of, bound_of, check_ends, data_kinds, seeds, theta_of, weight_kinds

from lightning_landscape.models import DeepLinearNetwork, PolynomialNetwork
from lightning_landscape.theory.intrinsic_dimension import (
    PolynomialFeatures,
    connecting_path,
    descent_path,
    intrinsic_dimension,
    measured_dimension,
)

polynomials = st.sampled_from(
    [(1.0,), (1.0, 0.0), (1.0, 0.0, 0.0), (0.5, -1.0, 0.2), (1.0, 0.0, 0.0, 0.0), (0.3, 0.0, -1.0, 0.0, 2.0)]
)
widths = st.integers(1, 3)


def network(num_inputs: int, num_outputs: int, coefficients: tuple[float, ...], spare: int) -> PolynomialNetwork:
    units = 2 * intrinsic_dimension(num_inputs, coefficients) + spare
    return PolynomialNetwork(num_inputs, units, num_outputs, coefficients)


@pytest.mark.parametrize(
    ("num_inputs", "coefficients", "expected"),
    [
        (5, [1.0, 0.0], 5),  # linear units: the linear forms
        (4, [1.0, 0.0, 0.0], 10),  # squares: n (n + 1) / 2
        (4, [1.0, 3.0, 2.0], 15),  # all degrees up to 2: binom(n + 2, 2)
        (3, [1.0, 1.0, 1.0, 1.0], 20),  # up to 3: binom(n + 3, 3)
        (3, [2.0, 0.0, 0.0, 0.0], 10),
        (1, [1.0, 0.0, 1.0, 0.0, 0.0], 2),  # on a line one monomial for each power
        (7, [4.0], 1),
        (2, [0.0, 0.0, 1.0, 0.0], 2),  # leading zeros are no powers
    ],
)
def test_the_dimension_in_closed_form_is_the_measured_rank(
    num_inputs: int, coefficients: list[float], expected: int
) -> None:
    module = PolynomialNetwork(num_inputs, 1, 1, coefficients)
    assert intrinsic_dimension(num_inputs, coefficients) == expected
    assert [measured_dimension(module, seed=seed) for seed in range(3)] == [expected] * 3


def test_data_can_only_lower_the_dimension() -> None:
    module = PolynomialNetwork(3, 1, 1, [1.0, 0.0, 0.0])
    plane = torch.randn(40, 3)
    plane[:, 2] = 0
    assert measured_dimension(module, plane) == 3  # squares on R^2
    assert measured_dimension(module, torch.randn(4, 3)) == 4
    assert measured_dimension(module, torch.zeros(4, 3)) == 0


@settings(max_examples=20, deadline=None, derandomize=True)
@given(n=widths, coefficients=polynomials, seed=seeds)
def test_the_coordinates_represent_the_network(n: int, coefficients: tuple[float, ...], seed: int) -> None:
    module, features = PolynomialNetwork(n, 1, 1, coefficients), PolynomialFeatures(n, coefficients)
    w, x = theta_of("generic", torch.nn.Linear(n, 10, bias=False), seed).view(2, 5, n)
    assert features.of_weights(w).shape == (5, features.dimension)
    torch.testing.assert_close(features.of_weights(w) @ features.of_inputs(x).T, module.activation(w @ x.T))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n=widths,
    m=widths,
    coefficients=polynomials,
    spare=st.integers(0, 2),
    data=data_kinds,
    kind_a=weight_kinds,
    kind_b=weight_kinds,
    seed=seeds,
)
def test_the_path_stays_below_the_higher_end(
    n: int, m: int, coefficients: tuple[float, ...], spare: int, data: str, kind_a: str, kind_b: str, seed: int
) -> None:
    module, batch = network(n, m, coefficients, spare), batch_of(data, n, m, seed)
    theta_a, theta_b = theta_of(kind_a, module, seed), theta_of(kind_b, module, seed + 1)
    path = connecting_path(module, theta_a, theta_b, batch)
    check_ends(path, theta_a, theta_b)
    assert bound_of(module, path, batch).excess <= TOLERANCE


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n=widths,
    m=widths,
    coefficients=polynomials,
    spare=st.integers(0, 2),
    data=data_kinds,
    kind=weight_kinds,
    seed=seeds,
)
def test_the_descent_never_rises_and_ends_at_the_best_polynomial(
    n: int, m: int, coefficients: tuple[float, ...], spare: int, data: str, kind: str, seed: int
) -> None:
    module, (x, y) = network(n, m, coefficients, spare), batch_of(data, n, m, seed)
    theta = theta_of(kind, module, seed)
    path = descent_path(module, theta, (x, y))
    bound = bound_of(module, path, (x, y))
    # The minimum by another road: least squares on the values of many random units.
    values = module.activation(x @ torch.randn(n, 400, dtype=torch.float64))
    values = values / values.norm(dim=0)
    least = float((values @ torch.linalg.pinv(values, rtol=1e-10) @ y - y).square().sum(1).mean())
    assert torch.equal(path.beads[0], theta)
    assert bound.rise <= TOLERANCE
    assert bound.profile.loss[-1] == pytest.approx(least, rel=1e-8, abs=1e-9 * bound.scale)


def test_all_units_equal_and_one_that_is_0() -> None:
    # phi has rank 1 at one end and 0 at the other.
    module, batch = network(2, 1, (1.0, 0.0, 0.0), 0), batch_of("generic", 2, 1, 0)
    equal = torch.cat([torch.tensor([1.0, -2.0]).repeat(6), torch.ones(6)])
    nothing = torch.cat([torch.zeros(12), torch.ones(6)])
    for theta_a, theta_b in ((equal, nothing), (nothing, equal), (equal, -equal)):
        bound = bound_of(module, connecting_path(module, theta_a, theta_b, batch), batch)
        assert bound.excess <= TOLERANCE


def test_units_in_use_at_the_same_places_of_both_ends() -> None:
    # Six units, q = 3, the first three in use at both ends: what is shared must be built elsewhere.
    module, batch = network(2, 1, (1.0, 0.0, 0.0), 0), batch_of("generic", 2, 1, 0)
    busy = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    first = torch.cat([busy.flatten(), torch.zeros(6), torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0, 0.0])])
    second = torch.cat([busy.flip(1).flatten(), torch.zeros(6), torch.tensor([-1.0, 5.0, 1.0, 0.0, 0.0, 0.0])])
    path = connecting_path(module, first, second, batch)
    bound = bound_of(module, path, batch)
    assert bound.excess <= TOLERANCE
    assert path.num_beads >= 3


def test_just_below_the_width_condition() -> None:
    module, batch = network(3, 1, (1.0, 0.0, 0.0), -1), batch_of("generic", 3, 1, 0)
    theta = theta_of("generic", module, 0)
    for build in (lambda: connecting_path(module, theta, -theta, batch), lambda: descent_path(module, theta, batch)):
        with pytest.raises(ValueError, match="hidden_units M = 11 must be at least 2 q = 12"):
            build()


def test_identical_ends_and_another_module() -> None:
    module, batch = network(2, 2, (1.0, 0.0, 0.0), 0), batch_of("generic", 2, 2, 0)
    theta = theta_of("generic", module, 0)
    assert connecting_path(module, theta, theta, batch).length == 0.0
    with pytest.raises(ValueError, match="must be a PolynomialNetwork, got DeepLinearNetwork"):
        descent_path(DeepLinearNetwork(2, 2, [3]), theta, batch)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"y \(N, 2\)"):
        descent_path(module, theta, (torch.zeros(4, 2), torch.zeros(4, 1)))


def test_a_polynomial_of_no_power_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must not all be 0, got \[0.0\]"):
        intrinsic_dimension(3, [0.0])


def test_the_path_is_the_same_for_all_data_and_draws_no_random_numbers() -> None:
    module = network(2, 1, (1.0, 1.0, 0.0), 1)
    theta = theta_of("generic", module, 0)
    state = torch.get_rng_state()
    paths = [connecting_path(module, theta, 2 * theta, batch_of("generic", 2, 1, seed)) for seed in (0, 1)]
    descents = [descent_path(module, theta, batch_of("generic", 2, 1, 0)) for _ in range(2)]
    assert torch.equal(paths[0].beads, paths[1].beads)
    assert torch.equal(descents[0].beads, descents[1].beads)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_number_of_monomials_is_the_binomial() -> None:
    for n in (1, 2, 4):
        for degree in range(5):
            features = PolynomialFeatures(n, [1.0] + [0.0] * degree)
            assert features.of_inputs(torch.ones(1, n)).shape == (1, math.comb(n + degree - 1, degree))
