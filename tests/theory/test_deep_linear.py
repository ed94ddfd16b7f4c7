from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from theorem_cases import TOLERANCE, batch_of, bound_of, check_ends, data_kinds, seeds, theta_of, weight_kinds
from torch import nn

from lightning_landscape.models import DeepLinearNetwork
from lightning_landscape.theory.deep_linear import canonical_states, connecting_path, descent_path
from lightning_landscape.theory.regression import Regression
from lightning_landscape.theory.weight_lists import weights_at

widths = st.integers(1, 4)
spare = st.lists(st.integers(1, 3), min_size=0, max_size=3)


def network(num_inputs: int, num_outputs: int, extra: list[int]) -> DeepLinearNetwork:
    smallest = min(num_inputs, num_outputs)
    return DeepLinearNetwork(num_inputs, num_outputs, [smallest + more for more in extra])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=widths, m=widths, extra=spare, data=data_kinds, kind_a=weight_kinds, kind_b=weight_kinds, seed=seeds)
def test_the_path_stays_below_the_higher_end(
    n: int, m: int, extra: list[int], data: str, kind_a: str, kind_b: str, seed: int
) -> None:
    module, batch = network(n, m, extra), batch_of(data, n, m, seed)
    theta_a, theta_b = theta_of(kind_a, module, seed), theta_of(kind_b, module, seed + 1)
    path = connecting_path(module, theta_a, theta_b, batch)
    check_ends(path, theta_a, theta_b)
    assert bound_of(module, path, batch).excess <= TOLERANCE


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=widths, m=widths, extra=spare, data=data_kinds, kind=weight_kinds, seed=seeds)
def test_the_descent_never_rises_and_ends_at_the_least_squares(
    n: int, m: int, extra: list[int], data: str, kind: str, seed: int
) -> None:
    module, batch = network(n, m, extra), batch_of(data, n, m, seed)
    theta = theta_of(kind, module, seed)
    path = descent_path(module, theta, batch)
    bound = bound_of(module, path, batch)
    assert torch.equal(path.beads[0], theta)
    assert bound.rise <= TOLERANCE
    assert bound.profile.loss[-1] == pytest.approx(Regression(batch).minimum(), rel=1e-9, abs=1e-9 * bound.scale)


def test_two_orientations_of_gl_1_are_joined_through_the_spare_unit() -> None:
    # w_2 w_1 = 1 with one unit has two branches; the second unit joins them while the product stays 1.
    module = DeepLinearNetwork(1, 1, [2])
    batch = torch.ones(4, 1), torch.ones(4, 1)
    theta_a, theta_b = torch.tensor([[1.0, 0.0, 1.0, 0.0], [-1.0, 0.0, -1.0, 0.0]])
    bound = bound_of(module, connecting_path(module, theta_a, theta_b, batch), batch)
    assert bound.profile.loss[0] == bound.profile.loss[-1] == 0.0
    assert bound.height <= 1e-12


@pytest.mark.parametrize("swap", [False, True])
def test_two_global_minima_of_either_determinant_stay_minima_all_the_way(swap: bool) -> None:
    n, m = (3, 5) if swap else (5, 3)
    module, batch = DeepLinearNetwork(n, m, [4, 4]), batch_of("generic", n, m, 0)
    minimum = descent_path(module, theta_of("generic", module, 1), batch).beads[-1]
    first, second, third = weights_at(module, minimum)
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    mirrored = torch.cat([part.flatten() for part in (mirror @ first, second @ mirror, third)])
    bound = bound_of(module, connecting_path(module, minimum, mirrored, batch), batch)
    assert bound.excess <= TOLERANCE
    assert min(bound.profile.loss) >= bound.profile.loss[0] * (1 - 1e-12)


@pytest.mark.parametrize("kind", ["generic", "zero", "rank one", "some layers zero"])
@pytest.mark.parametrize(("n", "m"), [(4, 2), (2, 4), (3, 3)])
def test_the_canonical_form(n: int, m: int, kind: str) -> None:
    module = DeepLinearNetwork(n, m, [4, 5])
    weights = weights_at(module, theta_of(kind, module, 0))
    product = weights[2] @ weights[1] @ weights[0]
    *_, last = canonical_states(weights)
    rank = min(n, m)
    identities, (place, size) = (last[:2], (2, (m, n))) if m > n else (last[1:], (0, (m, n)))
    for weight in identities:
        expected = torch.zeros_like(weight)
        expected[:rank, :rank] = torch.eye(rank)
        torch.testing.assert_close(weight, expected, atol=0, rtol=0)
    torch.testing.assert_close(last[place][: size[0], : size[1]], product)
    assert last[place].count_nonzero() == product.count_nonzero() or kind in ("zero", "some layers zero")


def test_identical_ends_give_a_path_that_stays() -> None:
    module, batch = DeepLinearNetwork(3, 2, [4]), batch_of("generic", 3, 2, 0)
    theta = theta_of("generic", module, 0)
    path = connecting_path(module, theta, theta.clone(), batch)
    assert path.length == 0.0
    check_ends(path, theta, theta)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize(("hidden", "name"), [([3], "n_1"), ([5, 3], "n_2"), ([2, 5], "n_1")])
def test_just_below_the_width_condition(hidden: list[int], name: str, ridge: float) -> None:
    module, batch = DeepLinearNetwork(3, 4, hidden, ridge=ridge), batch_of("generic", 3, 4, 0)
    theta = theta_of("generic", module, 0)
    for build in (lambda: connecting_path(module, theta, -theta, batch), lambda: descent_path(module, theta, batch)):
        with pytest.raises(ValueError, match=rf"hidden width {name} = \d must exceed min\(n, m\) = 3"):
            build()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module": nn.Linear(3, 2)}, "must be a DeepLinearNetwork, got Linear"),
        ({"theta": torch.zeros(5)}, r"shape \(24,\), got \(5,\)"),
        ({"theta": torch.full((24,), float("nan"))}, "theta must be finite"),
        ({"batch": (torch.zeros(4, 3), torch.zeros(5, 2))}, r"got \(4, 3\) and \(5, 2\)"),
        ({"batch": (torch.zeros(4, 2), torch.zeros(4, 2))}, r"x \(N, 3\) and y \(N, 2\), got x \(N, 2\)"),
        ({"batch": (torch.zeros(0, 3), torch.zeros(0, 2))}, r"got \(0, 3\) and \(0, 2\)"),
        ({"batch": (torch.zeros(4, 3), torch.full((4, 2), float("inf")))}, "batch must be finite"),
    ],
)
def test_what_is_no_deep_linear_problem_is_refused(change: dict[str, Any], message: str) -> None:
    module = DeepLinearNetwork(3, 2, [3, 3])
    arguments = {"module": module, "theta": torch.zeros(24), "batch": (torch.zeros(4, 3), torch.zeros(4, 2)), **change}
    with pytest.raises(ValueError, match=message):
        descent_path(arguments["module"], arguments["theta"], arguments["batch"])


def test_frozen_weights_are_refused() -> None:
    module = DeepLinearNetwork(3, 2, [3])
    module.layers[0].requires_grad_(False)
    with pytest.raises(ValueError, match=r"\['layers.0.weight'\] are frozen"):
        descent_path(module, torch.zeros(6), batch_of("generic", 3, 2, 0))


def test_tied_weights_are_refused() -> None:
    module = DeepLinearNetwork(2, 2, [3, 3, 3])
    module.layers[2].weight = module.layers[1].weight
    theta = torch.zeros(sum(parameter.numel() for parameter in module.parameters()))
    with pytest.raises(ValueError, match="some are tied"):
        descent_path(module, theta, batch_of("generic", 2, 2, 0))


def test_the_module_and_the_random_state_are_left_alone() -> None:
    module, batch = DeepLinearNetwork(3, 2, [3, 4]), batch_of("generic", 3, 2, 0)
    theta = theta_of("generic", module, 0)
    before = [parameter.clone() for parameter in module.parameters()], torch.get_rng_state(), theta.clone()
    connecting_path(module, theta, -theta, batch)
    descent_path(module, theta, batch)
    assert all(torch.equal(old, new) for old, new in zip(before[0], module.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.equal(theta, before[2])
