from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_landscape.metrics import NMSE, IterationsEquivalent, Suboptimality, SupportRecall
from lightning_landscape.sparse_coding import LassoProblem, cost_curve, ista, ista_iterates

CURVES = torch.tensor([[8.0, 4.0, 2.0, 1.0], [4.0, 2.0, 1.0, 0.5]])


def examples() -> list[tuple[Metric, tuple[Tensor, Tensor]]]:
    """A metric of each kind, and what to update it with."""
    code = torch.randn(12, 5) * (torch.rand(12, 5) < 0.4)
    z = code + 0.1 * torch.randn(12, 5)
    curves = torch.rand(12, 21).cumsum(dim=1).flip(1)
    return [
        (Suboptimality(), (torch.rand(12) + 1, torch.rand(12))),
        (IterationsEquivalent(20), (curves[:, 7], curves)),
        (NMSE(), (z, code)),
        (SupportRecall(0.5), (z, code)),
    ]


@pytest.mark.parametrize("index", range(4))
def test_batches_of_any_sizes_give_the_value_of_all(index: int) -> None:
    metric, data = examples()[index]
    metric.update(*data)
    expected = metric.compute()
    metric.reset()
    for part in zip(*(tensor.split([1, 7, 0, 4]) for tensor in data), strict=True):
        metric.update(*part)
    assert metric.compute().item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("index", range(4))
def test_ranks_that_sum_their_states_give_the_value_of_all(index: int) -> None:
    metric, data = examples()[index]
    parts = [examples()[index][0] for _ in range(2)]
    metric.update(*data)
    for part, start in zip(parts, (0, 5), strict=True):
        part.update(*(tensor[start : start + 5 if start == 0 else None] for tensor in data))
    for name in parts[0].metric_state:
        assert parts[0]._reductions[name] is not None
        setattr(parts[0], name, getattr(parts[0], name) + getattr(parts[1], name))
    parts[0]._computed = None
    assert parts[0].compute().item() == pytest.approx(metric.compute().item(), abs=1e-6)


@pytest.mark.parametrize("index", range(4))
def test_counts_on_after_inference_mode(index: int) -> None:
    metric, data = examples()[index]
    with torch.inference_mode():  # in which Lightning validates and tests
        metric.reset()
        metric.update(*data)
        once = metric.compute().item()
    metric.update(*data)
    assert metric.compute().item() == pytest.approx(once)


@pytest.mark.parametrize("index", range(4))
def test_survives_pickling_and_resets(index: int) -> None:
    metric, data = examples()[index]
    metric.update(*data)
    copy = pickle.loads(pickle.dumps(metric))
    assert torch.equal(copy.compute(), metric.compute())
    copy.reset()
    with pytest.warns(UserWarning, match="called before the ``update``"), pytest.raises(ValueError, match="seen no"):
        copy.compute()


def test_suboptimality_keeps_the_small_difference_of_float64() -> None:
    metric = Suboptimality()
    optima = torch.ones(2, dtype=torch.float64)
    metric.update(optima + torch.tensor([1e-12, 3e-12]), optima)
    assert metric.compute().item() == pytest.approx(2e-12, rel=1e-3)


@pytest.mark.parametrize(
    ("objectives", "iterations"),
    [
        ([8.0, 4.0], 0),
        ([8.0, 3.9], 1),
        ([2.5, 1.0], 2),
        ([1.0, 0.5], 3),
        ([1.0, 0.4], math.inf),
        ([math.nan, 1], math.nan),
    ],
)
def test_iterations_compare_means(objectives: list[float], iterations: float) -> None:
    metric = IterationsEquivalent(3)
    metric.update(torch.tensor(objectives), CURVES)
    assert metric.compute().item() == pytest.approx(iterations, nan_ok=True)


def test_iterations_of_ista_are_worth_themselves() -> None:
    dictionary = torch.randn(8, 12, dtype=torch.float64)
    problem, x = LassoProblem(dictionary / dictionary.norm(dim=0), 0.1), torch.randn(9, 8, dtype=torch.float64)
    curve = cost_curve(problem, x, ista_iterates, 30)
    for k in (1, 17, 30):
        metric = IterationsEquivalent(30)
        metric.update(problem.objective(x, ista(problem, x, k)), curve)
        assert metric.compute() == k


@pytest.mark.parametrize(("shortfall", "iterations"), [(0.0, 2), (5e-7, 2), (1e-5, 3)])
def test_rounding_is_not_worth_an_iteration(shortfall: float, iterations: int) -> None:
    metric = IterationsEquivalent(3)
    metric.update(torch.tensor([2.0 - 2.0 * shortfall]), CURVES[:1])
    assert metric.compute() == iterations


def test_nmse_of_known_errors() -> None:
    code = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    for z, expected in ((0 * code, 0.0), (0.9 * code, -20.0), (2 * code, 0.0), (code, -math.inf), (11 * code, 20.0)):
        metric = NMSE()
        metric.update(z, code)
        assert metric.compute().item() == pytest.approx(expected, abs=1e-5)


def test_nmse_is_a_ratio_of_sums() -> None:
    metric = NMSE()
    metric.update(torch.tensor([[9.0], [0.0]]), torch.tensor([[10.0], [1.0]]))
    assert metric.compute().item() == pytest.approx(10 * math.log10(2 / 101), abs=1e-9)


@pytest.mark.parametrize(("threshold", "recall"), [(0.0, 2 / 3), (0.3, 1 / 3), (5.0, 0.0)])
def test_recall_counts_the_support(threshold: float, recall: float) -> None:
    metric = SupportRecall(threshold)
    metric.update(torch.tensor([[0.2, 0.0, 7.0], [-0.4, 0.0, 0.0]]), torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]))
    assert metric.compute().item() == pytest.approx(recall)


@pytest.mark.parametrize("metric", [Suboptimality(), NMSE(), SupportRecall()], ids=lambda metric: type(metric).__name__)
@pytest.mark.parametrize(("first", "second"), [((3,), (4,)), ((3, 2), (3, 4)), ((3, 2, 1), (3, 2, 1)), ((), ())])
def test_refuses_other_shapes(metric: Metric, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must have one shape \(batch"):
        metric.update(torch.zeros(first), torch.zeros(second))


@pytest.mark.parametrize(("objectives", "curves"), [((2,), (2, 3)), ((3,), (2, 4)), ((2, 1), (2, 4)), ((2,), (4,))])
def test_iterations_refuse_other_shapes(objectives: tuple[int, ...], curves: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"objectives must have shape \(batch,\) and curves \(batch, 4\)"):
        IterationsEquivalent(3).update(torch.zeros(objectives), torch.zeros(curves))


def test_refuses_bad_arguments() -> None:
    for number in (0, 2.5, True):
        with pytest.raises(ValueError, match=f"num_iterations must be an integer of at least 1, got {number}"):
            IterationsEquivalent(number)
    for threshold in (-0.1, math.nan):
        with pytest.raises(ValueError, match=f"threshold must be at least 0, got {threshold}"):
            SupportRecall(threshold)
