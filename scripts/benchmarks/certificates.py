"""What a proof costs beside the search, a row for each net: ``python -m scripts.benchmarks.certificates``."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_landscape import LossSurface
from lightning_landscape.certificates import certify
from lightning_landscape.datamodules import DigitsDataModule, MNISTDataModule
from lightning_landscape.finders import Budget, DynamicStringSampling
from lightning_landscape.models import ImageClassifier

EXAMPLES = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=["64-32-10", "64-128-10", "64-32-32-10", "lenet", "mnist-lenet"])
    torch.set_num_threads(1)
    for net in parser.parse_args().nets:
        print(row(net), flush=True)


def row(net: str) -> str:
    """One row of the table."""
    images, labels = data(net)
    build = architecture(net, images)
    first, second = (trained(build, images, labels, seed) for seed in (1, 2))
    part = images[:EXAMPLES], labels[:EXAMPLES]
    batches = list(zip(part[0].split(128), part[1].split(128), strict=True))
    surface = LossSurface(first, batches, loss_fn=loss)
    ends = surface.point(), surface.point(dict(second.named_parameters()))
    begun = time.process_time()
    found = DynamicStringSampling().connect(surface, *ends, margin=0.05, budget=Budget(3000))
    searched = time.process_time() - begun
    begun = time.process_time()
    proof = certify(surface, found)
    proved = time.process_time() - begun
    said = "yes" if proof.certified else str(proof.reason)
    return (
        f"| {net} | {surface.dimension:,} | {found.level:.5f} | {searched:.2f} | {said} | {proof.height:.5f} | "
        f"{found.height:.5f} | {proof.pieces} | {proved:.2f} |"
    )


def data(net: str) -> tuple[Tensor, Tensor]:
    """Images and labels that a network is trained on, the first of which define E."""
    module = (
        MNISTDataModule(batch_size=2048, source=os.environ.get("LANDSCAPE_DATA"))
        if net.startswith("mnist")
        else DigitsDataModule(batch_size=1024)
    )
    torch.manual_seed(0)  # the training loader shuffles
    module.prepare_data()
    module.setup("fit")
    images, labels = (
        next(iter(module.val_dataloader())) if net.startswith("mnist") else next(iter(module.train_dataloader()))
    )
    return (images if "lenet" in net else images.flatten(1)), labels


def architecture(net: str, images: Tensor) -> Callable[[], nn.Module]:
    """What makes a network with new weights."""
    if "lenet" in net:
        return lambda: ImageClassifier("lenet", image_size=images.shape[-1])
    widths = [int(width) for width in net.split("-")]
    return lambda: nn.Sequential(*[layer for n, m in pairwise(widths) for layer in (nn.Linear(n, m), nn.ReLU())][:-1])


def trained(build: Callable[[], nn.Module], images: Tensor, labels: Tensor, seed: int) -> nn.Module:
    """A network trained until its loss on the examples of E is .1."""
    torch.manual_seed(seed)
    module = build()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    for step in range(5000):
        chosen = torch.randint(len(images), (64,), generator=generator)
        optimizer.zero_grad()
        loss(module, (images[chosen], labels[chosen])).backward()
        optimizer.step()
        if step % 25 == 0 and loss(module, (images[:EXAMPLES], labels[:EXAMPLES])) < 0.1:
            break
    return module


def loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy."""
    return functional.cross_entropy(module(batch[0]), batch[1])


if __name__ == "__main__":
    main()
