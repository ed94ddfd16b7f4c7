"""Weight matching takes away at least nine tenths of the linear barrier between two perceptrons on MNIST."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_landscape import LossSurface
from lightning_landscape.alignment import activation_matching, weight_matching
from lightning_landscape.datamodules import MNISTDataModule
from lightning_landscape.finders import LinearPath

# Of the barrier of 1.42 nats, 5.6 % is left after matching by weights and 5.3 % after matching by activations. At width
# 512 it is 8.1 % and 3.8 %, at three times the time.
EPOCHS, BATCH_SIZE, WIDTH, IMAGES = 2, 100, 256, 20_000


def perceptron() -> nn.Sequential:
    hidden = [layer for inputs in (784, WIDTH, WIDTH) for layer in (nn.Linear(inputs, WIDTH), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(WIDTH, 10))


def loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(module(batch[0]), batch[1])


def trained(seed: int, images: Tensor, labels: Tensor) -> nn.Sequential:
    """Momentum and a learning rate that falls to zero: after Adam at a constant 1e-3 the barrier falls by less."""
    torch.manual_seed(seed)
    module = perceptron()
    steps = EPOCHS * (len(images) // BATCH_SIZE)
    optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(images)).split(BATCH_SIZE):
            optimizer.zero_grad()
            loss(module, (images[index], labels[index])).backward()
            optimizer.step()
            schedule.step()
    return module


@pytest.mark.slow
def test_matching_lowers_the_linear_barrier_by_nine_tenths(data_root: Path, unpacked: Path) -> None:
    data = MNISTDataModule(root=unpacked, source=data_root)
    data.prepare_data()
    data.setup("fit")
    images, labels = data.splits["train"][:IMAGES]
    ends = [trained(seed, images, labels) for seed in (1, 2)]
    probe = list(zip(images[:2000].split(1000), labels[:2000].split(1000), strict=True))
    surface = LossSurface(ends[0], probe, loss_fn=loss)
    theta_a, theta_b = (surface.point(dict(module.named_parameters())) for module in ends)

    def barrier(theta: Tensor) -> float:
        return LinearPath(samples=24).connect(surface, theta_a, theta).linear_barrier

    apart = barrier(theta_b)
    by_weights = weight_matching(ends[0], theta_a, theta_b, images[:2])
    by_activations = activation_matching(ends[0], theta_a, theta_b, [(images[:2000], labels[:2000])])
    assert surface.loss(by_weights) == pytest.approx(surface.loss(theta_b), rel=1e-5)
    assert surface.loss(by_activations) == pytest.approx(surface.loss(theta_b), rel=1e-5)
    near, nearer = barrier(by_weights), barrier(by_activations)
    print(f"\nbarrier {apart:.4f}, by weights {near:.4f}, by activations {nearer:.4f}")
    assert apart > 0.5
    assert near <= 0.1 * apart
    assert nearer <= 0.1 * apart
