from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable

import celer
import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import Tensor

from lightning_landscape.sparse_coding import (
    LassoProblem,
    cost_curve,
    fista,
    fista_iterates,
    ista,
    ista_iterates,
    momentum_weights,
    reference_optimum,
    soft_threshold,
)

SOLVERS = [ista, fista]


@pytest.fixture
def problem() -> LassoProblem:
    dictionary = torch.randn(20, 40, dtype=torch.float64)
    return LassoProblem(dictionary / dictionary.norm(dim=0), 0.1)


@pytest.fixture
def x(problem: LassoProblem) -> Tensor:
    signals = torch.randn(30, 20, dtype=torch.float64)
    return signals / problem.lambda_max(signals)[:, None]


def test_ista_is_its_formula(problem: LassoProblem, x: Tensor) -> None:
    z, step = torch.zeros(30, 40).double(), 1 / problem.lipschitz
    for k, found in zip(range(6), ista_iterates(problem, x), strict=False):
        assert torch.allclose(found, z, atol=1e-12)
        assert torch.allclose(ista(problem, x, num_iterations=k), z, atol=1e-12)
        z = problem.prox(z - step * problem.gradient(x, z), step)


def test_fista_is_its_formula(problem: LassoProblem, x: Tensor) -> None:
    z = previous = torch.zeros(30, 40).double()
    step, weights = 1 / problem.lipschitz, momentum_weights(6)
    for k, found in zip(range(6), fista_iterates(problem, x), strict=False):
        assert torch.allclose(found, z, atol=1e-12)
        assert torch.allclose(fista(problem, x, num_iterations=k), z, atol=1e-12)
        y = z + weights[k] * (z - previous)
        z, previous = problem.prox(y - step * problem.gradient(x, y), step), z


def test_momentum_weights_approach_one_like_three_over_k() -> None:
    weights = momentum_weights(1001)
    assert weights[:2] == [0, 0]
    assert weights[2] == pytest.approx(((1 + math.sqrt(5)) / 2 - 1) / ((1 + math.sqrt(7 + 2 * math.sqrt(5))) / 2))
    assert 1000 * (1 - weights[1000]) == pytest.approx(3, abs=0.05)
    assert momentum_weights(0) == []


def test_costs_obey_the_rates_of_beck_and_teboulle(problem: LassoProblem, x: Tensor) -> None:
    solution, optima = reference_optimum(problem, x)
    distance = solution.square().sum(dim=1)
    k = torch.arange(1, 101).double()
    slow = cost_curve(problem, x, ista_iterates, 100)
    fast = cost_curve(problem, x, fista_iterates, 100)
    assert torch.allclose(slow[:, 0], 0.5 * x.square().sum(dim=1))
    assert (slow.diff(dim=1) <= 1e-12).all()
    bound = problem.lipschitz * distance[:, None]
    assert (slow[:, 1:] - optima[:, None] <= bound / (2 * k) + 1e-9).all()
    assert (fast[:, 1:] - optima[:, None] <= 2 * bound / (k + 1) ** 2 + 1e-9).all()
    assert fast[:, 100].mean() < slow[:, 100].mean()


def test_restarts_need_fewer_iterations(problem: LassoProblem, x: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that the tolerance was not reached
        restarted = fista(problem, x, 800, tol=1e-8, restart=True)
    assert problem.relative_gap(x, restarted).max() <= 1e-8
    with pytest.warns(UserWarning, match=r"fista stopped after 800 iterations with \d+ of 30 problems"):
        fista(problem, x, 800, tol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stops_at_the_gap_asked_for(problem: LassoProblem, x: Tensor, solver: Callable, dtype: torch.dtype) -> None:
    same = problem.to(dtype)
    codes = solver(same, x.to(dtype), num_iterations=20_000, tol=1e-3)
    assert codes.dtype == dtype
    assert same.relative_gap(x.to(dtype), codes).max() <= 1e-3


def test_a_code_does_not_depend_on_the_other_rows(problem: LassoProblem, x: Tensor) -> None:
    together = fista(problem, x, 2000, tol=1e-6, restart=True)
    alone = torch.cat([fista(problem, row[None], 2000, tol=1e-6, restart=True) for row in x])
    assert torch.allclose(together, alone, atol=1e-12)
    many = fista(problem, x.repeat(40, 1), 2000, tol=1e-6, restart=True)  # more than are taken at a time
    assert torch.allclose(many, together.repeat(40, 1), atol=1e-12)
    # Each stops at its own check: a hard problem beside it changes nothing.
    assert torch.equal(fista(problem, torch.zeros_like(x), 100, tol=1e-6), torch.zeros(30, 40).double())


def test_zero_iterations_and_a_start(problem: LassoProblem, x: Tensor) -> None:
    initial = torch.randn(30, 40).double()
    for solver in SOLVERS:
        assert torch.equal(solver(problem, x, num_iterations=0, initial=initial), initial)
        assert torch.equal(solver(problem, x, num_iterations=0), torch.zeros(30, 40).double())
    solution, _ = reference_optimum(problem, x)
    kept = solution.clone()
    assert torch.allclose(fista(problem, x, 50, initial=solution), solution, atol=1e-5)
    assert torch.equal(solution, kept)


def test_says_how_many_problems_fell_short(problem: LassoProblem, x: Tensor) -> None:
    with pytest.warns(UserWarning, match=r"ista stopped after 30 iterations with 30 of 60 problems above tol=1e-06"):
        codes = ista(problem, torch.cat([x, 0 * x]), 30, tol=1e-6)
    assert torch.allclose(codes[:30], ista(problem, x, 30))


def test_no_signals_have_no_codes(problem: LassoProblem) -> None:
    for tol in (None, 1e-6):
        assert fista(problem, torch.zeros(0, 20).double(), 10, tol=tol).shape == (0, 40)


def test_a_start_that_is_nan_is_never_called_solved(problem: LassoProblem, x: Tensor) -> None:
    with pytest.warns(UserWarning, match="30 of 30 problems above"):
        codes = ista(problem, x, 20, tol=1e-6, initial=torch.full((30, 40), math.nan).double())
    assert codes.isnan().all()


def test_orthogonal_dictionaries_have_a_closed_form() -> None:
    basis = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    x = torch.randn(9, 6, dtype=torch.float64)
    codes, _ = reference_optimum(LassoProblem(basis, 0.4), x)
    assert torch.allclose(codes, soft_threshold(x @ basis, 0.4), atol=1e-8)


def settings() -> list[tuple[str, LassoProblem, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for name, n, m, lam, power in (("wide", 15, 40, 0.1, 1), ("tall", 30, 12, 0.05, 1), ("squared", 15, 25, 0.01, 2)):
        dictionary = torch.randn(n, m, generator=generator, dtype=torch.float64)
        dictionary /= dictionary.norm(dim=0) ** power
        signals = torch.randn(6, n, generator=generator, dtype=torch.float64)
        problem = LassoProblem(dictionary, lam)
        found.append((name, problem, signals / problem.lambda_max(signals)[:, None] if power == 1 else signals))
    return found


@pytest.mark.parametrize(("problem", "x"), [case[1:] for case in settings()], ids=[case[0] for case in settings()])
@pytest.mark.parametrize("estimator", [Lasso, celer.Lasso], ids=["scikit-learn", "celer"])
def test_optima_are_those_of_other_solvers(estimator: type, problem: LassoProblem, x: Tensor) -> None:
    codes, optima = reference_optimum(problem, x)
    assert problem.relative_gap(x, codes).max() < 1e-8
    dictionary = np.asfortranarray(problem.dictionary.numpy())
    for signal, code, optimum in zip(x, codes, optima, strict=True):
        # Theirs divides the squared error by the number of rows, here n.
        other = estimator(alpha=problem.lam / len(signal), fit_intercept=False, tol=1e-14, max_iter=100_000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tolerance is below what they can certify
            theirs = torch.from_numpy(other.fit(dictionary, signal.numpy()).coef_)[None]
        value = problem.objective(signal[None], theirs).item()
        assert value == pytest.approx(optimum.item(), rel=1e-8)
        assert theirs[0].numpy() == pytest.approx(code.numpy(), abs=1e-4)


def test_reference_optima_of_float32_problems_are_float64() -> None:
    problem = LassoProblem(torch.randn(5, 9), 0.2)
    codes, optima = reference_optimum(problem, torch.randn(4, 5))
    assert codes.dtype == optima.dtype == torch.float64
    assert codes.shape == (4, 9)


def test_reference_optimum_refuses_to_be_inexact(problem: LassoProblem, x: Tensor) -> None:
    with pytest.raises(RuntimeError, match=r"after 20 iterations the relative duality gap is .*, above tol=1e-09"):
        reference_optimum(problem, x, num_iterations=20)


def test_solvers_track_no_gradient(problem: LassoProblem, x: Tensor) -> None:
    x = x.requires_grad_()
    assert not fista(problem, x, 3).requires_grad
    assert not next(itertools.islice(ista_iterates(problem, x), 2, None)).requires_grad


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_iterations": -1}, "num_iterations must be an integer of at least 0, got -1"),
        ({"num_iterations": 1.5}, "num_iterations .* got 1.5"),
        ({"tol": 0.0}, "tol must be positive and finite, or None .*, got 0.0"),
        ({"tol": math.nan}, "tol .* got nan"),
        ({"initial": torch.zeros(30, 20).double()}, r"z must have shape \(batch, 40\)"),
        ({"initial": torch.zeros(3, 40).double()}, "x holds 30 signals and z 3 codes"),
    ],
)
def test_refuses_bad_arguments(
    problem: LassoProblem, x: Tensor, solver: Callable, arguments: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        solver(problem, x, **arguments)


@pytest.mark.parametrize("solver", [*SOLVERS, reference_optimum])
def test_refuses_signals_with_nan(problem: LassoProblem, x: Tensor, solver: Callable) -> None:
    x[3, 4] = math.nan
    with pytest.raises(ValueError, match="x must be finite, but 1 of its 600 entries"):
        solver(problem, x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_on_a_gpu(problem: LassoProblem, x: Tensor) -> None:
    expected = fista(problem, x, 2000, tol=1e-8, restart=True)
    found = fista(problem.to("cuda"), x.cuda(), 2000, tol=1e-8, restart=True)
    assert found.device.type == "cuda"
    assert torch.allclose(found.cpu(), expected, atol=1e-6)
