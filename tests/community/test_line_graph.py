"""Line graph operators against their dense matrices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch

from lightning_landscape.community import (
    CommunityGraph,
    community_graph,
    incidence_difference,
    incidence_difference_transpose,
    incidence_sum,
    incidence_sum_transpose,
    nonbacktracking_degree,
    nonbacktracking_product,
    nonbacktracking_product_transpose,
    stochastic_block_model,
)


def nonbacktracking_matrix(graph: CommunityGraph) -> Tensor:
    """``B[i->j, j->l] = 1`` for l != i."""
    source, target = graph.edge_index
    return ((target[:, None] == source) & (source[:, None] != target)).double()


def incidence_matrix(graph: CommunityGraph, sign: float) -> Tensor:
    """1 where the node is the source of the edge, ``sign`` where it is the target."""
    node = torch.arange(graph.num_nodes)[:, None]
    return (node == graph.edge_index[0]).double() + sign * (node == graph.edge_index[1]).double()


MATRICES: dict[Callable[..., Tensor], Callable[[CommunityGraph], Tensor]] = {
    nonbacktracking_product: nonbacktracking_matrix,
    nonbacktracking_product_transpose: lambda graph: nonbacktracking_matrix(graph).T,
    incidence_sum: lambda graph: incidence_matrix(graph, 1),
    incidence_sum_transpose: lambda graph: incidence_matrix(graph, 1).T,
    incidence_difference: lambda graph: incidence_matrix(graph, -1),
    incidence_difference_transpose: lambda graph: incidence_matrix(graph, -1).T,
}
every_operator = pytest.mark.parametrize("operator", MATRICES, ids=lambda operator: operator.__name__)


def random_graph(num_nodes: int, degree: float, seed: int = 0) -> CommunityGraph:
    connectivity = torch.full((1, 1), degree / num_nodes)
    return stochastic_block_model(num_nodes, connectivity, generator=torch.Generator().manual_seed(seed))


def of_edges(*pairs: tuple[int, int], num_nodes: int) -> CommunityGraph:
    y = torch.zeros(num_nodes, dtype=torch.int64)
    return community_graph(torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T, num_nodes, y)


GRAPHS = {
    "sparse": random_graph(40, 3),  # with isolated nodes, in several pieces
    "dense": random_graph(25, 12),
    "star": of_edges(*[(0, leaf) for leaf in range(1, 8)], num_nodes=8),
    "tree": of_edges((0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (5, 6), num_nodes=7),
    "triangle and isolated nodes": of_edges((1, 3), (3, 4), (1, 4), num_nodes=6),
    "one edge": of_edges((0, 1), num_nodes=2),
    "no edge": of_edges(num_nodes=3),
    "batch": Batch.from_data_list([random_graph(15, 4, 1), of_edges(num_nodes=2), random_graph(9, 3, 2)]),
}


def features(operator: Callable[..., Tensor], graph: CommunityGraph, *shape: int) -> Tensor:
    rows = graph.num_nodes if operator in (incidence_sum_transpose, incidence_difference_transpose) else graph.num_edges
    return torch.randn(rows, *shape, dtype=torch.float64)


def of(graph: CommunityGraph) -> tuple[Tensor, Tensor, int]:
    return graph.edge_index, graph.rev_edge, graph.num_nodes


@every_operator
@pytest.mark.parametrize("name", GRAPHS)
def test_each_operator_is_its_matrix(operator: Callable[..., Tensor], name: str) -> None:
    graph = GRAPHS[name]
    z = features(operator, graph, 3).requires_grad_()
    matrix = MATRICES[operator](graph)
    result = operator(z, *of(graph))
    torch.testing.assert_close(result, matrix @ z, atol=1e-12, rtol=0)
    weight = torch.randn_like(result)
    (gradient,) = torch.autograd.grad(result, z, weight)
    torch.testing.assert_close(gradient, matrix.T @ weight, atol=1e-12, rtol=0)


@every_operator
def test_gradients_and_their_gradients(operator: Callable[..., Tensor]) -> None:
    graph = random_graph(8, 3)
    z = features(operator, graph, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: operator(z, *of(graph)), (z,))
    assert torch.autograd.gradgradcheck(lambda z: operator(z, *of(graph)), (z,))


@every_operator
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,)])
def test_features_of_any_shape(operator: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    graph = GRAPHS["sparse"]
    z = features(operator, graph, *shape)
    expected = torch.tensordot(MATRICES[operator](graph), z, 1)
    torch.testing.assert_close(operator(z, *of(graph)), expected, atol=1e-12, rtol=0)


@every_operator
def test_functional_transforms(operator: Callable[..., Tensor]) -> None:
    graph = GRAPHS["tree"]
    z = features(operator, graph, 4)
    matrix = MATRICES[operator](graph)
    mapped = torch.func.vmap(lambda column: operator(column, *of(graph)), in_dims=1, out_dims=1)(z)
    torch.testing.assert_close(mapped, matrix @ z, atol=1e-12, rtol=0)
    jacobian = torch.func.jacrev(lambda column: operator(column, *of(graph)))(z[:, 0])
    torch.testing.assert_close(jacobian, matrix, atol=1e-12, rtol=0)


def test_vmap_over_graphs_says_what_to_do() -> None:
    edge_index, rev_edge, num_nodes = of(GRAPHS["tree"])
    with pytest.raises(ValueError, match=r"Batch\.from_data_list"):
        torch.func.vmap(lambda rev: nonbacktracking_product(torch.ones(12), edge_index, rev, num_nodes))(
            rev_edge.repeat(2, 1)
        )


@every_operator
def test_edges_may_be_a_strided_view(operator: Callable[..., Tensor]) -> None:
    edge_index, rev_edge, num_nodes = of(GRAPHS["dense"])
    pairs = edge_index.T.contiguous()  # as one writes a list of pairs down
    z = features(operator, GRAPHS["dense"], 2)
    assert torch.equal(operator(z, pairs.T, rev_edge, num_nodes), operator(z, edge_index, rev_edge, num_nodes))
    assert torch.equal(nonbacktracking_degree(pairs.T, num_nodes), nonbacktracking_degree(edge_index, num_nodes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_precisions_stay(dtype: torch.dtype) -> None:
    graph = GRAPHS["dense"]
    y = torch.randint(-4, 5, (graph.num_edges, 2)).to(dtype)  # small integers, exact in each of them
    result = nonbacktracking_product(y, *of(graph))
    assert result.dtype == dtype
    assert torch.equal(result.double(), nonbacktracking_matrix(graph) @ y.double())


@every_operator
def test_inputs_are_left_alone(operator: Callable[..., Tensor]) -> None:
    graph = GRAPHS["dense"]
    z = features(operator, graph, 2)
    before = z.clone()
    operator(z, *of(graph))
    assert torch.equal(z, before)


@pytest.mark.parametrize("name", GRAPHS)
def test_degrees_are_row_sums(name: str) -> None:
    graph = GRAPHS[name]
    degree = nonbacktracking_degree(graph.edge_index, graph.num_nodes)
    assert torch.equal(degree.double(), nonbacktracking_matrix(graph).sum(dim=1))


@pytest.mark.parametrize("name", GRAPHS)
def test_twice_is_the_clipped_square(name: str) -> None:
    graph = GRAPHS[name]
    matrix = nonbacktracking_matrix(graph)
    y = torch.randn(graph.num_edges, 2, dtype=torch.float64)
    twice = nonbacktracking_product(nonbacktracking_product(y, *of(graph)), *of(graph))
    torch.testing.assert_close(twice, (matrix @ matrix).clamp_max(1) @ y, atol=1e-12, rtol=0)


def test_a_tree_is_nilpotent_and_a_cycle_turns() -> None:
    tree = GRAPHS["tree"]
    y = torch.ones(tree.num_edges)
    for _ in range(tree.num_nodes):
        y = nonbacktracking_product(y, *of(tree))
    assert not y.any()
    cycle = of_edges(*[(i, (i + 1) % 5) for i in range(5)], num_nodes=5)
    start = torch.randn(cycle.num_edges)
    y = start
    for _ in range(5):
        y = nonbacktracking_product(y, *of(cycle))
    torch.testing.assert_close(y, start)


def test_one_order_of_sums_whatever_else_is_in_the_batch() -> None:
    graph = random_graph(60, 9)
    y = torch.randn(graph.num_edges, 8)
    batch = Batch.from_data_list([graph, graph])
    both = nonbacktracking_product(torch.cat([y, y]), *of(batch))
    assert torch.equal(both, nonbacktracking_product(y, *of(graph)).repeat(2, 1))


def test_a_hub_takes_memory_of_its_edges() -> None:
    leaves = 10_000  # B has 10^8 entries
    hub = community_graph(
        torch.stack([torch.zeros(leaves, dtype=torch.int64), torch.arange(1, leaves + 1)]), leaves + 1
    )
    y = torch.randn(hub.num_edges, 2, requires_grad=True)
    result = nonbacktracking_product(y, *of(hub))
    inwards = hub.edge_index[1] == 0
    torch.testing.assert_close(result[inwards], y[~inwards].sum(0) - y[~inwards], atol=1e-3, rtol=0)
    assert not result[~inwards].any()
    result.sum().backward()
    torch.testing.assert_close(y.grad[~inwards], torch.full((leaves, 2), leaves - 1.0))
    assert not y.grad[inwards].any()


def test_nothing_but_the_graph_is_kept_for_the_backward_pass() -> None:
    graph = GRAPHS["dense"]
    kept: list[Tensor] = []
    y = torch.randn(graph.num_edges, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        nonbacktracking_product(nonbacktracking_product(y, *of(graph)), *of(graph))
    assert kept
    assert not any(tensor.is_floating_point() for tensor in kept)


@pytest.mark.slow
@pytest.mark.parametrize("operator", [nonbacktracking_product, incidence_sum])
def test_compiles_into_one_graph(operator: Callable[..., Tensor]) -> None:
    compiled = torch.compile(operator, backend="aot_eager", fullgraph=True, dynamic=True)
    for name in ("sparse", "batch"):
        graph = GRAPHS[name]
        z = features(operator, graph, 3).requires_grad_()
        result = compiled(z, *of(graph))
        (gradient,) = torch.autograd.grad(result.square().sum(), z)
        matrix = MATRICES[operator](graph)
        torch.testing.assert_close(result, matrix @ z, atol=1e-12, rtol=0)
        torch.testing.assert_close(gradient, 2 * matrix.T @ (matrix @ z), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("operator", "z", "message"),
    [
        (
            nonbacktracking_product,
            torch.ones(3, 2),
            r"y must have a row for each of the 12 directed edges, got \(3, 2\)",
        ),
        (nonbacktracking_product, torch.tensor(1.0), "y must have a row"),
        (incidence_sum, torch.ones(7, 2), "12 directed edges"),
        (incidence_difference_transpose, torch.ones(12, 2), "x must have a row for each of the num_nodes = 7 nodes"),
        (nonbacktracking_product, torch.ones(12, dtype=torch.int64), "floating point, got torch.int64"),
        (nonbacktracking_product, torch.ones(12, dtype=torch.complex64), "floating point, got torch.complex64"),
    ],
)
def test_wrong_features_are_named(operator: Callable[..., Tensor], z: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        operator(z, *of(GRAPHS["tree"]))


@every_operator
def test_nodes_left_out_by_num_nodes(operator: Callable[..., Tensor]) -> None:
    tree = GRAPHS["tree"]
    z = torch.ones(6 if operator in (incidence_sum_transpose, incidence_difference_transpose) else 12)
    with pytest.raises(RuntimeError, match="nodes that num_nodes leaves out"):
        operator(z, tree.edge_index, tree.rev_edge, 6)


def test_a_wrong_rev_edge_is_named() -> None:
    tree = GRAPHS["tree"]
    with pytest.raises(ValueError, match=r"\(2, E2\) and rev_edge \(E2,\), got \(2, 12\) and \(11,\)"):
        nonbacktracking_product(torch.ones(11), tree.edge_index, tree.rev_edge[:11], 7)


def test_nan_stays_where_it_can_reach() -> None:
    tree = GRAPHS["tree"]
    y = torch.zeros(tree.num_edges)
    y[0] = torch.nan  # 0 -> 1, read by the edges into 0; the matrix-free difference reaches its own reverse too
    spoiled = nonbacktracking_product(y, *of(tree)).isnan()
    assert torch.equal(spoiled, tree.edge_index[1] == 0)
