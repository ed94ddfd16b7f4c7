"""Data and weights for the random tests of the theorems, and the bound on E that they check."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_landscape import Path
from lightning_landscape.theory import PathBound, measure_bound

TOLERANCE = 1e-9
Batch = tuple[Tensor, Tensor]

seeds = st.integers(0, 2**31 - 1)
data_kinds = st.sampled_from(
    ["generic", "copied input", "equal eigenvalues", "zero targets", "one example", "noise-free"]
)
weight_kinds = st.sampled_from(["generic", "zero", "rank one", "some layers zero", "uneven scales"])


def batch_of(kind: str, num_inputs: int, num_outputs: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    count = 1 if kind == "one example" else 12
    x = torch.randn(count, num_inputs, generator=generator, dtype=torch.float64)
    y = torch.randn(count, num_outputs, generator=generator, dtype=torch.float64)
    if kind == "copied input":
        x[:, -1] = x[:, 0]
    if kind == "equal eigenvalues":
        x = torch.eye(num_inputs, dtype=torch.float64).repeat(2, 1)
        y = torch.eye(num_inputs, num_outputs, dtype=torch.float64).repeat(2, 1)
    if kind == "zero targets":
        y = torch.zeros_like(y)
    if kind == "noise-free":
        y = x @ torch.randn(num_inputs, num_outputs, generator=generator, dtype=torch.float64)
    return x, y


def theta_of(kind: str, module: nn.Module, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for index, parameter in enumerate(module.parameters()):
        rows, columns = parameter.shape
        weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
        if kind == "rank one":
            weight = weight[:, :1] @ weight[:1]
        if kind == "zero" or (kind == "some layers zero" and (index + seed) % 2):
            weight = torch.zeros_like(weight)
        if kind == "uneven scales":
            weight *= 10.0 ** ((index + seed) % 3 - 1)
        parts.append(weight.flatten())
    return torch.cat(parts)


def bound_of(module: nn.Module, path: Path, batch: Batch) -> PathBound:
    """E at 1,000 points, relative to the larger end or, where both interpolate, to the loss of predicting 0."""
    bound = measure_bound(module, path, batch, scale=1.0)
    larger = max(bound.profile.loss[0], bound.profile.loss[-1])
    at_zero = float(batch[1].square().sum(1).mean()) or 1.0
    return replace(bound, scale=larger if larger > TOLERANCE * at_zero else at_zero)


def check_ends(path: Path, theta_a: Tensor, theta_b: Tensor) -> None:
    assert path.beads.dtype == torch.float64
    assert torch.equal(path.beads[0], theta_a.double())
    assert torch.equal(path.beads[-1], theta_b.double())
