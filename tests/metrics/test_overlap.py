from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from lightning_landscape.metrics import Overlap
from lightning_landscape.metrics.overlap import chance_overlap


def brute_force(labels: Tensor, target: Tensor, k: int) -> float:
    names = torch.tensor(list(itertools.permutations(range(k))))
    accuracy = max((pi[target] == labels).double().mean().item() for pi in names)
    return (accuracy - 1 / k) / (1 - 1 / k)


@pytest.mark.parametrize("k", [2, 3, 5, 6])  # 6 goes to SciPy
def test_is_the_mean_over_graphs_of_the_best_permutation(k: int) -> None:
    sizes = torch.tensor([1, 30, 12])
    batch = torch.repeat_interleave(torch.arange(3), sizes)
    labels, target = torch.randint(k, (43,)), torch.randint(k, (43,))
    metric = Overlap(k)
    metric.update(labels, target, batch)
    expected = [brute_force(labels[batch == g], target[batch == g], k) for g in range(3)]
    assert metric.compute().item() == pytest.approx(sum(expected) / 3, rel=1e-12)


def test_updates_add_graphs_whatever_the_batches() -> None:
    labels, target = torch.randint(3, (30,)), torch.randint(3, (30,))
    batch = torch.repeat_interleave(torch.arange(3), 10)
    together, apart = Overlap(3), Overlap(3)
    together.update(labels, target, batch)
    for graph in range(3):
        apart.update(labels[batch == graph], target[batch == graph])
    assert together.compute().item() == pytest.approx(apart.compute().item())
    assert together.chance().item() == pytest.approx(apart.chance().item())


def test_scores_count_by_their_largest() -> None:
    scores, target = torch.randn(20, 4), torch.randint(4, (20,))
    by_scores, by_labels = Overlap(4), Overlap(4)
    by_scores.update(scores, target)
    by_labels.update(scores.argmax(1), target)
    assert by_scores.compute() == by_labels.compute()


def test_truth_under_other_names_is_one_and_a_constant_is_zero() -> None:
    target = torch.arange(40) % 4
    for labels, expected in ((torch.tensor([3, 1, 0, 2])[target], 1.0), (torch.full((40,), 2), 0.0)):
        metric = Overlap(4)
        metric.update(labels, target)
        assert metric.compute().item() == pytest.approx(expected, abs=1e-12)


def test_numbers_without_a_node_are_no_graphs() -> None:
    metric = Overlap(2)
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([0, 3]))
    assert metric.compute().item() == 1
    metric.update(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0).long())
    assert metric.compute().item() == 1


def test_starts_again_after_a_reset() -> None:
    metric = Overlap(2)
    metric.update(torch.tensor([0, 0]), torch.tensor([0, 1]))
    metric.reset()
    with pytest.warns(UserWarning, match="before the"), pytest.raises(ValueError, match="call update first"):
        metric.compute()
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert metric.compute().item() == 1


def test_goes_on_after_inference_mode() -> None:
    metric = Overlap(2)
    with torch.inference_mode():
        metric.update(torch.tensor([0, 1]), torch.tensor([0, 1]))
        metric.reset()
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert metric.compute().item() == 1


def test_two_ranks_together_are_the_mean_over_all_graphs() -> None:
    ranks = [Overlap(2), Overlap(2)]
    ranks[0].update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]))
    for _ in range(2):
        ranks[1].update(torch.tensor([0, 1]), torch.tensor([0, 1]))
    union = Overlap(2)
    union.total = ranks[0].total + ranks[1].total
    union.sizes = torch.cat([*ranks[0].sizes, *ranks[1].sizes])  # what torchmetrics leaves after a gather
    union._update_count = 1
    assert union.compute().item() == pytest.approx((1 / 3 + 1 + 1) / 3)
    assert union.chance() > 0


def test_chance_of_two_communities_is_that_of_a_random_walk() -> None:
    # The number of agreements is binomial whatever the sizes are: E|S_n| / n for a walk of n steps.
    for sizes in ((5, 5), (1, 9), (0, 10)):
        exact = sum(math.comb(10, j) * abs(2 * j - 10) for j in range(11)) / 2**10 / 10
        assert chance_overlap(*sizes) == pytest.approx(exact, abs=0.01)


def test_chance_of_the_five_community_table_is_the_stated_one() -> None:
    assert chance_overlap(80, 80, 80, 80, 80) == pytest.approx(0.060, abs=0.0005)


def test_chance_is_what_guessing_scores() -> None:
    generator = torch.Generator().manual_seed(1)
    target = torch.arange(60) % 6
    batch = torch.repeat_interleave(torch.arange(600), 60)
    metric = Overlap(6)
    metric.update(torch.randint(6, (36000,), generator=generator), target.repeat(600), batch)
    assert metric.compute().item() == pytest.approx(metric.chance().item(), abs=0.005)


def test_chance_leaves_the_random_states_alone() -> None:
    before = torch.get_rng_state()
    chance_overlap(3, 4, 5)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("k", [1, 0, True, 2.0])
def test_needs_two_communities(k: object) -> None:
    with pytest.raises(ValueError, match="num_classes must be an integer of at least 2"):
        Overlap(k)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scores", "target", "message"),
    [
        (
            torch.tensor([0, 2]),
            torch.tensor([0, 1]),
            "labels must lie from 0 to 1 where there are 2 classes, got 0 to 2",
        ),
        (torch.tensor([0, 1]), torch.tensor([0, -1]), "target must lie from 0 to 1 .*, got -1 to 0"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), r"scores \(2, 2\), got \(2, 3\)"),
        (torch.zeros(3, 2), torch.tensor([0, 1]), r"labels \(2,\)"),
        (torch.tensor([0, 1]), torch.tensor([0.0, 1.0]), "target must hold integers"),
    ],
)
def test_refuses_what_does_not_fit(scores: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Overlap(2).update(scores, target)


def test_chance_needs_communities_with_a_node() -> None:
    for sizes in ((4,), (0, 0), (-1, 3)):
        with pytest.raises(ValueError, match="sizes must be those of at least two communities"):
            chance_overlap(*sizes)
