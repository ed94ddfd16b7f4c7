"""`lasso` beside FISTA, scikit-learn, celer, skglm and SPAMS: CPU seconds of one thread, with everyone's accuracy.

Unit Gaussian atoms, ||D^T x||_inf = 1, lam = .1, float64. Ours, FISTA and scikit-learn are asked for a relative
duality gap, gap / F(z), of 1e-6 in every problem; SPAMS follows the path of solutions to its end, which is exact.
The tolerance of celer and skglm is for measures of their own, so that it is told by the last column how close they
are: (F(z) - F*) / F*. What is not installed is skipped; `pip install celer skglm spams-bin` installs it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from lightning_landscape.sparse_coding import LassoProblem, fista, lasso, reference_optimum
from lightning_landscape.sparse_coding.dictionaries import gaussian_dictionary
from lightning_landscape.sparse_coding.signals import unit_correlation

GOAL = 1e-6
SIZES = {"64x256x500": (64, 256, 500), "64x1024x100": (64, 1024, 100), "1000x5000x1": (1000, 5000, 1)}
Solver = Callable[[LassoProblem, Tensor], Tensor]


def arrays(problem: LassoProblem, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """D (n, m) and X (n, batch), as columns lie in memory."""
    return np.asfortranarray(problem.dictionary.numpy()), np.asfortranarray(x.numpy().T)


def sparse_encode(problem: LassoProblem, x: Tensor) -> Tensor:
    from sklearn.decomposition import sparse_encode

    atoms = np.ascontiguousarray(problem.dictionary.numpy().T)
    return torch.from_numpy(sparse_encode(x.numpy(), atoms, algorithm="lasso_cd", alpha=problem.lam, max_iter=100_000))


def celer(problem: LassoProblem, x: Tensor) -> Tensor:
    package = pytest.importorskip("celer", reason="celer is not installed")
    dictionary, signals = arrays(problem, x)
    model = package.Lasso(alpha=problem.lam / len(dictionary), fit_intercept=False, tol=1e-8)
    return torch.from_numpy(np.stack([model.fit(dictionary, signal).coef_ for signal in signals.T]))


def skglm(problem: LassoProblem, x: Tensor) -> Tensor:
    package = pytest.importorskip("skglm", reason="skglm is not installed")
    dictionary, signals = arrays(problem, x)
    model = package.Lasso(alpha=problem.lam / len(dictionary), fit_intercept=False, tol=1e-7)
    return torch.from_numpy(np.stack([model.fit(dictionary, signal).coef_ for signal in signals.T]))


def spams(problem: LassoProblem, x: Tensor) -> Tensor:
    package = pytest.importorskip("spams", reason="spams-bin is not installed")
    dictionary, signals = arrays(problem, x)
    codes = package.lasso(signals, D=dictionary, lambda1=problem.lam, mode=2, numThreads=1)
    return torch.from_numpy(np.ascontiguousarray(codes.toarray().T))


SOLVERS: dict[str, Solver] = {
    "lasso": lambda problem, x: lasso(problem, x, tol=GOAL),
    "lasso in float32": lambda problem, x: lasso(problem.to(torch.float32), x.float(), tol=GOAL).double(),
    "fista": lambda problem, x: fista(problem, x, 20_000, tol=GOAL, restart=True),
    "sparse_encode": sparse_encode,
    "celer": celer,
    "skglm": skglm,
    "spams": spams,
}


@pytest.fixture(scope="module", params=SIZES)
def case(request: pytest.FixtureRequest) -> tuple[LassoProblem, Tensor, Tensor]:
    """The problem, its signals and their F*."""
    n, m, count = SIZES[request.param]
    generator = torch.Generator().manual_seed(0)
    dictionary = gaussian_dictionary(n, m, generator)
    x, _ = unit_correlation(dictionary)(count, generator)
    problem = LassoProblem(dictionary.double(), 0.1)
    return problem, x.double(), reference_optimum(problem, x)[1]


@pytest.mark.parametrize("name", SOLVERS)
def test_exact(benchmark: BenchmarkFixture, case: tuple[LassoProblem, Tensor, Tensor], name: str) -> None:
    problem, x, optima = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SOLVERS[name](problem, x[:5])  # imports, and code that is compiled at its first call
        start = time.process_time()
        codes = benchmark.pedantic(SOLVERS[name], args=(problem, x), rounds=1)
    benchmark.extra_info["CPU seconds"] = time.process_time() - start
    benchmark.extra_info["relative gap, worst"] = problem.relative_gap(x, codes).max().item()
    benchmark.extra_info["excess, worst"] = (problem.objective(x, codes) / optima - 1).max().item()
