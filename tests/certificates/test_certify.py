"""What certify says of whole paths, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from lightning_landscape import LossSurface
from lightning_landscape.certificates import CrossEntropy, certify
from lightning_landscape.finders import Budget
from lightning_landscape.path import Path


def cross_entropy(module: Any, batch: Any) -> Tensor:
    return functional.cross_entropy(module(batch[0]), batch[1])


def surface_of(*layers: nn.Module, loss: Any = cross_entropy, **options: Any) -> LossSurface:
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(n, 3, generator=generator), torch.randint(4, (n,), generator=generator)) for n in (5, 3)]
    torch.manual_seed(0)
    return LossSurface(nn.Sequential(*layers), batches, loss_fn=loss, **options)


def corners(surface: LossSurface) -> Tensor:
    steps = torch.randn(2, surface.dimension, generator=torch.Generator().manual_seed(1))
    return torch.cat([surface.point()[None], surface.point() + steps])


def mlp() -> list[nn.Module]:
    return [nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4)]


def test_the_bound_of_each_piece_lies_above_the_loss_and_close_to_it() -> None:
    surface = surface_of(*mlp())
    proof = certify(surface, Path(corners(surface)))
    assert proof.certified
    t = torch.linspace(0, 1, 501)[:-1]
    losses = surface.losses(Path(corners(surface))(t))
    bounds = torch.tensor(proof.bounds, dtype=torch.float64)
    place = torch.searchsorted(torch.tensor(proof.knots), t, right=True) - 1
    assert (bounds[place] >= losses - 1e-5).all()  # E of single precision
    assert losses.max() - 1e-5 <= proof.height <= proof.level
    assert proof.work > 0


def test_no_proof_where_the_path_rises_above_the_level() -> None:
    surface = surface_of(*mlp())
    beads = corners(surface)
    highest = float(surface.losses(Path(beads)(torch.linspace(0, 1, 99))).max())
    proof = certify(surface, beads, level=0.99 * highest)
    assert not proof.certified
    assert "above the level" in str(proof.reason) or "too close" in str(proof.reason)
    assert proof.to_dict()["height"] is None


def test_a_budget_ends_a_proof() -> None:
    surface = surface_of(*mlp())
    proof = certify(surface, corners(surface), budget=Budget(work=20))
    assert (proof.certified, str(proof.reason)[:10]) == (False, "the budget")


def test_a_level_at_an_end_is_reached() -> None:
    surface = surface_of(*mlp())
    theta = surface.point()
    away = torch.stack([theta, theta + 1e-2 * torch.randn(len(theta), generator=torch.Generator().manual_seed(2))])
    level = float(surface.losses(away).max())
    assert certify(surface, away, level=level + 1e-6).certified


@pytest.mark.parametrize(
    ("layers", "loss", "named"),
    [
        ([nn.Linear(3, 4), nn.LayerNorm(4)], cross_entropy, "LayerNorm"),
        ([nn.Linear(3, 4), nn.Softmax(1)], cross_entropy, "Softmax"),
        ([parametrizations.weight_norm(nn.Linear(3, 4))], cross_entropy, "Parametrized"),
        ([nn.Linear(3, 4), nn.BatchNorm1d(4)], cross_entropy, "batch_norm='frozen'"),
        ([nn.Linear(3, 4), nn.GELU("tanh")], cross_entropy, "approximate"),
        (mlp(), lambda m, b: cross_entropy(m, b) + 1e-2 * m[0].weight.square().sum(), "E is no cross-entropy"),
        (mlp(), lambda m, b: cross_entropy(m, (b[0] + 0.01, b[1])), "E is no cross-entropy"),
        (mlp(), lambda m, b: cross_entropy(m, (b[0] + 0.1 * torch.randn_like(b[0]), b[1])), "random"),
    ],
)
def test_what_is_not_known_is_named_and_nothing_is_claimed(layers: list[nn.Module], loss: Any, named: str) -> None:
    surface = surface_of(*layers, loss=loss)
    proof = certify(surface, corners(surface), level=1e9)
    assert not proof.certified
    assert proof.height == float("inf")
    assert named in str(proof.reason)


def test_a_smoothed_loss_has_to_be_given() -> None:
    surface = surface_of(*mlp(), loss=lambda m, b: functional.cross_entropy(m(b[0]), b[1], label_smoothing=0.1))
    assert not certify(surface, corners(surface)).certified
    assert certify(surface, corners(surface), loss=CrossEntropy(label_smoothing=0.1)).certified


def test_frozen_batch_norm_is_certified() -> None:
    surface = surface_of(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4), batch_norm="frozen")
    assert certify(surface, corners(surface)).certified
