from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from theorem_cases import TOLERANCE, batch_of, bound_of, check_ends, data_kinds, seeds, theta_of, weight_kinds

from lightning_landscape.models import PolynomialNetwork, QuadraticNetwork
from lightning_landscape.theory.quadratic import (
    connecting_path,
    descent_path,
    lifted,
    require_widths,
    sufficient_widths,
)

widths = st.integers(1, 3)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=widths, m=widths, data=data_kinds, kind_a=weight_kinds, kind_b=weight_kinds, seed=seeds)
def test_paths_of_wide_quadratic_networks(n: int, m: int, data: str, kind_a: str, kind_b: str, seed: int) -> None:
    module, (x, y) = QuadraticNetwork(n, 3 * n**2, m), batch_of(data, n, m, seed)
    theta_a, theta_b = theta_of(kind_a, module, seed), theta_of(kind_b, module, seed + 1)
    path = connecting_path(module, theta_a, theta_b, (x, y))
    check_ends(path, theta_a, theta_b)
    assert bound_of(module, path, (x, y)).excess <= TOLERANCE

    descent = bound_of(module, descent_path(module, theta_a, (x, y)), (x, y))
    forms = torch.einsum("li,lj->lij", x, x).flatten(1)
    least = float((forms @ torch.linalg.pinv(forms, rtol=1e-10) @ y - y).square().sum(1).mean())
    assert descent.rise <= TOLERANCE
    assert descent.profile.loss[-1] == pytest.approx(least, rel=1e-8, abs=1e-9 * descent.scale)


def test_the_lifted_parameter_goes_straight_from_one_end_to_the_other() -> None:
    module, batch = QuadraticNetwork(3, 27, 2), batch_of("generic", 3, 2, 0)
    theta_a, theta_b = theta_of("generic", module, 0), theta_of("generic", module, 1)
    start, end = lifted(module, theta_a), lifted(module, theta_b)
    path = connecting_path(module, theta_a, theta_b, batch)
    shares = []
    for t in torch.linspace(0, 1, 200, dtype=torch.float64):
        offset = lifted(module, path(t)) - start
        share = float((offset * (end - start)).sum() / (end - start).square().sum())
        torch.testing.assert_close(offset, share * (end - start), atol=1e-9, rtol=0)
        shares.append(share)
    assert shares[0] == pytest.approx(0.0, abs=1e-12)
    assert shares[-1] == pytest.approx(1.0, abs=1e-12)
    assert min(after - before for before, after in pairwise(shares)) > -1e-9


def test_the_network_is_the_form_of_the_lifted_parameter() -> None:
    module = QuadraticNetwork(3, 7, 2).double()
    theta = torch.cat([parameter.flatten() for parameter in module.parameters()])
    forms, x = lifted(module, theta), torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(module(x), torch.einsum("lj,ijk,lk->li", x, forms, x))
    assert torch.equal(forms, forms.mT)


@pytest.mark.parametrize(
    ("num_inputs", "num_layers", "expected"),
    [(3, 2, [27]), (2, 4, [12, 48, 768]), (5, 3, [75, 1875]), (1, 3, [3, 3]), (4, 1, [])],
)
def test_sufficient_widths(num_inputs: int, num_layers: int, expected: list[int]) -> None:
    assert sufficient_widths(num_inputs, num_layers) == expected
    require_widths(num_inputs, expected)
    for layer in range(len(expected)):
        with pytest.raises(ValueError, match=rf"hidden width M_{layer + 1} = {expected[layer] - 1} must be at least"):
            require_widths(num_inputs, [*expected[:layer], expected[layer] - 1, *expected[layer + 1 :]])


@pytest.mark.parametrize(
    ("name", "arguments"), [("num_inputs", (0, 2)), ("num_layers", (2, 0)), ("num_inputs", (1.5, 2))]
)
def test_widths_of_no_network_are_refused(name: str, arguments: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1"):
        sufficient_widths(*arguments)


def test_just_below_the_width_condition() -> None:
    module, batch = QuadraticNetwork(2, 11), batch_of("generic", 2, 1, 0)
    theta = theta_of("generic", module, 0)
    for build in (lambda: connecting_path(module, theta, -theta, batch), lambda: descent_path(module, theta, batch)):
        with pytest.raises(ValueError, match=r"hidden width M_1 = 11 must be at least 3 N\^2 = 12 for N = 2 inputs"):
            build()


def test_another_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a QuadraticNetwork, got PolynomialNetwork"):
        connecting_path(PolynomialNetwork(), torch.zeros(96), torch.ones(96), batch_of("generic", 3, 1, 0))  # type: ignore[arg-type]
