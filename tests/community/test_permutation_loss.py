from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from lightning_landscape.community.permutation_loss import (
    _permutations,
    community_sums,
    least_assignment,
    permutation_cross_entropy,
)


def brute_force(log_probabilities: Tensor, target: Tensor) -> Tensor:
    k = log_probabilities.shape[1]
    names = torch.tensor(list(itertools.permutations(range(k))))
    return torch.stack([nll_loss(log_probabilities, pi[target]) for pi in names]).min()


@pytest.mark.parametrize("k", [2, 3, 4, 5, 6, 7])  # 6 and 7 go to SciPy
def test_is_the_least_cross_entropy_over_all_names_of_the_communities(k: int) -> None:
    sizes = [1, 40, 7]
    target = torch.randint(k, (sum(sizes),))
    logits = torch.randn(len(target), k, dtype=torch.float64, requires_grad=True)
    batch = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    found = permutation_cross_entropy(logits.log_softmax(1), target, batch, 3)
    expected = torch.stack([brute_force(logits.log_softmax(1)[batch == g], target[batch == g]) for g in range(3)])
    assert found.item() == pytest.approx(expected.mean().item(), rel=1e-12)
    ours, theirs = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (found, expected.mean()))
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("k", [3, 6])
def test_names_of_communities_do_not_matter(k: int) -> None:
    logits = torch.randn(50, k, dtype=torch.float64).log_softmax(1)
    target, names = torch.randint(k, (50,)), torch.randperm(k)
    loss = permutation_cross_entropy(logits, target).item()
    assert permutation_cross_entropy(logits, names[target]).item() == pytest.approx(loss, rel=1e-12)
    assert permutation_cross_entropy(logits[:, names], target).item() == pytest.approx(loss, rel=1e-12)


def test_knowing_nothing_costs_log_k_and_knowing_all_under_other_names_costs_nothing() -> None:
    target = torch.tensor([0, 0, 1, 2])
    assert permutation_cross_entropy(torch.zeros(4, 3).log_softmax(1), target).item() == pytest.approx(math.log(3))
    sure = torch.eye(3)[torch.tensor([2, 2, 0, 1])].log()  # has -inf
    assert permutation_cross_entropy(sure, target).item() == 0


@pytest.mark.parametrize("k", [4, 6])
def test_empty_communities_cost_nothing(k: int) -> None:
    logits = torch.randn(9, k, dtype=torch.float64).log_softmax(1)
    target = torch.tensor([0] * 5 + [3] * 4)
    found = permutation_cross_entropy(logits, target)
    pairs = itertools.permutations(range(k), 2)
    expected = min(-(logits[:5, a].sum() + logits[5:, b].sum()).item() / 9 for a, b in pairs)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_counts_the_graphs_where_it_is_not_told() -> None:
    logits, target = torch.randn(6, 2).log_softmax(1), torch.tensor([0, 1, 0, 0, 1, 1])
    batch = torch.tensor([0, 0, 0, 1, 1, 1])
    assert permutation_cross_entropy(logits, target, batch) == permutation_cross_entropy(logits, target, batch, 2)


def test_every_graph_counts_the_same_whatever_its_size() -> None:
    logits, target = torch.randn(12, 2).log_softmax(1), torch.randint(2, (12,))
    batch = torch.tensor([0] * 2 + [1] * 10)
    alone = [permutation_cross_entropy(logits[batch == g], target[batch == g]) for g in (0, 1)]
    assert permutation_cross_entropy(logits, target, batch).item() == pytest.approx(sum(alone).item() / 2)


def test_sums_values_of_communities() -> None:
    values = torch.arange(8.0).view(4, 2)
    table = community_sums(values, torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 0, 1]), 2)
    assert table.tolist() == [[[0, 1], [6, 8]], [[0, 0], [6, 7]]]


def test_both_ways_to_solve_agree_in_value_and_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = torch.randn(20, 5, 5, dtype=torch.float64, requires_grad=True)
    enumerated = least_assignment(cost)
    monkeypatch.setattr("lightning_landscape.community.permutation_loss._ENUMERATED", 0)
    solved = least_assignment(cost)
    assert torch.allclose(enumerated, solved, rtol=1e-13)
    slopes = [torch.autograd.grad(values.sum(), cost)[0] for values in (enumerated, solved)]
    assert torch.equal(*slopes)
    assert (slopes[0].sum(1) == 1).all()
    assert (slopes[0].sum(2) == 1).all()


@pytest.mark.parametrize("k", [4, 6])
def test_what_is_not_finite_stays_so(k: int) -> None:
    for row, column in itertools.product(range(k), repeat=2):
        cost = torch.rand(2, k, k)
        cost[0, row, column] = math.nan
        assert least_assignment(cost).isnan().tolist() == [True, False]
    impossible = torch.rand(1, k, k)
    impossible[0, 1] = math.inf
    assert least_assignment(impossible).item() == math.inf


def test_trains_after_an_evaluation_in_inference_mode() -> None:
    _permutations.cache_clear()
    logits, target = torch.randn(6, 3, requires_grad=True), torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.inference_mode():
        expected = permutation_cross_entropy(logits.log_softmax(1), target).item()
    loss = permutation_cross_entropy(logits.log_softmax(1), target)
    loss.backward()
    assert loss.item() == expected


def test_no_graph_at_all() -> None:
    assert least_assignment(torch.empty(0, 3, 3)).shape == (0,)
    assert least_assignment(torch.empty(0, 7, 7)).shape == (0,)


@pytest.mark.parametrize(
    ("logits", "target", "batch", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64), None, r"shape \(4, k\), got \(3, 2\)"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), None, r"shape \(3, k\), got \(3,\)"),
        (torch.zeros(3, 2), torch.zeros(3), None, "target must hold integers .* torch.float32"),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.bool), None, "target must hold integers .* torch.bool"),
        (torch.zeros(3, 2), torch.tensor([0, 1, 2]), None, "target must lie from 0 to 1 .*, got 0 to 2"),
        (torch.zeros(3, 2), torch.tensor([0, 1, -1]), None, "got -1 to 1"),
        (torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.int64), None, r"shape \(N,\)"),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), "each of 3 nodes"),
    ],
)
def test_shapes_that_do_not_fit(logits: Tensor, target: Tensor, batch: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        permutation_cross_entropy(logits, target, batch)
