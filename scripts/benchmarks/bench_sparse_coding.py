"""Batched FISTA against loops of celer and scikit-learn, and LISTA against FISTA, with everyone's accuracy.

The first over the same 10,000 Lasso problems:
64 x 256 unit Gaussian atoms, ||D^T x||_inf = 1, lam = .1. FISTA stops at a relative duality gap, gap / F(z), of 1e-6
in every problem; scikit-learn at the same, by a tolerance that is relative to ||x||^2. The tolerance of celer is for a
dual point of its own, better than the residual, so that its accuracy is told by the excess (F(z) - F*) / F*.

The second on the problem of configs/lista.yaml, a tenth of its training: inference with 7 layers against as many
iterations of FISTA as reach the same mean F.
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
import pytorch_lightning as pl
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.linear_model import Lasso
from torch import Tensor

from lightning_landscape.datamodules import SparseCodingDataModule
from lightning_landscape.models import UnrolledSparseCoder
from lightning_landscape.sparse_coding import LassoProblem, cost_curve, fista, fista_iterates, reference_optimum
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


@pytest.fixture(scope="module")
def lista(tmp_path_factory: pytest.TempPathFactory) -> tuple[UnrolledSparseCoder, Tensor, Tensor]:
    """A trained network, signals, and their F*."""
    pl.seed_everything(0, verbose=False)
    data = SparseCodingDataModule("gaussian", normalization="squared_norm", val_size=PROBLEMS)
    network = UnrolledSparseCoder("lista", depth=7, learning_rate=3e-3)
    pl.Trainer(
        max_epochs=5, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        num_sanity_val_steps=0, limit_val_batches=1, default_root_dir=tmp_path_factory.mktemp("lista"),
    ).fit(network, data)  # fmt: skip
    batches = [*data.val_dataloader()]
    return network.eval(), *(torch.cat([getattr(batch, name) for batch in batches]) for name in ("x", "optimum"))


@pytest.mark.parametrize("name", ["lista", "fista"])
@torch.no_grad()
def test_inference(benchmark: BenchmarkFixture, lista: tuple[UnrolledSparseCoder, Tensor, Tensor], name: str) -> None:
    network, x, optima = lista
    problem, precise = network.problem, network.problem.to(torch.float64)
    reached = precise.objective(x.double(), network(x).double()).mean()
    iterations = int((cost_curve(problem, x, fista_iterates, 100).mean(dim=0) > reached).sum())
    codes = benchmark(network if name == "lista" else lambda x: fista(problem, x, iterations), x)
    benchmark.extra_info["layers or iterations"] = len(network.layers) if name == "lista" else iterations
    benchmark.extra_info["signals"] = len(x)
    benchmark.extra_info["mean F - F*"] = (precise.objective(x.double(), codes.double()) - optima).mean().item()
