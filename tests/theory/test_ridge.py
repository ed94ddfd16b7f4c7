from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from theorem_cases import TOLERANCE, batch_of, bound_of, check_ends, data_kinds, seeds, theta_of, weight_kinds

from lightning_landscape.models import DeepLinearNetwork
from lightning_landscape.theory.deep_linear import connecting_path, descent_path
from lightning_landscape.theory.regression import Regression
from lightning_landscape.theory.ridge import RidgeProblem
from lightning_landscape.theory.weight_lists import weights_at

widths = st.integers(1, 3)
ridges = st.sampled_from([1e-2, 0.1, 1.0])


def network(num_inputs: int, num_outputs: int, spare: int, ridge: float) -> DeepLinearNetwork:
    return DeepLinearNetwork(num_inputs, num_outputs, [min(num_inputs, num_outputs) + spare], ridge=ridge)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(n=widths, m=widths, spare=st.integers(1, 2), ridge=ridges, data=data_kinds, kind=weight_kinds, seed=seeds)
def test_paths_with_a_ridge(n: int, m: int, spare: int, ridge: float, data: str, kind: str, seed: int) -> None:
    module, batch = network(n, m, spare, ridge), batch_of(data, n, m, seed)
    theta_a, theta_b = theta_of(kind, module, seed), theta_of("generic", module, seed + 1)
    descent = bound_of(module, descent_path(module, theta_a, batch), batch)
    assert descent.rise <= TOLERANCE
    path = connecting_path(module, theta_a, theta_b, batch)
    check_ends(path, theta_a, theta_b)
    assert bound_of(module, path, batch).excess <= TOLERANCE


@pytest.mark.parametrize("singular_value", [2.0, 0.2])
def test_the_minimum_for_white_inputs_is_the_soft_threshold(singular_value: float) -> None:
    # With x x^T / N = 1, F(P) = ||P - B||^2 + 2 kappa ||P||_* + const, minimised by singular values less kappa.
    ridge, orthogonal = 0.5, torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    target = torch.diag(torch.tensor([singular_value, 1.0, 0.3], dtype=torch.float64)) @ orthogonal
    x = torch.eye(3, dtype=torch.float64) * 3**0.5
    module, batch = network(3, 3, 1, ridge), (x, x @ target.T)
    inner, outer = weights_at(module, descent_path(module, torch.zeros(24), batch).beads[-1])
    kept = torch.tensor([singular_value, 1.0, 0.3], dtype=torch.float64).sub(ridge).clamp_min(0)
    torch.testing.assert_close(outer @ inner, torch.diag(kept) @ orthogonal, atol=1e-8, rtol=0)
    penalty = inner.square().sum() + outer.square().sum()
    torch.testing.assert_close(penalty, 2 * kept.sum(), atol=1e-8, rtol=0)  # balanced: twice the nuclear norm


def test_a_ridge_above_the_correlation_drives_the_weights_to_0() -> None:
    module, batch = network(2, 3, 1, ridge=100.0), batch_of("generic", 2, 3, 0)
    path = descent_path(module, theta_of("generic", module, 0), batch)
    assert float(path.beads[-1].norm()) < 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_two_minima_stay_minima_along_the_orbit(seed: int) -> None:
    module, batch = network(3, 2, 2, ridge=0.05), batch_of("generic", 3, 2, seed)
    ends = [descent_path(module, theta_of("generic", module, seed + k), batch).beads[-1] for k in (1, 2)]
    path = connecting_path(module, *ends, batch)
    bound = bound_of(module, path, batch)
    assert float((ends[0] - ends[1]).norm()) > 0.1
    assert bound.excess <= TOLERANCE
    assert min(bound.profile.loss) >= bound.profile.loss[0] * (1 - 1e-10)


def test_a_half_turn_between_minima_of_opposite_sign() -> None:
    module, batch = network(2, 2, 1, ridge=0.05), batch_of("generic", 2, 2, 0)
    minimum = descent_path(module, theta_of("generic", module, 1), batch).beads[-1]
    bound = bound_of(module, connecting_path(module, minimum, -minimum, batch), batch)
    assert bound.excess <= TOLERANCE


@pytest.mark.parametrize("seed", range(5))
def test_the_gap_bounds_what_is_left(seed: int) -> None:
    module, batch = network(3, 2, 1, ridge=0.1), batch_of("generic", 3, 2, seed)
    problem = RidgeProblem(batch, 0.1)
    states = problem.minimise(weights_at(module, theta_of("generic", module, seed)))
    least = problem.loss(states[-1])
    for state in states:
        assert problem.gap(state) >= problem.loss(state) - least - 1e-12
    assert problem.gap(states[-1]) <= 1e-9
    assert least > Regression(batch).minimum()


@pytest.mark.parametrize("seed", range(20))
def test_newton_descends_where_curvatures_are_negative(seed: int) -> None:
    module, batch = network(3, 2, 1, ridge=0.01), batch_of("generic", 3, 2, seed)
    problem = RidgeProblem(batch, 0.01)
    _, gain = problem._newton(weights_at(module, 0.01 * theta_of("generic", module, seed)))
    assert gain > 0


def test_three_layers_are_refused() -> None:
    module = DeepLinearNetwork(2, 2, [3, 3], ridge=0.1)
    with pytest.raises(ValueError, match=r"ridge = 0\.1 needs exactly two layers, and widths are \(2, 3, 3, 2\)"):
        descent_path(module, torch.zeros(21), batch_of("generic", 2, 2, 0))


def test_identical_ends() -> None:
    module, batch = network(2, 2, 1, ridge=0.1), batch_of("generic", 2, 2, 0)
    theta = theta_of("generic", module, 0)
    assert connecting_path(module, theta, theta, batch).length == 0.0


def test_a_minimum_that_cannot_be_certified_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_landscape.theory.ridge._MAX_STEPS", 2)
    module, batch = network(3, 3, 1, ridge=1e-3), batch_of("generic", 3, 3, 0)
    with pytest.raises(RuntimeError, match="the minimum is certified to"):
        descent_path(module, theta_of("generic", module, 0), batch)
