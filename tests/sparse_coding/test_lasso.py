"""lasso: certified gaps on dictionaries of many kinds, whatever its support guesses are worth."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from lightning_landscape.sparse_coding import LassoProblem, fista, lasso, reference_optimum, soft_threshold


def signals(dictionary: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Gaussian signals with lambda_max = 1."""
    x = torch.randn(count, len(dictionary), generator=generator, dtype=dictionary.dtype)
    return x / (x @ dictionary).abs().amax(dim=1, keepdim=True)


def case(kind: str) -> tuple[LassoProblem, Tensor]:
    generator = torch.Generator().manual_seed(3)
    sizes = {"tall": (60, 20), "wide": (20, 60), "few-of-many": (80, 1500), "alone": (80, 1500), "square": (30, 30)}
    n, m = sizes.get(kind, (30, 90))
    dictionary = torch.randn(n, m, generator=generator, dtype=torch.float64)
    dictionary = dictionary / dictionary.norm(dim=0)
    if kind == "ill-conditioned":
        left, _, right = torch.linalg.svd(dictionary, full_matrices=False)
        dictionary = left * torch.logspace(0, -2, n, dtype=torch.float64) @ right
    if kind == "equal-atoms":
        dictionary = torch.cat([dictionary, dictionary[:, :40], -dictionary[:, :20]], dim=1)
    if kind == "coherent":
        dictionary = dictionary + 3 * dictionary[:, :1]
    if kind == "atoms-of-all-sizes":
        dictionary = dictionary * torch.logspace(-3, 3, m, dtype=torch.float64)
    if kind == "less-rank":
        dictionary = torch.cat([dictionary[:10], dictionary[:10], 0 * dictionary[:10]])
    x = signals(dictionary, {"alone": 1, "few-of-many": 4}.get(kind, 40), generator)
    return LassoProblem(dictionary, 3e-3 if kind == "little-lam" else 0.1), x


KINDS = (
    "tall", "wide", "square", "few-of-many", "alone", "ill-conditioned", "equal-atoms", "coherent",
    "atoms-of-all-sizes", "less-rank", "little-lam",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_reaches_the_gap_on_every_kind_of_dictionary(kind: str) -> None:
    problem, x = case(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codes = lasso(problem, x, tol=1e-6)
        finer, optima = reference_optimum(problem, x)
    assert problem.relative_gap(x, codes).max() <= 1e-6
    assert problem.relative_gap(x, finer).max() <= 1e-9
    assert torch.allclose(problem.objective(x, codes), optima, rtol=1e-6)


@pytest.mark.parametrize("kind", ["wide", "few-of-many", "ill-conditioned", "equal-atoms"])
def test_minima_are_those_of_fista(kind: str) -> None:
    problem, x = case(kind)
    other = fista(problem, x, 100_000, tol=1e-9, restart=True)
    assert torch.allclose(problem.objective(x, lasso(problem, x)), problem.objective(x, other), rtol=2e-6)


def test_orthogonal_dictionaries_have_a_closed_form() -> None:
    basis = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64))[0]
    x = torch.randn(5, 9, dtype=torch.float64)
    assert torch.allclose(lasso(LassoProblem(basis, 0.4), x, tol=1e-12), soft_threshold(x @ basis, 0.4), atol=1e-7)


@pytest.mark.parametrize("kind", ["wide", "few-of-many", "ill-conditioned", "little-lam"])
def test_problems_in_float32_are_solved_in_float64(kind: str) -> None:
    problem, x = case(kind)
    single, short = problem.to(torch.float32), x.float()
    codes = lasso(single, short, tol=1e-6)
    assert codes.dtype == torch.float32
    rounding = 6e-8 / problem.lam  # of the codes
    assert single.to(torch.float64).relative_gap(short.double(), codes.double()).max() <= 1e-6 + rounding


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e6, 1e25])
def test_scale_of_the_dictionary_does_not_matter(scale: float) -> None:
    problem, x = case("wide")
    scaled = LassoProblem(scale * problem.dictionary, scale * problem.lam)
    codes = lasso(scaled, x)
    assert scaled.relative_gap(x, codes).max() <= 1e-6
    assert torch.allclose(problem.objective(x, scale * codes), problem.objective(x, lasso(problem, x)), rtol=2e-6)


def test_a_code_does_not_depend_on_the_other_rows() -> None:
    problem, x = case("wide")
    together = lasso(problem, x, tol=1e-10)
    alone = torch.cat([lasso(problem, row[None], tol=1e-10) for row in x])
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.equal(together, lasso(problem, x, tol=1e-10))


def test_signals_without_codes_have_none() -> None:
    problem, x = case("wide")
    top = float(problem.lambda_max(x).max())
    assert torch.equal(lasso(LassoProblem(problem.dictionary, top * 1.0001), x), torch.zeros(40, 60).double())
    assert torch.equal(lasso(problem, 0 * x), torch.zeros(40, 60).double())
    assert lasso(problem, x[:0]).shape == (0, 60)


def test_says_what_it_did_not_reach() -> None:
    problem, x = case("little-lam")
    with pytest.warns(UserWarning, match=r"lasso stopped after 0 iterations with \d+ of 40 problems above tol=1e-06"):
        codes = lasso(problem, x, num_iterations=0)
    assert codes.isfinite().all()


def test_refuses_what_does_not_fit() -> None:
    problem, x = case("wide")
    for options, message in (({"tol": 0.0}, "tol must be positive"), ({"tol": math.nan}, "tol must be positive")):
        with pytest.raises(ValueError, match=message):
            lasso(problem, x, **options)
    with pytest.raises(ValueError, match="num_iterations must be an integer"):
        lasso(problem, x, num_iterations=-1)
    with pytest.raises(ValueError, match="x must have shape"):
        lasso(problem, x[:, :-1])
    with pytest.raises(ValueError, match="x must be finite"):
        lasso(problem, x * math.nan)
