from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_landscape.sparse_coding import LassoProblem, soft_threshold
from lightning_landscape.sparse_coding.lasso import reference_optimum


def gaussian(n: int = 8, m: int = 12, lam: float = 0.3, dtype: torch.dtype = torch.float64) -> LassoProblem:
    return LassoProblem(torch.randn(n, m, dtype=dtype), lam)


def test_objective_is_the_formula_row_by_row() -> None:
    problem, x, z = gaussian(), torch.randn(5, 8).double(), torch.randn(5, 12).double()
    for value, signal, code in zip(problem.objective(x, z), x, z, strict=True):
        residual = signal - problem.dictionary @ code
        assert value.item() == pytest.approx(0.5 * residual.dot(residual).item() + 0.3 * code.abs().sum().item())


def test_gradient_is_that_of_the_smooth_part() -> None:
    problem, x = gaussian(lam=1e-300), torch.randn(5, 8).double()
    z = torch.randn(5, 12).double().requires_grad_()
    (expected,) = torch.autograd.grad(problem.objective(x, z).sum(), z)
    assert torch.allclose(problem.gradient(x, z), expected)


def test_lipschitz_bounds_the_curvature_and_is_attained() -> None:
    problem = gaussian()
    gram = problem.dictionary.T @ problem.dictionary
    assert problem.lipschitz == pytest.approx(torch.linalg.eigvalsh(gram)[-1].item())


def test_zero_is_optimal_exactly_from_lambda_max_on() -> None:
    problem, x = gaussian(), torch.randn(1, 8).double()
    top = problem.lambda_max(x).item()
    for factor, optimal in ((1.001, True), (0.999, False)):
        codes, _ = reference_optimum(LassoProblem(problem.dictionary, factor * top), x)
        assert bool((codes == 0).all()) is optimal


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gap_bounds_the_suboptimality_of_any_code(dtype: torch.dtype) -> None:
    problem = gaussian(dtype=dtype)
    x = torch.randn(50, 8, dtype=dtype)
    codes, optima = reference_optimum(problem, x)
    for scale in (0.0, 1e-3, 1.0, 100.0):
        z = codes.to(dtype) + scale * torch.randn(50, 12, dtype=dtype)
        excess = problem.to(torch.float64).objective(x.double(), z.double()) - optima
        gap = problem.duality_gap(x, z).double()
        assert (gap >= 0).all()
        assert (gap >= excess - 1e-5 * optima).all()


def test_gap_is_primal_less_dual_value() -> None:
    problem, x, z = gaussian(), torch.randn(20, 8).double(), torch.randn(20, 12).double()
    residual = x - z @ problem.dictionary.T
    # The best feasible multiple of the residual, found by brute force.
    limit = problem.lam / (residual @ problem.dictionary).abs().amax(dim=1)
    scales = torch.linspace(-1, 1, 20001).double()[:, None] * limit
    dual = 0.5 * x.square().sum(1) - 0.5 * (x - scales[:, :, None] * residual).square().sum(2)
    expected = problem.objective(x, z) - dual.amax(dim=0)
    assert torch.allclose(problem.duality_gap(x, z), expected, rtol=1e-6, atol=1e-6)


def test_gap_of_float32_at_the_optimum_is_near_rounding() -> None:
    problem = gaussian(64, 256, 0.1, torch.float32)
    x = torch.randn(20, 64)
    codes, _ = reference_optimum(problem, x)
    assert problem.relative_gap(x, codes.float()).max() < 1e-4
    assert problem.to(torch.float64).relative_gap(x.double(), codes).max() < 1e-9


def test_a_signal_of_zeros_has_the_code_zero_and_no_gap() -> None:
    problem, x = gaussian(), torch.zeros(2, 8).double()
    codes, optima = reference_optimum(problem, x)
    assert torch.equal(codes, torch.zeros(2, 12).double())
    assert torch.equal(optima, torch.zeros(2).double())
    assert torch.equal(problem.relative_gap(x, codes), torch.zeros(2).double())


def test_an_exact_fit_is_not_mistaken_for_an_optimum() -> None:
    problem = LassoProblem(torch.eye(2), 0.5)
    x = torch.tensor([[2.0, 1.0]])
    assert problem.duality_gap(x, x).item() == pytest.approx(0.5 * 3.0)  # lam ||z||_1, with the dual point 0


def test_no_examples_are_no_error() -> None:
    problem, x, z = gaussian(), torch.zeros(0, 8).double(), torch.zeros(0, 12).double()
    for values in (problem.objective(x, z), problem.duality_gap(x, z), problem.relative_gap(x, z)):
        assert values.shape == (0,)
    assert problem.lambda_max(x).shape == (0,)
    assert reference_optimum(problem, x)[0].shape == (0, 12)


def test_objective_maps_over_parameters_of_a_network() -> None:
    problem, x = gaussian(), torch.randn(3, 8).double()
    weights = torch.randn(4, 8, 12).double()
    mapped = torch.func.vmap(lambda weight: problem.objective(x, x @ weight))(weights)
    assert torch.allclose(mapped, torch.stack([problem.objective(x, x @ weight) for weight in weights]))


def test_soft_threshold_is_the_proximal_map() -> None:
    z, t = torch.linspace(-3, 3, 13).double(), 0.8
    grid = torch.linspace(-4, 4, 80001).double()
    best = grid[(0.5 * (grid[:, None] - z).square() + t * grid.abs()[:, None]).argmin(dim=0)]
    assert torch.allclose(soft_threshold(z, t), best, atol=1e-4)
    assert torch.equal(LassoProblem(torch.eye(2), 0.4).prox(z, 2.0), soft_threshold(z, 0.8))


def test_soft_threshold_has_the_gradients_of_learned_thresholds() -> None:
    z = torch.tensor([-2.0, 0.3, 3.0], dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.5, 0.6, 0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soft_threshold, (z, t))


@pytest.mark.parametrize("lam", [0.0, -1.0, math.nan, math.inf])
def test_refuses_a_weight_that_is_not_positive(lam: float) -> None:
    with pytest.raises(ValueError, match=rf"lam must be positive and finite, got {lam}"):
        LassoProblem(torch.eye(2), lam)


@pytest.mark.parametrize(
    ("dictionary", "message"),
    [
        (torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]]), "dictionary has 1 columns of zeros, the first is column 1"),
        (torch.tensor([[1.0, math.nan]]), "dictionary must be finite, but 1 of its 2 entries"),
        (torch.tensor([[1.0, math.inf]]), "dictionary must be finite"),
        (torch.ones(3), r"dictionary must be a matrix \(n, m\), got shape \(3,\)"),
        (torch.ones(0, 3), r"dictionary must be a matrix"),
        ([[1.0, 0.0]], "dictionary must be a tensor, got list"),
        (torch.ones(2, 2, dtype=torch.int64), "dictionary must be float32 or float64, got torch.int64"),
        (torch.ones(2, 2, dtype=torch.float16), "dictionary must be float32 or float64, got torch.float16"),
    ],
)
def test_refuses_bad_dictionaries(dictionary: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LassoProblem(dictionary, 0.1)


X, Z = torch.zeros(3, 8), torch.zeros(3, 12)


@pytest.mark.parametrize("method", ["objective", "gradient", "duality_gap", "relative_gap"])
@pytest.mark.parametrize(
    ("x", "z", "message"),
    [
        (torch.zeros(3, 9), Z, r"x must have shape \(batch, 8\) .* got \(3, 9\)"),
        (torch.zeros(8), Z, r"x must have shape \(batch, 8\) .* got \(8,\)"),
        (X, torch.zeros(3, 8), r"z must have shape \(batch, 12\) .* got \(3, 8\)"),
        (X, torch.zeros(2, 12), "x holds 3 signals and z 2 codes"),
        (X.double(), Z, "x is torch.float64 on cpu and the dictionary torch.float32"),
        (X, Z.double(), "z is torch.float64"),
        (X * math.nan, Z, "x must be finite, but 24 of its 24 entries"),
        (X + math.inf, Z, "x must be finite"),
    ],
)
def test_every_method_refuses_what_does_not_fit(method: str, x: Tensor, z: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(gaussian(dtype=torch.float32), method)(x, z)


def test_lambda_max_refuses_nan() -> None:
    with pytest.raises(ValueError, match="x must be finite"):
        gaussian(dtype=torch.float32).lambda_max(X * math.nan)
