"""No bound lies below the loss, and every rule of it is held to that."""

from __future__ import annotations

import pytest
import torch

from lightning_landscape.certificates.smooth import GELU, SIGMOID, SILU, SOFTPLUS, TANH, Curve
from tests.certificates.campaign import random_case, shortfall
from tests.certificates.loss_rules import loss_outside
from tests.certificates.mutations import MUTATIONS, Mutation, mutated
from tests.certificates.rules import RULES, outside


@pytest.mark.parametrize("block", range(4))
def test_random_networks_stay_below_their_bound(block: int) -> None:
    found = {seed: shortfall(random_case(seed), 25) for seed in range(40 * block, 40 * block + 40)}
    assert {seed: value for seed, value in found.items() if value > 0} == {}
    assert any(value > -torch.inf for value in found.values())


@pytest.mark.parametrize("rule", range(len(RULES)))
def test_each_rule_holds_at_many_points(rule: int) -> None:
    assert max(outside(rule, seed) for seed in range(100)) <= 0


def test_the_losses_hold_at_many_points() -> None:
    assert max(map(loss_outside, range(300))) <= 0


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.place}: {mutation.wrong[:30]}")
def test_a_rule_that_is_too_strong_is_caught(mutation: Mutation) -> None:
    with mutated(mutation):
        caught = any(outside(rule, seed) > 0 for seed in range(5) for rule in range(len(RULES)))
        assert caught or any(loss_outside(seed) > 0 for seed in range(300))


@pytest.mark.parametrize("curve", [TANH, SIGMOID, SOFTPLUS, GELU, SILU])
def test_derivatives_of_activations_lie_within_their_bounds(curve: Curve) -> None:
    x = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    slope, bend, step = curve.slope(x), curve.bend(x), float(x[1] - x[0])
    for values, (least, most) in ((slope, curve.slopes), (bend, curve.bends)):
        assert values.min() >= least
        assert values.max() <= most
    assert bend.diff().abs().max() / step <= curve.jerk
    torch.testing.assert_close((curve.value(x)[2:] - curve.value(x)[:-2]) / (2 * step), slope[1:-1], atol=1e-7, rtol=0)
    torch.testing.assert_close((slope[2:] - slope[:-2]) / (2 * step), bend[1:-1], atol=1e-7, rtol=0)
