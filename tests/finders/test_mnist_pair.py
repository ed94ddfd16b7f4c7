"""Two networks trained on real MNIST lie in one level set: the claim of Freeman & Bruna (2017), checked strictly."""

from __future__ import annotations

from pathlib import Path as Folder

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape import LossSurface
from lightning_landscape.datamodules import MNISTDataModule
from lightning_landscape.finders import DynamicStringSampling
from lightning_landscape.models import ImageClassifier

CROSS_ENTROPY = 0.1
BATCH_SIZE = 128
# E is the mean over these. Measured: 490 steps to train both, 195 to connect them, 11 beads; the straight line rises to
# 1.75.
PROBE_IMAGES = 500


def trained(seed: int, data: TensorDataset, surface_of: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, int]:
    """Parameters once E on the probe set is at most ``CROSS_ENTROPY``, and the steps that took."""
    torch.manual_seed(seed)
    model = ImageClassifier("lenet", learning_rate=3e-3)
    optimizer = model.configure_optimizers()
    surface = LossSurface(model, surface_of)
    loader = DataLoader(data, BATCH_SIZE, shuffle=True, drop_last=True)
    steps = 0
    while True:
        for images, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            steps += 1
            if steps % 10 == 0:
                theta = surface.point(dict(model.named_parameters()))
                if surface.loss(theta) <= CROSS_ENTROPY:
                    return theta, steps


@pytest.mark.slow
def test_two_lenets_at_cross_entropy_a_tenth_are_strictly_connected(data_root: Folder, unpacked: Folder) -> None:
    module = MNISTDataModule(root=unpacked, source=data_root)
    module.prepare_data()
    module.setup("fit")
    data = module.splits["train"]
    images, labels = data[:PROBE_IMAGES]
    probe = list(zip(images.split(250), labels.split(250), strict=True))
    (theta_a, steps_a), (theta_b, steps_b) = (trained(seed, data, probe) for seed in (0, 1))

    torch.manual_seed(2)
    loader = DataLoader(data, BATCH_SIZE, shuffle=True, drop_last=True)
    surface = LossSurface(ImageClassifier("lenet"), probe, training_batches=loader)
    finder = DynamicStringSampling()
    found = finder.connect(surface, theta_a, theta_b)

    assert found.linear_height > 5 * CROSS_ENTROPY  # the straight line does not do it
    assert found.verdict == "connected"
    assert found.level == max(found.loss_a, found.loss_b) <= CROSS_ENTROPY  # no slack
    assert found.gradient_steps < steps_a + steps_b
    # On points of our own, three times as dense as the search's.
    count = 3 * int((finder.samples + 1) * found.normalized_length) + 1
    assert surface.losses(found.path(torch.linspace(0, 1, count))).max() <= found.level
    print(
        f"\n{steps_a + steps_b} steps to train, {found.gradient_steps} to connect, {found.num_beads} beads, "
        f"normalised length {found.normalized_length:.3f}, straight {found.linear_height:.3f}, "
        f"height {found.height:.5f} of {found.level:.5f}, {found.loss_evaluations} evaluations, {found.seconds:.0f} s"
    )
