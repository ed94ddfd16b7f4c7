"""The operators against dense matrices and their laws, and the norm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from lightning_landscape.community import CommunityGraph, community_graph, stochastic_block_model
from lightning_landscape.models.graphs.graph_operators import InstanceNorm, NodeOperators, Segments


def sbm(n: int, seed: int) -> CommunityGraph:
    return stochastic_block_model(n, torch.full((1, 1), 4 / n), generator=torch.Generator().manual_seed(seed))


def batch_of_three() -> CommunityGraph:
    edgeless = community_graph(torch.empty(2, 0).long(), 3, torch.zeros(3).long())
    return Batch.from_data_list([sbm(30, 0), edgeless, sbm(12, 1)])


def dense(graph: CommunityGraph) -> Tensor:
    adjacency = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    adjacency[tuple(graph.edge_index)] = 1
    return adjacency


@pytest.mark.parametrize("clipped", [False, True])
def test_operators_are_the_scaled_matrices_graph_by_graph(clipped: bool) -> None:
    graphs = [sbm(30, 1), sbm(20, 2)]
    x = torch.randn(50, 3, dtype=torch.float64)
    found = NodeOperators(Batch.from_data_list(graphs), 3, clipped, torch.float64).apply(x)
    for graph, rows in zip(graphs, (slice(0, 30), slice(30, 50)), strict=True):
        adjacency = dense(graph)
        degree = adjacency.sum(1)
        unit = adjacency / degree.mean().sqrt()
        powers = [torch.linalg.matrix_power(unit, power) for power in (1, 2, 4)]
        if clipped:
            cut = [adjacency]
            for _ in range(2):
                cut.append((cut[-1] @ cut[-1]).clamp(max=1))
            powers = [matrix / matrix.sum(1).mean().sqrt() for matrix in cut]
        average = torch.full_like(adjacency, 1 / len(degree))
        expected = [torch.eye(len(degree)).double(), torch.diag(degree) / degree.mean(), *powers, average]
        assert len(found) == len(expected)
        for ours, operator in zip(found, expected, strict=True):
            assert torch.allclose(ours[rows], operator @ x[rows], rtol=1e-12, atol=1e-12)


def test_derivatives_of_operators_and_norm() -> None:
    graph = Batch.from_data_list(
        [sbm(8, 1), sbm(5, 2), community_graph(torch.empty(2, 0).long(), 1, torch.zeros(1).long())]
    )
    operators = NodeOperators(graph, 3, False, torch.float64)
    norm = InstanceNorm(2).double()
    nn.init.normal_(norm.weight)

    def through(x: Tensor) -> Tensor:
        return norm(torch.stack(operators.apply(x)).square().sum(0), operators.segments)

    assert torch.autograd.gradcheck(through, torch.randn(14, 2, dtype=torch.float64, requires_grad=True))


def test_norm_gives_mean_zero_and_variance_one_on_each_graph() -> None:
    pointer = torch.tensor([0, 5, 5, 12])
    owner = torch.tensor([0] * 5 + [2] * 7)
    y = InstanceNorm(3, eps=0)(3 + 10 * torch.randn(12, 3, dtype=torch.float64), Segments(pointer, owner))
    for rows in (y[:5], y[5:]):
        assert torch.allclose(rows.mean(0), torch.zeros(3).double(), atol=1e-12)
        assert torch.allclose(rows.var(0, correction=0), torch.ones(3).double())


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
