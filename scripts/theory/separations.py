"""How many pairs of trained networks are proved separated: ``python -m scripts.theory.separations``.

Networks with three ReLU units on one input, trained from seeds on a noisy zigzag of three kinks.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn

from lightning_landscape.certificates.separation import OneLine, word

UNITS, STEPS = 3, 1800
Batch = tuple[Tensor, Tensor]


def zigzag(points: int = 31, noise: float = 0.03, seed: int = 0) -> Batch:
    """A continuous function with three kinks on [-2, 2], of variance 1, and noise."""
    generator = torch.Generator().manual_seed(seed)
    s = (4 * torch.rand(points, generator=generator, dtype=torch.float64) - 2).sort().values
    kinks = torch.linspace(-1.5, 1.2, UNITS, dtype=torch.float64)
    turns = torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64)
    y = (turns * (s[:, None] - kinks).relu()).sum(1)
    y = y / y.std() + noise * torch.randn(points, generator=generator, dtype=torch.float64)
    return s[:, None], y[:, None]


def network() -> nn.Module:
    """Three units with biases, and no bias at the output."""
    return nn.Sequential(nn.Linear(1, UNITS), nn.ReLU(), nn.Linear(UNITS, 1, bias=False)).double()


def trained(batch: Batch, count: int, seed: int = 0, steps: int = STEPS) -> Tensor:
    """So many networks trained side by side, shape (count, 3 UNITS)."""
    torch.set_num_threads(1)  # the tensors are small
    generator = torch.Generator().manual_seed(seed)
    thetas = torch.randn(count, 3 * UNITS, generator=generator, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([thetas], lr=2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    (s, y) = batch
    for _ in range(steps):
        weight, bias, out = thetas.split(UNITS, dim=1)
        answers = ((s * weight[:, None] + bias[:, None]).relu() * out[:, None]).sum(2)
        optimizer.zero_grad()
        (answers - y.T).square().mean(1).sum().backward()
        optimizer.step()
        schedule.step()
    return thetas.detach()


def main() -> None:
    """Prints the table."""
    print("| data seed | height c | networks below c, of 768 | pairs | proved separated | also after any reordering |")
    print("| --- | --- | --- | --- | --- | --- |")
    for seed in range(5):
        batch = zigzag(seed=seed)
        line = OneLine.of_module(network(), batch)
        below = [theta for theta in trained(batch, 768, seed) if line.loss_above(theta) < line.height]
        labels = [line.label(theta) for theta in below]
        pairs = list(combinations(labels, 2))
        apart = sum(a != b for a, b in pairs)
        reordered = sum(word(a) != word(b) for a, b in pairs)
        print(f"| {seed} | {line.height:.4f} | {len(below)} | {len(pairs)} | {apart} | {reordered} |", flush=True)


if __name__ == "__main__":
    main()
