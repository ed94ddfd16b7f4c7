from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_landscape.models.images.resnet import resnet20


def layers(network: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [child for child in network.modules() if isinstance(child, kind)]


@pytest.mark.parametrize("normalization", ["batch", "group"])
@pytest.mark.parametrize("width", [0.25, 1, 2])
def test_parameter_count(normalization: Any, width: float) -> None:
    base = int(16 * width)
    stages = [base, 2 * base, 4 * base]

    def normalised(kernel: int, inputs: int, outputs: int) -> int:
        return kernel**2 * inputs * outputs + 2 * outputs  # no bias, but scale and shift of the norm

    count = normalised(3, 3, base) + 10 * (4 * base + 1)
    for inputs, outputs in zip([base, *stages], stages, strict=False):
        count += normalised(3, inputs, outputs) + 5 * normalised(3, outputs, outputs)
        count += normalised(1, inputs, outputs) if inputs != outputs else 0
    network = resnet20(3, 32, 10, normalization, width)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    # 269,722 as published for option A (0.27 million) and two projections of 16 x 32 + 64 and 32 x 64 + 128.
    assert width != 1 or count == 269_722 + 16 * 32 + 64 + 32 * 64 + 128


def test_twenty_layers_each_convolution_normalised() -> None:
    network = resnet20(3, 32, 10)
    convolutions = layers(network, nn.Conv2d)
    assert len([c for c in convolutions if c.kernel_size == (3, 3)]) + len(layers(network, nn.Linear)) == 20
    assert [c.kernel_size for c in convolutions].count((1, 1)) == 2
    assert all(c.bias is None for c in convolutions)
    assert len(layers(network, nn.BatchNorm2d)) == len(convolutions)
    assert not layers(network, nn.GroupNorm)
    group = resnet20(3, 32, 10, "group")
    assert not layers(group, nn.BatchNorm2d)
    assert [(norm.num_groups, norm.num_channels) for norm in layers(group, nn.GroupNorm)][:2] == [(4, 16)] * 2
    assert not list(group.buffers())


def test_halves_the_image_at_the_second_and_the_third_stage() -> None:
    shapes: list[tuple[int, ...]] = []
    network = resnet20(3, 32, 10)
    for child in network:
        child.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    network(torch.zeros(2, 3, 32, 32))
    assert shapes[3:12] == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3
    assert shapes[-1] == (10,)


def test_with_no_body_a_block_is_its_shortcut() -> None:
    block = resnet20(3, 8, 10)[3]
    for norm in layers(block.body, nn.BatchNorm2d):
        nn.init.zeros_(norm.weight)
    images = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(block(images), images.relu())


def test_starts_from_the_normal_distribution_of_he() -> None:
    network = resnet20(3, 32, 10, width=2)
    for convolution in layers(network, nn.Conv2d)[3:]:
        fan_out = convolution.kernel_size[0] ** 2 * convolution.out_channels
        assert convolution.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
        # Of a normal distribution 5% lie beyond 1.96 standard deviations; of a uniform one none beyond 1.74.
        beyond = (convolution.weight.abs() > 1.96 * (2 / fan_out) ** 0.5).double().mean().item()
        assert 0.03 < beyond < 0.07


@pytest.mark.parametrize(("normalization", "coupled"), [("batch", True), ("group", False)])
def test_group_norm_alone_treats_every_example_by_itself(normalization: Any, coupled: bool) -> None:
    network = resnet20(3, 8, 10, normalization, 0.25)
    images = torch.randn(4, 3, 8, 8)
    whole, part = network(images)[:2], network(images[:2])
    assert torch.allclose(whole, part, atol=1e-5) != coupled
