from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from theorem_cases import TOLERANCE, batch_of, bound_of, check_ends, data_kinds, seeds, theta_of, weight_kinds
from torch import Tensor
from torch.func import functional_call

from lightning_landscape.models import DeepQuadraticNetwork, QuadraticNetwork
from lightning_landscape.theory import connecting_path, deep_quadratic, descent_path, quadratic
from lightning_landscape.theory.deep_quadratic import dimensions
from lightning_landscape.theory.weight_lists import weights_at


def network(num_inputs: int, num_layers: int, num_outputs: int, spare: int = 0) -> DeepQuadraticNetwork:
    widths = [2 * dimension + spare for dimension in dimensions(num_inputs, num_layers)]
    return DeepQuadraticNetwork(num_inputs, widths, num_outputs)


def least_error(num_inputs: int, num_layers: int, x: Tensor, y: Tensor) -> float:
    """By another road: least squares on powers of many random linear forms, which span all forms of the degree."""
    directions = torch.randn(num_inputs, 200, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    values = (x @ directions) ** (2 ** (num_layers - 1))
    values = values / values.norm(dim=0)
    return float((values @ torch.linalg.pinv(values, rtol=1e-10) @ y - y).square().sum(1).mean())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shape=st.sampled_from([(1, 3, 2), (2, 2, 1), (2, 3, 1), (2, 3, 2), (3, 3, 1), (2, 4, 1), (3, 2, 2)]),
    spare=st.integers(0, 2),
    data=data_kinds,
    kind_a=weight_kinds,
    kind_b=weight_kinds,
    seed=seeds,
)
def test_paths_of_wide_networks(
    shape: tuple[int, int, int], spare: int, data: str, kind_a: str, kind_b: str, seed: int
) -> None:
    n, layers, m = shape
    module, (x, y) = network(n, layers, m, spare), batch_of(data, n, m, seed)
    theta_a, theta_b = theta_of(kind_a, module, seed), theta_of(kind_b, module, seed + 1)
    path = connecting_path(module, theta_a, theta_b, (x, y))
    check_ends(path, theta_a, theta_b)
    assert bound_of(module, path, (x, y)).excess <= TOLERANCE

    descent = bound_of(module, descent_path(module, theta_a, (x, y)), (x, y))
    assert descent.rise <= TOLERANCE
    assert descent.profile.loss[-1] == pytest.approx(least_error(n, layers, x, y), rel=1e-7, abs=1e-8 * descent.scale)


def test_the_function_moves_on_one_segment_alone_and_straight() -> None:
    module, batch = network(2, 3, 2), batch_of("generic", 2, 2, 0)
    theta_a, theta_b = theta_of("generic", module, 0), theta_of("generic", module, 1)
    elsewhere = torch.randn(30, 2, dtype=torch.float64)  # f is constant off the data, too
    names = [name for name, _ in module.named_parameters()]

    def outputs(theta: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, weights_at(module, theta), strict=True)), (elsewhere,)).detach()

    start, end = outputs(theta_a), outputs(theta_b)
    offset = (end - start).flatten()
    for bead in connecting_path(module, theta_a, theta_b, batch)(torch.linspace(0, 1, 150, dtype=torch.float64)):
        moved = (outputs(bead) - start).flatten()
        share = float(moved @ offset / (offset @ offset))
        assert -1e-9 <= share <= 1 + 1e-9
        torch.testing.assert_close(moved, share * offset, atol=1e-9 * float(offset.abs().max()), rtol=0)


def test_one_layer_of_squares_is_the_quadratic_network() -> None:
    deep, shallow = DeepQuadraticNetwork(2, [12], 1), QuadraticNetwork(2, 12, 1)
    batch, theta = batch_of("generic", 2, 1, 4), theta_of("generic", deep, 4)
    ends = [
        bound_of(module, build(module, theta, batch), batch).profile.loss[-1]
        for module, build in ((deep, deep_quadratic.descent_path), (shallow, quadratic.descent_path))
    ]
    assert ends[0] == pytest.approx(ends[1], rel=1e-9)


@pytest.mark.parametrize("of_inputs", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("of_weights", [1e-3, 1.0, 1e3])
def test_inputs_and_weights_of_other_sizes(of_inputs: float, of_weights: float) -> None:
    module, (x, y) = network(2, 3, 1), batch_of("generic", 2, 1, 3)
    ends = [theta_of("generic", module, seed) for seed in (1, 2)]
    for theta in ends:
        theta[: next(module.parameters()).numel()] *= of_weights
    batch = of_inputs * x, y
    assert bound_of(module, connecting_path(module, *ends, batch), batch).excess <= 1e-8
    descent = bound_of(module, descent_path(module, ends[0], batch), batch)
    assert descent.profile.loss[-1] == pytest.approx(least_error(2, 3, x, y), rel=1e-6)


def test_what_the_theorem_does_not_treat_is_refused() -> None:
    module, batch = DeepQuadraticNetwork(2, [6, 9], 1), batch_of("generic", 2, 1, 0)
    theta = theta_of("generic", module, 0)
    with pytest.raises(ValueError, match="M_2 = 9 must be at least 2 q_2 = 10"):
        connecting_path(module, theta, -theta, batch)
    with pytest.raises(ValueError, match="M_2 = 9 must be at least 2 q_2 = 10"):
        descent_path(module, theta, batch)
    wide = network(2, 3, 1)
    theta = theta_of("generic", wide, 0)
    assert connecting_path(wide, theta, theta, batch).length == 0.0
    with pytest.raises(ValueError, match=r"y \(N, 1\)"):
        descent_path(wide, theta, (torch.zeros(4, 2), torch.zeros(4, 3)))
    with pytest.raises(ValueError, match="must be a DeepQuadraticNetwork"):
        deep_quadratic.descent_path(QuadraticNetwork(2), theta, batch)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one width"):
        DeepQuadraticNetwork(2, [])
    with pytest.raises(ValueError, match="num_layers must be an integer of at least 1"):
        dimensions(2, 0)
