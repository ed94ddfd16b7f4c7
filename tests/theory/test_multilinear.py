from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from theorem_cases import TOLERANCE, Batch, batch_of, bound_of, data_kinds, seeds, theta_of, weight_kinds
from torch import Tensor

from lightning_landscape.models import DeepLinearNetwork
from lightning_landscape.theory import measure_bound
from lightning_landscape.theory.multilinear import descent_path
from lightning_landscape.theory.regression import Regression
from lightning_landscape.theory.weight_lists import weights_at

widths = st.integers(1, 5)


def diagonal_data(values: list[float]) -> Batch:
    """x and y with the given eigenvalues of the fitted covariance."""
    x = torch.eye(len(values), dtype=torch.float64) * len(values) ** 0.5
    return x, torch.diag(torch.tensor(values, dtype=torch.float64).sqrt()) * len(values) ** 0.5


def spanning(*columns: int, size: int) -> Tensor:
    """theta of a network size - len(columns) - size whose last layer spans the given axes, fitted on them."""
    basis = torch.eye(size, dtype=torch.float64)[:, list(columns)]
    return torch.cat([basis.T.flatten(), basis.flatten()])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=widths, m=widths, hidden=st.lists(widths, max_size=4), data=data_kinds, kind=weight_kinds, seed=seeds)
def test_the_descent_never_rises_and_ends_at_the_best_matrix_of_that_rank(
    n: int, m: int, hidden: list[int], data: str, kind: str, seed: int
) -> None:
    module, batch = DeepLinearNetwork(n, m, hidden), batch_of(data, n, m, seed)
    theta = theta_of(kind, module, seed)
    path = descent_path(module, theta, batch)
    bound = bound_of(module, path, batch)
    minimum = Regression(batch).minimum(rank=min(module.widths))
    assert torch.equal(path.beads[0], theta)
    assert bound.rise <= TOLERANCE
    assert bound.profile.loss[-1] == pytest.approx(minimum, rel=1e-9, abs=1e-9 * bound.scale)


@pytest.mark.parametrize(
    ("values", "start", "end"),
    [
        ([4.0, 3.0, 2.0, 1.0], (2, 3), 3.0),  # both directions wrong, and orthogonal to the right ones
        ([4.0, 3.0, 2.0, 1.0], (0, 1), 3.0),  # at the minimum already
        ([4.0, 3.0, 2.0, 1.0], (1, 3), 3.0),
        ([2.0, 2.0, 2.0, 1.0], (1, 2), 3.0),  # a minimum among many
        ([2.0, 2.0, 2.0, 1.0], (2, 3), 3.0),
        ([1.0, 1.0, 0.0, 0.0], (2, 3), 0.0),  # rank-deficient fits
        ([0.0, 0.0, 0.0, 0.0], (0, 1), 0.0),
        ([1.0, 1.0 - 1e-6, 1.0 - 2e-6, 1e-3], (2, 3), 1.0 - 2e-6 + 1e-3),  # eigenvalues that are almost equal
        ([1.0, 1.0 - 1e-6, 1.0 - 2e-6, 1e-3], (1, 2), 1.0 - 2e-6 + 1e-3),
        ([1.0, 1.0 - 1e-12, 0.5, 0.25], (1, 2), 0.75),
    ],
)
def test_from_the_saddles_of_reduced_rank_regression(values: list[float], start: tuple[int, int], end: float) -> None:
    module, batch = DeepLinearNetwork(4, 4, [2]), diagonal_data(values)
    basis = spanning(*start, size=4)
    scale = torch.tensor(values, dtype=torch.float64).sqrt()[list(start)].repeat_interleave(4)
    theta = torch.cat([basis[:8] * scale, basis[8:]])  # the best fit on these axes, a critical point
    path = descent_path(module, theta, batch)
    bound = bound_of(module, path, batch)
    left = sum(value for index, value in enumerate(values) if index not in start)
    assert bound.profile.loss[0] == pytest.approx(left, abs=1e-12)
    assert bound.rise <= TOLERANCE
    assert bound.profile.loss[-1] == pytest.approx(end, abs=1e-9)
    if left == end:  # also where there are other minima
        assert path.length < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_a_minimum_within_an_eigenspace_stays_where_it_is(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    frame = torch.zeros(4, 2, dtype=torch.float64)
    frame[:3] = torch.linalg.qr(torch.randn(3, 2, generator=generator, dtype=torch.float64)).Q
    theta = torch.cat([2**0.5 * frame.T.flatten(), frame.flatten()])
    path = descent_path(DeepLinearNetwork(4, 4, [2]), theta, diagonal_data([2.0, 2.0, 2.0, 1.0]))
    assert path.length < 1e-6


@pytest.mark.parametrize("hidden", [[2, 3, 3], [3, 3, 2]])
def test_products_that_cancel_to_rounding_are_zero(hidden: list[int]) -> None:
    # What is left of the middle product has full rank in its own measure; divided by it, weights would be 1e16.
    module, batch = DeepLinearNetwork(4, 4, hidden), batch_of("generic", 4, 4, 0)
    weights = weights_at(module, theta_of("generic", module, 0))
    axis = torch.tensor([0.3, -0.7, 0.2], dtype=torch.float64)
    passed = torch.outer(axis, axis) / axis.dot(axis)
    lower = 1 if hidden[0] == 2 else 0
    weights[lower] = passed @ weights[lower]
    weights[lower + 1] = weights[lower + 1] - weights[lower + 1] @ passed
    theta = torch.cat([weight.flatten() for weight in weights])
    path = descent_path(module, theta, batch)
    bound = bound_of(module, path, batch)
    assert float(path.beads.abs().max()) < 100
    assert bound.rise <= TOLERANCE
    assert bound.profile.loss[-1] == pytest.approx(Regression(batch).minimum(rank=2))


def test_a_layer_that_lost_all_components_is_zero() -> None:
    # The last layer is left with rounding by the opening; found by 2,471 random cases.
    module, batch = DeepLinearNetwork(3, 6, [6, 7, 2, 6, 2]), batch_of("noise-free", 3, 6, 312408247)
    path = descent_path(module, theta_of("some layers zero", module, 312408247), batch)
    bound = bound_of(module, path, batch)
    assert float(path.beads.abs().max()) < 100
    assert bound.profile.loss[-1] == pytest.approx(Regression(batch).minimum(rank=2))


def test_a_gap_as_small_as_the_step_keeps_falling() -> None:
    # 20,000 points, 100 and more on each of the short segments of the rotation, where a chord could rise.
    module, batch = DeepLinearNetwork(2, 2, [1]), diagonal_data([1.0, 0.999])
    path = descent_path(module, spanning(1, size=2), batch)
    losses = measure_bound(module, path, batch, num_points=20_000).profile.loss
    assert len(path.beads) > 50
    assert max(after - before for before, after in pairwise(losses)) <= 1e-15
    assert losses[-1] == pytest.approx(0.999, abs=1e-12)


def test_all_weights_zero_in_a_deep_narrow_network() -> None:
    module, batch = DeepLinearNetwork(4, 3, [2, 1, 2, 3]), batch_of("copied input", 4, 3, 3)
    bound = bound_of(module, descent_path(module, torch.zeros(27), batch), batch)
    assert bound.rise <= TOLERANCE
    assert bound.profile.loss[0] == pytest.approx(float(batch[1].square().sum(1).mean()))
    assert bound.profile.loss[-1] == pytest.approx(Regression(batch).minimum(rank=1))


def test_a_ridge_is_refused() -> None:
    module = DeepLinearNetwork(2, 2, [1], ridge=0.1)
    with pytest.raises(ValueError, match=r"ridge must be 0 for this theorem, got 0\.1"):
        descent_path(module, torch.zeros(4), batch_of("generic", 2, 2, 0))


def test_another_module_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a DeepLinearNetwork, got Linear"):
        descent_path(torch.nn.Linear(2, 2), torch.zeros(4), batch_of("generic", 2, 2, 0))  # type: ignore[arg-type]
