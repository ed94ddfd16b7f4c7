from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning import Trainer
from theorem_cases import TOLERANCE, batch_of, check_ends, data_kinds, seeds, theta_of, weight_kinds

from lightning_landscape import LossSurface
from lightning_landscape.datamodules import PlantedTeacherDataModule
from lightning_landscape.models import TwoLayerReLU
from lightning_landscape.theory import measure_bound
from lightning_landscape.theory.two_layer_relu import connecting_path, construct
from lightning_landscape.theory.weight_lists import flatten, weights_at


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 3),
    m=st.integers(1, 7),
    outputs=st.integers(1, 2),
    data=data_kinds,
    kind_a=weight_kinds,
    kind_b=weight_kinds,
    l1=st.sampled_from([1e-3, 0.1, 10.0]),
    seed=seeds,
)
def test_paths_stay_below_the_ends_and_epsilon(
    n: int, m: int, outputs: int, data: str, kind_a: str, kind_b: str, l1: float, seed: int
) -> None:
    module, (x, y) = TwoLayerReLU(n, m, outputs, l1), batch_of(data, n, outputs, seed)
    theta_a, theta_b = theta_of(kind_a, module, seed), theta_of(kind_b, module, seed + 1)
    found = construct(module, theta_a, theta_b, (x, y))
    check_ends(found.path, theta_a, theta_b)
    bound = measure_bound(module, found.path, (x, y), scale=1.0)
    bar = max(bound.profile.loss[0], bound.profile.loss[-1], found.epsilon)
    assert bound.height <= bar * (1 + TOLERANCE) + 1e-15
    # A network that answers 0 is always on offer.
    assert found.epsilon <= float(y.square().sum(1).mean()) * (1 + 1e-6)
    assert 0 <= found.oracle_units <= m


@pytest.mark.parametrize("seed", range(3))
def test_every_segment_moves_the_second_layer_or_rows_that_it_ignores(seed: int) -> None:
    module, batch = TwoLayerReLU(2, 9, 2, 1e-2), batch_of("generic", 2, 2, seed)
    theta_a, theta_b = theta_of("generic", module, seed), theta_of("generic", module, seed + 10)
    found = construct(module, theta_a, theta_b, batch)
    assert found.path.num_beads >= 5
    for before, after in pairwise(found.path.beads):
        (rows, readout), (new_rows, new_readout) = weights_at(module, before), weights_at(module, after)
        if not torch.equal(rows, new_rows):
            assert torch.equal(readout, new_readout)
            changed = (rows != new_rows).any(dim=1)
            assert not bool(readout[:, changed].any())
    inner = LossSurface(module.double(), [batch]).losses(found.path.beads[1:-1])
    assert inner.max().item() == pytest.approx(found.epsilon, rel=1e-12)


def test_the_middle_uses_no_more_units_than_it_says() -> None:
    module, batch = TwoLayerReLU(3, 12, 1, 1e-2), batch_of("generic", 3, 1, 0)
    found = construct(module, theta_of("generic", module, 0), theta_of("generic", module, 1), batch)
    used = [int((weights_at(module, bead)[1] != 0).any(dim=0).sum()) for bead in found.path.beads]
    assert min(used) <= found.oracle_units
    assert used[1] <= 12 - found.oracle_units
    assert used[-2] <= 12 - found.oracle_units


@pytest.mark.parametrize("kind", ["generic", "zero"])
def test_a_point_is_joined_with_itself_by_standing_still(kind: str) -> None:
    module, batch = TwoLayerReLU(2, 4), batch_of("generic", 2, 1, 0)
    theta = theta_of(kind, module, 0)
    path = connecting_path(module, theta, theta, batch)
    assert torch.equal(path.beads, theta.expand(2, -1))


def test_points_with_one_first_layer_are_joined_by_the_straight_line() -> None:
    module, batch = TwoLayerReLU(2, 4), batch_of("generic", 2, 1, 0)
    theta_a, theta_b = theta_of("generic", module, 0), theta_of("generic", module, 1)
    theta_b[:8] = theta_a[:8]
    found = construct(module, theta_a, theta_b, batch)
    assert (found.path.num_beads, found.epsilon) == (0, 0.0)
    assert measure_bound(module, found.path, batch).excess <= TOLERANCE


@pytest.mark.parametrize("seed", range(3))
def test_on_the_line_four_units_suffice_for_no_rise_at_all(seed: int) -> None:
    # With one input all units of a sign are copies of each other: the theorem's angle is 0.
    module, batch = TwoLayerReLU(1, 4, 1, 1e-2), batch_of("generic", 1, 1, seed)
    rows = [torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]), torch.tensor([[-1.0], [1.0], [-1.0], [1.0]])]
    ends = [with_best_readout(module, row.double(), batch) for row in rows]
    found = construct(module, *ends, batch)
    bound = measure_bound(module, found.path, batch)
    assert bound.excess <= 1e-6


def with_best_readout(module: TwoLayerReLU, rows: torch.Tensor, batch: Any) -> torch.Tensor:
    """The network with these rows and, by many steps of proximal descent, the best second layer."""
    features = torch.relu(batch[0] @ rows.T)
    step = len(features) / (2 * torch.linalg.matrix_norm(features, 2) ** 2)
    readout = torch.zeros(1, len(rows), dtype=torch.float64)
    for _ in range(500):
        readout = readout - step * 2 / len(features) * (features @ readout.T - batch[1]).T @ features
        readout = readout.sign() * (readout.abs() - step * module.l1).clamp_min(0)
    return flatten([rows, readout])


def test_the_rise_falls_with_the_width() -> None:
    rises = []
    for units in (4, 8, 32):
        module, total = TwoLayerReLU(2, units, 1, 1e-2), 0.0
        for seed in range(2):
            generator = torch.Generator().manual_seed(seed)
            x = torch.randn(60, 2, generator=generator, dtype=torch.float64)
            y = torch.relu(x @ torch.randn(2, 6, generator=generator, dtype=torch.float64)).sum(1, keepdim=True)
            rows = torch.randn(2, units, 2, generator=generator, dtype=torch.float64)
            rows /= rows.norm(dim=2, keepdim=True)
            ends = [with_best_readout(module, row, (x, y)) for row in rows]
            found = construct(module, *ends, (x, y))
            level = measure_bound(module, found.path, (x, y), num_points=2, scale=1.0)
            total += max(0.0, found.epsilon - max(level.profile.loss[0], level.profile.loss[-1]))
        rises.append(total)
    assert rises[0] > 2 * rises[1] > 20 * rises[2]


def test_what_the_theorem_does_not_cover_is_refused() -> None:
    module, (x, y) = TwoLayerReLU(2, 3), batch_of("generic", 2, 1, 0)
    theta = torch.zeros(9)
    with pytest.raises(ValueError, match=r"needs an l1 penalty on the second layer, got l1=0"):
        connecting_path(TwoLayerReLU(2, 3, l1=0.0), theta, theta, (x, y))
    with pytest.raises(ValueError, match=r"batch must be x \(N, 2\) and y \(N, 1\), got \(12, 2\) and \(11, 1\)"):
        connecting_path(module, theta, theta, (x, y[1:]))
    with pytest.raises(ValueError, match="batch must be x"):
        connecting_path(module, theta, theta, (x[:0], y[:0]))
    with pytest.raises(ValueError, match="batch must be finite"):
        connecting_path(module, theta, theta, (x, y * torch.nan))
    with pytest.raises(ValueError, match="theta must be finite"):
        connecting_path(module, theta, theta + torch.inf, (x, y))
    with pytest.raises(ValueError, match="expected parameters of shape"):
        connecting_path(module, theta, theta[1:], (x, y))


def test_the_module_is_its_formula() -> None:
    module, x = TwoLayerReLU(3, 5, 2, l1=0.25), torch.randn(7, 3)
    with torch.no_grad():
        module.hidden.weight[:2] *= 10
        module.hidden.weight[2:4] *= 0.01
        module.hidden.weight[4] = 0
    rows, readout = module.hidden.weight.detach(), module.readout.weight.detach()
    units = torch.stack([row / max(1.0, float(row.norm())) for row in rows])
    torch.testing.assert_close(module(x), torch.relu(x @ units.T) @ readout.T)
    batch = x, torch.randn(7, 2)
    expected = (module(x) - batch[1]).square().sum(1).mean() + 0.25 * readout.abs().sum()
    surface = LossSurface(module, [batch])
    assert surface.loss(surface.point()) == pytest.approx(expected.item(), rel=1e-6)
    _, gradient = surface.gradients(surface.point()[None], batch)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize(("name", "value"), [("l1", -1.0), ("l1", float("nan")), ("hidden_units", 0)])
def test_arguments_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        TwoLayerReLU(**{name: value})


def test_it_learns_its_teacher() -> None:
    data = PlantedTeacherDataModule("relu", num_inputs=2, num_outputs=1, teacher_units=3, noise=0.0, num_examples=128)
    module = TwoLayerReLU(2, 16, 1)
    trainer = Trainer(
        max_epochs=40,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, datamodule=data)
    y = data.splits["val"].tensors[1]
    assert float(trainer.callback_metrics["val/loss"]) < 0.05 * float(y.square().mean())
