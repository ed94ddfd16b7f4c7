"""Laws of the operators and of the norm; test_community_gnn.py has their dense matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch

from lightning_landscape.community import CommunityGraph, community_graph, stochastic_block_model
from lightning_landscape.models.graph_operators import InstanceNorm, NodeOperators, Segments


def batch_of_three() -> CommunityGraph:
    generator = torch.Generator().manual_seed(0)
    drawn = [stochastic_block_model(n, torch.full((1, 1), 4 / n), generator=generator) for n in (30, 12)]
    return Batch.from_data_list(
        [drawn[0], community_graph(torch.empty(2, 0).long(), 3, torch.zeros(3).long()), drawn[1]]
    )


@pytest.mark.parametrize("clipped", [False, True])
def test_each_operator_is_symmetric_and_its_own_derivative(clipped: bool) -> None:
    operators = NodeOperators(batch_of_three(), 3, clipped, torch.float64)
    x, y = torch.randn(2, 45, 2, dtype=torch.float64)
    x.requires_grad_()
    for ours, theirs in zip(operators.apply(x), operators.apply(y), strict=True):
        torch.testing.assert_close((ours * y).sum(), (x * theirs).sum())
        torch.testing.assert_close(torch.autograd.grad(ours, x, y, retain_graph=True)[0], theirs)


def test_powers_are_those_of_the_first() -> None:
    operators = NodeOperators(batch_of_three(), 3, False, torch.float64)
    x = torch.randn(45, 2, dtype=torch.float64)
    for doubled in (3, 4):
        torch.testing.assert_close(
            operators.apply(x)[doubled], operators.apply(operators.apply(x)[doubled - 1])[doubled - 1]
        )


def test_the_mean_degree_is_that_of_each_graph_and_at_least_one() -> None:
    graph = batch_of_three()
    operators = NodeOperators(graph, 1, False, torch.float64)
    counts = graph.edge_index[0].bincount(minlength=45).double()
    means = torch.stack([part.mean().clamp(min=1) for part in counts.split([30, 3, 12])])
    torch.testing.assert_close(operators.mean_degree[:, 0], means.repeat_interleave(torch.tensor([30, 3, 12])))
    torch.testing.assert_close(operators.degree * operators.mean_degree, counts[:, None])
    assert operators.offsets.diff().tolist() == counts.tolist()


def test_the_average_is_a_projection_onto_constants_of_each_graph() -> None:
    segments = Segments(torch.tensor([0, 4, 4, 9]), torch.tensor([0] * 4 + [2] * 5))  # the second is empty
    x = torch.randn(9, 3, dtype=torch.float64)
    once = segments.average(x)
    torch.testing.assert_close(segments.average(once), once)
    torch.testing.assert_close(once, torch.cat([part.mean(0).expand_as(part) for part in x.split([4, 5])]))


def test_the_norm_forgets_shift_and_scale_of_each_graph() -> None:
    segments = Segments(torch.tensor([0, 4, 9]), torch.tensor([0] * 4 + [1] * 5))
    x = torch.randn(9, 3, dtype=torch.float64)
    scale, shift = torch.tensor([2.0, 5.0])[segments.owner, None], torch.tensor([-3.0, 7.0])[segments.owner, None]
    norm = InstanceNorm(3, eps=0).double()
    torch.testing.assert_close(norm(scale * x + shift, segments), norm(x, segments))
    constant = InstanceNorm(3)(torch.full((9, 3), 4.0), segments)
    assert not constant.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_clipped_powers_in_any_default_precision(dtype: torch.dtype) -> None:
    def products(of: torch.dtype) -> list[Tensor]:
        return NodeOperators(batch_of_three(), 2, True, of).apply(torch.ones(45, 1, dtype=of))

    expected = products(torch.float32)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # as Lightning does with precision="bf16-true"
    try:
        found = products(dtype)
    finally:
        torch.set_default_dtype(default)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=0.05, atol=0.05)
