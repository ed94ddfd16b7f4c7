"""Matrix-free non-backtracking products against a materialised sparse B: time and memory, forward and backward.

Both multiply the same features, float32, in one run on one thread and take turns; times are of the CPU, so that other
work on the machine counts for little. B is a CSR matrix, and so is the transpose that its backward pass takes. Building
them, which fresh graphs ask for at every step, is told apart. Memory is what each needs beside features and graph: the
matrices, and the most that a forward and a backward pass hold at one time, as the profiler sees it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lightning_landscape.community import (
    CommunityGraph,
    community_graph,
    nonbacktracking_product,
    stochastic_block_model,
)

ROUNDS = 5

CASES = {
    "n400-d14": (400, 14),
    "n10k-d3": (10_000, 3),
    "n10k-d14": (10_000, 14),
    "n100k-d3": (100_000, 3),
    "n100k-d14": (100_000, 14),
}


def sparse_nonbacktracking(graph: CommunityGraph) -> Tensor:
    """B as a CSR matrix: row i -> j holds the edges that leave j, but the one back to i."""
    source, target = graph.edge_index
    degree = source.bincount(minlength=graph.num_nodes)
    first = degree.cumsum(0) - degree
    counts = degree[target]
    row = torch.arange(len(source)).repeat_interleave(counts)
    place = torch.arange(len(row)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    column = first[target].repeat_interleave(counts) + place
    forward = column != graph.rev_edge[row]
    row, column = row[forward], column[forward]
    size = (len(source), len(source))
    matrix = torch.sparse_coo_tensor(torch.stack([row, column]), torch.ones(len(row)), size, is_coalesced=True)
    return matrix.to_sparse_csr()


class Materialised(torch.autograd.Function):
    """B y with B^T kept for the backward pass, which torch would transpose anew at each step."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        ctx.transpose = transpose
        return matrix @ y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return ctx.transpose @ gradient, None, None


def step(product: Callable[[Tensor], Tensor], y: Tensor) -> None:
    result = product(y)
    torch.autograd.grad(result, y, result)


def peak(product: Callable[[Tensor], Tensor], y: Tensor) -> int:
    """Most bytes that a step holds at one time beyond what there was before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step(product, y)
    held = most = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU:
            held += event.nbytes()
            most = max(most, held)
    return most


def matrix_bytes(matrix: Tensor) -> int:
    parts = (matrix.values(), matrix.crow_indices(), matrix.col_indices())
    return sum(part.numel() * part.element_size() for part in parts)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("features", [8, 32])
@pytest.mark.parametrize("case", CASES)
def test_line_graph(benchmark: BenchmarkFixture, case: str, features: int) -> None:
    num_nodes, degree = CASES[case]
    generator = torch.Generator().manual_seed(0)
    graph = stochastic_block_model(num_nodes, torch.full((1, 1), degree / num_nodes), generator=generator)
    y = torch.randn(graph.num_edges, features, generator=generator, requires_grad=True)
    start = time.process_time()
    matrix = sparse_nonbacktracking(graph)
    transpose = matrix.to_sparse_coo().t().coalesce().to_sparse_csr()
    building = time.process_time() - start

    def matrix_free(y: Tensor) -> Tensor:
        return nonbacktracking_product(y, graph.edge_index, graph.rev_edge, num_nodes)

    def materialised(y: Tensor) -> Tensor:
        return Materialised.apply(y, matrix, transpose)

    torch.testing.assert_close(matrix_free(y), materialised(y), atol=1e-4, rtol=1e-4)
    repeats = max(1, 200_000 // graph.num_edges)
    seconds: dict[str, list[float]] = {"free": [], "sparse": [], "free forward": [], "sparse forward": []}
    for _ in range(ROUNDS):
        for name, product in (("free", matrix_free), ("sparse", materialised)):
            start = time.process_time()
            for _ in range(repeats):
                step(product, y)
            middle = time.process_time()
            with torch.no_grad():
                for _ in range(repeats):
                    product(y)
            seconds[name].append((middle - start) / repeats)
            seconds[f"{name} forward"].append((time.process_time() - middle) / repeats)
    median = {name: sorted(times)[ROUNDS // 2] for name, times in seconds.items()}
    benchmark.extra_info["directed edges"] = graph.num_edges
    benchmark.extra_info["entries of B"] = matrix.values().numel()
    benchmark.extra_info["ms, matrix-free, forward"] = 1e3 * median["free forward"]
    benchmark.extra_info["ms, sparse B, forward"] = 1e3 * median["sparse forward"]
    benchmark.extra_info["ms, matrix-free, both"] = 1e3 * median["free"]
    benchmark.extra_info["ms, sparse B, both"] = 1e3 * median["sparse"]
    benchmark.extra_info["ms, building B and its transpose"] = 1e3 * building
    benchmark.extra_info["times faster, forward"] = median["sparse forward"] / median["free forward"]
    benchmark.extra_info["times faster, both"] = median["sparse"] / median["free"]
    benchmark.extra_info["MB, matrix-free"] = peak(matrix_free, y) / 1e6
    working = peak(materialised, y)
    benchmark.extra_info["MB, sparse B alone"] = (matrix_bytes(matrix) + working) / 1e6
    both = matrix_bytes(matrix) + matrix_bytes(transpose)
    benchmark.extra_info["MB, sparse B and its transpose"] = (both + working) / 1e6
    benchmark.pedantic(step, args=(matrix_free, y), rounds=3)


def test_hub(benchmark: BenchmarkFixture) -> None:
    """A star with 10,000 leaves, whose B would hold 10^8 entries, 1.2 GB with its indices."""
    leaves = 10_000
    graph = community_graph(
        torch.stack([torch.zeros(leaves, dtype=torch.int64), torch.arange(1, leaves + 1)]), leaves + 1
    )
    y = torch.randn(graph.num_edges, 8, requires_grad=True)

    def matrix_free(y: Tensor) -> Tensor:
        return nonbacktracking_product(y, graph.edge_index, graph.rev_edge, leaves + 1)

    benchmark.extra_info["directed edges"] = graph.num_edges
    benchmark.extra_info["MB, features"] = y.numel() * y.element_size() / 1e6
    benchmark.extra_info["MB, matrix-free"] = peak(matrix_free, y) / 1e6
    benchmark.pedantic(step, args=(matrix_free, y), rounds=5)
