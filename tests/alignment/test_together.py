"""Several networks in one order of units: copies come back, and no way around a cycle changes anything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from symmetric_networks import theta_of
from torch import Tensor, nn

from lightning_landscape.alignment import match_together, match_weights, permutation_spec, repair, repair_mean


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 2))


def agreement(points: list[Tensor]) -> float:
    return sum(float(one @ other) for one, other in itertools.combinations(points, 2))


def test_permuted_noisy_copies_come_back_to_one_order() -> None:
    spec = permutation_spec(net(), torch.zeros(1, 5))
    theta = theta_of(net())
    drawn = [spec.random(seed) for seed in range(1, 5)]
    points = [theta, *(spec.apply(theta + 0.01 * torch.randn_like(theta), p) for p in drawn)]
    found = match_together(spec, points)
    assert all(np.array_equal(own, np.arange(len(own))) for own in found[0])
    for point, permutations in zip(points, found, strict=True):
        assert float((spec.apply(point, permutations) - theta).norm()) < 0.1 * float(theta.norm())


def test_unrelated_networks_agree_no_less_than_matched_to_the_first_alone() -> None:
    spec = permutation_spec(net(), torch.zeros(1, 5))
    points = [theta_of(net()) for _ in range(5)]
    singly = [points[0], *(spec.apply(p, match_weights(spec, points[0], p).permutations) for p in points[1:])]
    together = [spec.apply(p, own) for p, own in zip(points, match_together(spec, points), strict=True)]
    assert agreement(together) > agreement(singly)
    mean = torch.stack(together).mean(0)
    # No single network can be moved closer to the mean of the others by any permutation of one group.
    for number, point in enumerate(together[1:], start=1):
        others = mean * len(together) - point
        best = match_weights(spec, others, points[number]).objectives[-1]
        assert float(others @ point) > 0.9 * best


def test_no_points_are_refused() -> None:
    with pytest.raises(ValueError, match="points is empty"):
        match_together(permutation_spec(net(), torch.zeros(1, 5)), [])


def test_the_repaired_mean_of_two_is_the_repaired_middle_and_of_one_network_itself() -> None:
    module, data = net(), [torch.randn(40, 5)]
    a, b = theta_of(net()), theta_of(net())
    torch.testing.assert_close(repair_mean(module, [a, b], [0.5, 0.5], data), repair(module, a, b, data))
    torch.testing.assert_close(repair_mean(module, [a, a, a], [1 / 3] * 3, data), a, rtol=1e-4, atol=1e-5)


def test_units_of_a_repaired_mean_of_three_have_the_mean_spread_of_the_three() -> None:
    module, data = net(), [torch.randn(200, 5)]
    points = [theta_of(net()) for _ in range(3)]

    def spread(theta: Tensor) -> Tensor:
        nn.utils.vector_to_parameters(theta, module.parameters())
        with torch.no_grad():
            return module[:3](data[0]).std(0, correction=0)

    wanted = torch.stack([spread(point) for point in points]).mean(0)
    found = spread(repair_mean(net(), points, [1 / 3] * 3, data))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
