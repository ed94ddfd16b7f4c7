"""REPAIR: hidden units between two networks get the mean and spread of those at the ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from symmetric_networks import CASES, scattered, theta_of
from torch import Tensor, nn

from lightning_landscape.alignment import repair


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 2))


def batches() -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(40, 6), torch.zeros(40)) for _ in range(3)]


def responses(theta: Tensor, data: list[tuple[Tensor, Tensor]], layer: int) -> tuple[Tensor, Tensor]:
    module = net()
    nn.utils.vector_to_parameters(theta, module.parameters())
    with torch.no_grad():
        values = module[: layer + 1](torch.cat([images for images, _ in data]))
    return values.mean(0), values.std(0, correction=0)


@pytest.mark.parametrize("t", [0.25, 0.5])
def test_every_hidden_layer_gets_the_moments_of_the_formula(t: float) -> None:
    theta_a, theta_b, data = theta_of(net()), theta_of(net()), batches()
    repaired = repair(net(), theta_a, theta_b, data, t)
    for layer in (0, 2):
        ends = [responses(theta, data, layer) for theta in (theta_a, theta_b)]
        found = responses(repaired, data, layer)
        faded = responses(torch.lerp(theta_a, theta_b, t), data, layer)
        for moment in (0, 1):
            wanted = torch.lerp(ends[0][moment], ends[1][moment], t)
            torch.testing.assert_close(found[moment], wanted, rtol=1e-4, atol=1e-5)
        assert faded[1].mean() < found[1].mean()
    last = 24 * 2 + 2  # outputs stay: the last layer is that of the straight line
    assert torch.equal(repaired[-last:], torch.lerp(theta_a, theta_b, t)[-last:])


def test_the_ends_stay() -> None:
    theta_a, theta_b, data = theta_of(net()), theta_of(net()), batches()
    for t, end in ((0.0, theta_a), (1.0, theta_b)):
        torch.testing.assert_close(repair(net(), theta_a, theta_b, data, t), end, rtol=1e-4, atol=1e-5)


def test_convolutions_are_repaired_and_those_without_bias_are_not() -> None:
    def answer(name: str) -> tuple[Tensor, Tensor]:
        case = CASES[name]
        module, other = scattered(case, 0), scattered(case, 1)
        ends = theta_of(module), theta_of(other)
        images = torch.randn(16, *case.input.shape[1:])
        return torch.lerp(*ends, 0.5), repair(module, *ends, [images])

    line, repaired = answer("lenet")
    assert not torch.equal(line[:72], repaired[:72])
    line, repaired = answer("resnet20")  # all of its convolutions are normalised behind
    assert torch.equal(line, repaired)


def test_a_dead_unit_is_only_shifted() -> None:
    module, data = net(), batches()
    with torch.no_grad():
        module[0].weight[0] = 0
    theta = theta_of(module)
    repaired = repair(module, theta, theta, data)
    assert repaired.isfinite().all()
    torch.testing.assert_close(repaired, theta, rtol=1e-4, atol=1e-5)


def test_bad_arguments_are_refused() -> None:
    theta, data = theta_of(net()), batches()
    for t in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"t must lie in \[0, 1\]"):
            repair(net(), theta, theta, data, t)
    with pytest.raises(ValueError, match="batches is empty"):
        repair(net(), theta, theta, [])
    with pytest.raises(ValueError, match=r"point 2 has shape \(3,\)"):
        repair(net(), theta, theta[:3], data)

    def once() -> Iterator[tuple[Tensor, Tensor]]:
        yield from data

    with pytest.raises(ValueError, match="can be read only once"):
        repair(net(), theta, theta, once())
