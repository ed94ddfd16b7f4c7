from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_landscape import LossSurface
from lightning_landscape.models import DeepLinearNetwork, TwoLayerReLU
from lightning_landscape.theory.symmetries import canonical_basis, canonical_units, change_basis, permute_and_rescale
from lightning_landscape.theory.weight_lists import weights_at

widths = st.lists(st.integers(1, 5), min_size=3, max_size=5)
seeds = st.integers(0, 2**31 - 1)
many = settings(max_examples=40, deadline=None, derandomize=True)


def chain(sizes: Sequence[int], relu: bool, bias: bool) -> nn.Module:
    layers = [part for n, m in pairwise(sizes) for part in (nn.Linear(n, m, bias=bias), nn.ReLU())][:-1]
    return nn.Sequential(*(layer for layer in layers if relu or isinstance(layer, nn.Linear))).double()


def random_theta(module: nn.Module, seed: int) -> Tensor:
    size = sum(parameter.numel() for parameter in module.parameters())
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_action(sizes: Sequence[int], seed: int) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed + 1)
    orders = [torch.randperm(width, generator=generator) for width in sizes[1:-1]]
    scales = [torch.randn(width, generator=generator, dtype=torch.float64).exp() for width in sizes[1:-1]]
    return orders, scales


def random_bases(sizes: Sequence[int], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed + 2)
    return [
        torch.randn(width, width, generator=generator, dtype=torch.float64) + 2 * torch.eye(width)
        for width in sizes[1:-1]
    ]


def surface_of(module: nn.Module, inputs: int, outputs: int) -> LossSurface:
    generator = torch.Generator().manual_seed(0)
    batch = tuple(torch.randn(20, size, generator=generator, dtype=torch.float64) for size in (inputs, outputs))
    return LossSurface(module, [batch], lambda module, batch: (module(batch[0]) - batch[1]).square().mean())


@many
@given(sizes=widths, bias=st.booleans(), seed=seeds)
def test_e_is_invariant_under_permutation_and_rescaling_of_relu_units(sizes: list[int], bias: bool, seed: int) -> None:
    module = chain(sizes, relu=True, bias=bias)
    theta, surface = random_theta(module, seed), surface_of(module, sizes[0], sizes[-1])
    moved = permute_and_rescale(module, theta, *random_action(sizes, seed))
    assert surface.loss(moved) == pytest.approx(surface.loss(theta), rel=1e-9)


@many
@given(sizes=widths, bias=st.booleans(), seed=seeds)
def test_e_is_invariant_under_gl_of_linear_layers(sizes: list[int], bias: bool, seed: int) -> None:
    module = chain(sizes, relu=False, bias=bias)
    theta, surface = random_theta(module, seed), surface_of(module, sizes[0], sizes[-1])
    moved = change_basis(module, theta, random_bases(sizes, seed))
    assert surface.loss(moved) == pytest.approx(surface.loss(theta), rel=1e-7)


@many
@given(sizes=widths, bias=st.booleans(), seed=seeds)
def test_the_canonical_units_are_one_point_of_the_orbit(sizes: list[int], bias: bool, seed: int) -> None:
    module = chain(sizes, relu=True, bias=bias)
    theta, surface = random_theta(module, seed), surface_of(module, sizes[0], sizes[-1])
    first = canonical_units(module, theta)
    assert surface.loss(first) == pytest.approx(surface.loss(theta), rel=1e-9)
    torch.testing.assert_close(canonical_units(module, first), first, atol=1e-9, rtol=1e-9)
    moved = permute_and_rescale(module, theta, *random_action(sizes, seed))
    torch.testing.assert_close(canonical_units(module, moved), first, atol=1e-9, rtol=1e-9)


@many
@given(sizes=st.lists(st.integers(1, 4), min_size=2, max_size=4), outputs=st.integers(1, 3), seed=seeds)
def test_the_canonical_basis_is_one_point_of_the_orbit(sizes: list[int], outputs: int, seed: int) -> None:
    sizes = [*sorted(sizes, reverse=True), outputs]
    module = chain(sizes, relu=False, bias=False)
    theta, surface = random_theta(module, seed), surface_of(module, sizes[0], outputs)
    first = canonical_basis(module, theta)
    assert surface.loss(first) == pytest.approx(surface.loss(theta), rel=1e-7)
    torch.testing.assert_close(canonical_basis(module, first), first, atol=1e-7, rtol=1e-7)
    moved = change_basis(module, theta, random_bases(sizes, seed))
    torch.testing.assert_close(canonical_basis(module, moved), first, atol=1e-6, rtol=1e-6)
    reached = torch.eye(sizes[0], dtype=torch.float64)
    for weight in weights_at(module, first)[:-1]:
        reached = weight @ reached
        torch.testing.assert_close(reached @ reached.T, torch.eye(len(reached)).double(), atol=1e-8, rtol=0)


def test_actions_compose_and_the_identity_does_nothing() -> None:
    sizes = (3, 4, 2, 2)
    module = chain(sizes, relu=False, bias=True)
    theta = random_theta(module, 0)
    first, second = random_bases(sizes, 0), random_bases(sizes, 5)
    both = [after @ before for before, after in zip(first, second, strict=True)]
    torch.testing.assert_close(
        change_basis(module, change_basis(module, theta, first), second), change_basis(module, theta, both)
    )
    assert torch.equal(change_basis(module, theta, [torch.eye(4), torch.eye(2)]), theta)
    units = [torch.arange(4), torch.arange(2)], [torch.ones(4), torch.ones(2)]
    assert torch.equal(permute_and_rescale(module, theta, *units), theta)


def test_a_relu_does_not_commute_with_a_sign() -> None:
    module = chain((2, 3, 1), relu=True, bias=False)
    theta, surface = random_theta(module, 0), surface_of(module, 2, 1)
    assert surface.loss(change_basis(module, theta, [-torch.eye(3)])) != pytest.approx(surface.loss(theta), rel=1e-3)


def test_an_l1_penalty_keeps_permutations_alone() -> None:
    module = TwoLayerReLU(2, 3).double()
    surface = LossSurface(module, [(torch.randn(9, 2).double(), torch.randn(9, 1).double())])
    theta, order, ones = random_theta(module, 0), torch.tensor([2, 0, 1]), torch.ones(3)
    assert surface.loss(permute_and_rescale(module, theta, [order], [ones])) == pytest.approx(surface.loss(theta))
    assert surface.loss(permute_and_rescale(module, theta, [order], [3 * ones])) != pytest.approx(surface.loss(theta))


@pytest.mark.parametrize("bias", [False, True])
def test_units_without_weights_are_put_in_order_too(bias: bool) -> None:
    sizes = (2, 5, 2)
    module = chain(sizes, relu=True, bias=bias)
    weights = [torch.zeros_like(weight) for weight in weights_at(module, random_theta(module, 0))]
    weights[0][0], weights[-2 if bias else -1][:, :3] = torch.tensor([3.0, 4.0]), torch.randn(2, 3).double()
    theta = torch.cat([weight.flatten() for weight in weights])
    first = canonical_units(module, theta)
    assert bool(first.isfinite().all())
    entering = weights_at(module, first)[0]
    assert entering.norm(dim=1).tolist() == pytest.approx([0.0] * 4 + [1.0])
    moved = permute_and_rescale(module, theta, *random_action(sizes, 3))
    torch.testing.assert_close(canonical_units(module, moved), first)
    zero = torch.zeros_like(theta)
    assert torch.equal(canonical_units(module, zero), zero)


def test_twin_units_are_told_apart_by_what_they_feed() -> None:
    module = chain((2, 2, 3, 1), relu=True, bias=False)
    theta = random_theta(module, 0)
    theta[2:4] = 2 * theta[:2]  # the second unit looks the same way
    first = canonical_units(module, theta)
    orders = [torch.tensor([1, 0]), torch.tensor([2, 0, 1])]
    moved = permute_and_rescale(module, theta, orders, [torch.tensor([0.5, 3.0]), torch.ones(3)])
    torch.testing.assert_close(canonical_units(module, moved), first)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, t: change_basis(m, t, []), r"bases must have the shapes \[\(3, 3\)\]"),
        (lambda m, t: change_basis(m, t, [torch.ones(3, 3)]), r"bases\[0\] must be invertible"),
        (lambda m, t: change_basis(m, t, [torch.eye(3) * torch.nan]), r"bases\[0\] must be invertible"),
        (lambda m, t: permute_and_rescale(m, t, [torch.zeros(3)], [torch.ones(3)]), r"orders\[0\] must hold each of"),
        (lambda m, t: permute_and_rescale(m, t, [torch.arange(2)], [torch.ones(3)]), "orders must have the shapes"),
        (lambda m, t: permute_and_rescale(m, t, [torch.arange(3)], [-torch.ones(3)]), r"scales\[0\] must be positive"),
        (lambda m, t: permute_and_rescale(m, t, [torch.arange(3)], []), "scales must have the shapes"),
        (lambda m, t: canonical_basis(m, t), r"W_1 has the rank 2 and hidden layer 1 has 3 units"),
        (lambda m, t: canonical_units(m, t[1:]), "expected parameters of shape"),
    ],
)
def test_what_is_no_action_is_refused(call: Any, message: str) -> None:
    module = chain((2, 3, 2), relu=False, bias=False)
    with pytest.raises(ValueError, match=message):
        call(module, random_theta(module, 0))


def test_modules_that_are_no_chain_are_refused() -> None:
    convolution = nn.Conv1d(1, 1, 3)
    with pytest.raises(ValueError, match="Conv1d is no chain of layers"):
        canonical_units(convolution, torch.zeros(4))
    gap = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(4, 1, bias=False))
    with pytest.raises(ValueError, match="no chain of layers"):
        canonical_units(gap, torch.zeros(10))
    with pytest.raises(ValueError, match="without biases"):
        canonical_basis(nn.Linear(2, 2), torch.zeros(6))


def test_two_factorisations_of_one_map_agree_in_their_representative() -> None:
    module = DeepLinearNetwork(3, 2, [2]).double()
    theta = random_theta(module, 0)
    other = change_basis(module, theta, [torch.tensor([[1.0, 5.0], [-2.0, 0.1]])])
    assert not torch.allclose(theta, other)
    torch.testing.assert_close(canonical_basis(module, theta), canonical_basis(module, other))
