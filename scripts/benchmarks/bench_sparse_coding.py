"""Batched FISTA against loops of celer and scikit-learn over the same 10,000 Lasso problems, with everyone's accuracy.

64 x 256 unit Gaussian atoms, ||D^T x||_inf = 1, lam = .1. FISTA stops at a relative duality gap, gap / F(z), of 1e-6
in every problem; scikit-learn at the same, by a tolerance that is relative to ||x||^2. The tolerance of celer is for a
dual point of its own, better than the residual, so that its accuracy is told by the excess (F(z) - F*) / F*.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import celer
import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.linear_model import Lasso
from torch import Tensor

from lightning_landscape.sparse_coding import LassoProblem, fista, reference_optimum
from lightning_landscape.sparse_coding.dictionaries import gaussian_dictionary
from lightning_landscape.sparse_coding.signals import unit_correlation

PROBLEMS = int(os.environ.get("LANDSCAPE_LASSO_PROBLEMS", "10000"))
GOAL = 1e-6
CHECKED = 1000


@pytest.fixture(scope="module")
def case() -> tuple[LassoProblem, Tensor]:
    generator = torch.Generator().manual_seed(0)
    dictionary = gaussian_dictionary(64, 256, generator)
    x, _ = unit_correlation(dictionary)(PROBLEMS, generator)
    return LassoProblem(dictionary.double(), 0.1), x.double()


@pytest.fixture(scope="module")
def optima(case: tuple[LassoProblem, Tensor]) -> Tensor:
    """F* of the first problems."""
    problem, x = case
    return reference_optimum(problem, x[:CHECKED])[1]


def loop_of(estimator: type, **options: Any) -> Callable[[LassoProblem, Tensor], Tensor]:
    def solve(problem: LassoProblem, x: Tensor) -> Tensor:
        dictionary = np.asfortranarray(problem.dictionary.numpy())
        model = estimator(alpha=problem.lam / x.shape[1], fit_intercept=False, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.from_numpy(np.stack([model.fit(dictionary, signal).coef_ for signal in x.numpy()]))

    return solve


SOLVERS: dict[str, Callable[[LassoProblem, Tensor], Tensor]] = {
    "fista": lambda problem, x: fista(problem, x, 20_000, tol=GOAL, restart=True),
    "celer-tol-1e-4": loop_of(celer.Lasso),  # its default
    "celer-tol-1e-6": loop_of(celer.Lasso, tol=1e-6),
    "celer-tol-1e-8": loop_of(celer.Lasso, tol=1e-8),
    "scikit-learn": loop_of(Lasso, tol=1e-7, max_iter=100_000),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_lasso(benchmark: BenchmarkFixture, case: tuple[LassoProblem, Tensor], optima: Tensor, name: str) -> None:
    problem, x = case
    solve = SOLVERS[name]
    solve(problem, x[:20])  # imports, and code that is compiled at its first call
    start = time.process_time()
    codes = benchmark.pedantic(solve, args=case, rounds=1)
    benchmark.extra_info["CPU seconds"] = time.process_time() - start
    gaps = problem.relative_gap(x, codes)
    benchmark.extra_info["problems"] = len(x)
    benchmark.extra_info["relative gap, worst"] = gaps.max().item()
    benchmark.extra_info["relative gap, median"] = gaps.median().item()
    excess = problem.objective(x, codes)[:CHECKED] / optima - 1
    benchmark.extra_info[f"excess, worst of {len(optima)}"] = excess.max().item()
