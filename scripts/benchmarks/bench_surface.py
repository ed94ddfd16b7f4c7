"""LossSurface.losses per point against bare forward passes of the same module on the same batches."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

POINTS = 16


@pytest.mark.parametrize("vectorize", [False, True, None], ids=["loop", "vmap", "chosen"])
def test_losses_against_bare_forward(
    benchmark: BenchmarkFixture, make_model: Callable, make_surface: Callable, vectorize: bool | None
) -> None:
    module = make_model().eval()
    surface = make_surface(module, vectorize=vectorize)
    theta = surface.point()
    thetas = theta + 0.01 * torch.randn(POINTS, len(theta))
    passes = surface.evaluation_passes // len(surface.batches)

    @torch.no_grad()
    def bare() -> None:
        # The same forward passes, with batch norm in the mode in which it re-estimates.
        for _ in range(POINTS):
            for number in range(passes):
                module.train(passes == 2 and number == 0)
                for batch in surface.batches:
                    torch.nn.functional.cross_entropy(module(batch[0]), batch[1])

    surface.losses(thetas)  # decides between vmap and the loop
    ratios = []
    for _ in range(7):  # side by side, so that the machine's speed cancels
        start = time.perf_counter()
        bare()
        middle = time.perf_counter()
        surface.losses(thetas)
        ratios.append((time.perf_counter() - middle) / (middle - start))
    benchmark.extra_info["ratio to bare forward (median of 7)"] = sorted(ratios)[3]
    benchmark.extra_info["vmap"] = surface.choice()["losses"]
    benchmark.pedantic(surface.losses, args=(thetas,), rounds=5)
