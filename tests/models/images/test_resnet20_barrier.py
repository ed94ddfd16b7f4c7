"""Batch norm on a path: statistics have to be those of each point.

A batch norm that follows a convolution with weights ``a W``, a > 0, gives the same output for every a, if its mean and
variance are those of its input: ``(a y - a m) / sqrt(a^2 v + eps) -> (y - m) / sqrt(v)`` as eps vanishes. The segment
from W to 2 W is the set of the a from 1 to 2. So when all the convolutions of a ResNet, each of which a batch norm
follows, are doubled, the loss is constant on the segment, and height and barrier are those of its start: E and 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from lightning_landscape import LossSurface
from lightning_landscape.connection import Connection
from lightning_landscape.finders import LinearPath
from lightning_landscape.models import ImageClassifier
from lightning_landscape.surface.batch_norm import BatchNormMode

Batches = list[tuple[Tensor, Tensor]]


def loss_fn(module: ImageClassifier, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(module(batch[0]), batch[1])


@pytest.fixture(scope="module")
def batches() -> Batches:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 3, 8, 8, generator=generator, dtype=torch.float64)
    labels = images[:, :, ::4, ::4].flatten(1)[:, :10].argmax(1)
    return [*zip(images.split(32), labels.split(32), strict=True)]


@pytest.fixture(scope="module")
def trained(batches: Batches) -> ImageClassifier:
    """A ResNet-20 in float64, well below the loss of guessing, with the statistics of ``batches``."""
    torch.manual_seed(0)
    classifier = ImageClassifier("resnet20", in_channels=3, image_size=8, width=0.25).double()
    optimizer = torch.optim.Adam(classifier.parameters(), 0.01)
    for step in range(40):
        optimizer.zero_grad()
        loss_fn(classifier, batches[step % 2]).backward()
        optimizer.step()
    settle(classifier, batches)
    return classifier


def settle(classifier: ImageClassifier, batches: Batches) -> None:
    """Gives every batch norm the mean statistics of the batches, and an eps that vanishes."""
    for child in classifier.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.reset_running_stats()
            child.momentum, child.eps = None, 1e-30
    with torch.no_grad():
        for images, _ in batches:
            classifier.train()(images)


def scaled(classifier: ImageClassifier, factor: float) -> Mapping[str, Tensor]:
    """The state of the network with the weights before all batch norms multiplied."""
    state = classifier.state_dict()
    before = [f"{n}.weight" for n, child in classifier.named_modules() if isinstance(child, nn.Conv2d)]
    assert len(before) == 21  # 19 of 3x3 and two projections
    return state | {name: factor * state[name] for name in before}


def segment(
    classifier: ImageClassifier, factor: float, batches: Batches, mode: BatchNormMode
) -> tuple[Connection, float]:
    surface = LossSurface(classifier, batches, loss_fn, batch_norm=mode)
    start = surface.point()
    loss = surface.loss(start)
    end = surface.point(scaled(classifier, factor))
    return LinearPath().connect(surface, start, end, level=loss * (1 + 1e-9)), loss


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_the_weight_scaled_twin_is_at_no_distance_with_statistics_of_each_point(
    trained: ImageClassifier, batches: Batches, factor: float
) -> None:
    found, loss = segment(trained, factor, batches, "recalibrate")
    assert loss < 1.0  # guessing costs log 10 = 2.3
    assert found.loss_a == pytest.approx(loss, rel=1e-12)
    assert found.loss_b == pytest.approx(loss, rel=1e-9)
    assert found.linear_height == pytest.approx(loss, rel=1e-9)
    assert abs(found.linear_barrier) < 1e-9
    assert found.connected


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_the_statistics_of_one_end_make_the_twin_another_network(
    trained: ImageClassifier, batches: Batches, factor: float
) -> None:
    found, loss = segment(trained, factor, batches, "frozen")
    assert loss < 1.0
    # The same function as at the start, by a network that reads other statistics than its own.
    assert found.loss_b > loss + 2
    assert found.linear_height > loss + 2
    assert not found.connected
    if factor < 1:
        assert found.linear_barrier > 1
    else:
        # Doubled layer upon layer the loss grows convexly: below its chord, with a barrier of 0 between wrong ends.
        assert found.linear_barrier == 0
        assert found.loss_b > 1000 * loss
