from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_landscape.sparse_coding import (
    LassoProblem,
    check_factorization,
    facnet_step,
    ista,
    ista_iterates,
    least_scale,
    random_design,
    reference_optimum,
    step_bound,
)

N, M = 10, 16


@pytest.fixture
def problem() -> LassoProblem:
    dictionary = torch.randn(N, M, dtype=torch.float64)
    return LassoProblem(dictionary / dictionary.norm(dim=0), 0.1)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(25, N, dtype=torch.float64)


def unitary(spread: float) -> Tensor:
    skew = spread * torch.randn(M, M, dtype=torch.float64)
    return torch.matrix_exp(skew - skew.T)


def valid_scales(problem: LassoProblem, A: Tensor) -> Tensor:
    """A random S just large enough: a nonnegative diagonal above the spectrum of A B A^T - diag(S0) for a random S0."""
    rotated = A @ problem.dictionary.T @ problem.dictionary @ A.T
    base = torch.rand(M, dtype=torch.float64) * problem.lipschitz
    return base + torch.linalg.eigvalsh(rotated - base.diag())[-1].clamp_min(0) + 1e-9


def test_the_scale_is_the_least_that_makes_a_factorisation_valid(problem: LassoProblem) -> None:
    A, S = unitary(0.3), 0.1 + torch.rand(M, dtype=torch.float64)
    scale = least_scale(problem, A, S)
    assert scale > 1
    assert check_factorization(problem, A, S * scale).valid
    assert not check_factorization(problem, A, S * scale * 0.999).valid
    assert least_scale(problem, A, S * 1000) == 1


def test_the_step_minimises_the_surrogate(problem: LassoProblem, x: Tensor) -> None:
    A, z = unitary(0.3), torch.randn(25, M, dtype=torch.float64)
    S = valid_scales(problem, A)

    def surrogate(following: Tensor) -> Tensor:
        move = following - z
        model = (problem.gradient(x, z) * move).sum(1) + 0.5 * (S * (move @ A.T).square()).sum(1)
        return model + problem.lam * (following @ A.T).abs().sum(1)

    found = facnet_step(problem, x, z, A, S)
    for scale in (1e-4, 1e-2, 1.0):
        for _ in range(20):
            assert (surrogate(found + scale * torch.randn_like(found)) >= surrogate(found)).all()


def test_the_identity_gives_ista(problem: LassoProblem, x: Tensor) -> None:
    identity, scales = torch.eye(M).double(), torch.full((M,), problem.lipschitz, dtype=torch.float64)
    z = ista(problem, x, num_iterations=3)
    assert torch.allclose(facnet_step(problem, x, z, identity, scales), ista(problem, x, num_iterations=4))
    solution, _ = reference_optimum(problem, x)
    step = step_bound(problem, x, z, solution, identity, scales)
    assert torch.allclose(step.bound, step.ista_bound)
    assert (step.suboptimality <= step.bound).all()
    assert not step.improves.any()


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.1, 1.0])
def test_the_bound_holds_on_every_point(problem: LassoProblem, x: Tensor, spread: float) -> None:
    solution, optima = reference_optimum(problem, x)
    for _ in range(10):
        A = unitary(spread)
        S = valid_scales(problem, A)
        for scale in (0.0, 0.1, 1.0, 10.0):
            z = solution + scale * torch.randn_like(solution)
            step = step_bound(problem, x, z, solution, A, S)
            assert (step.suboptimality <= step.bound + 1e-8).all()
            following = facnet_step(problem, x, z, A, S)
            assert torch.allclose(step.suboptimality, problem.objective(x, following) - optima, atol=1e-9)


def test_without_semidefiniteness_the_inequality_does_fail(problem: LassoProblem, x: Tensor) -> None:
    """So that the hypothesis is one: steps of 4/L overshoot, and the right side is negative at times."""
    solution, optima = reference_optimum(problem, x)
    identity, scales = torch.eye(M).double(), torch.full((M,), problem.lipschitz / 4).double()
    z = solution + torch.randn_like(solution)
    following = facnet_step(problem, x, z, identity, scales)
    error = z - solution
    bound = 0.5 * ((scales * error.square()).sum(1) - (error @ problem.dictionary.T).square().sum(1))
    assert (problem.objective(x, following) - optima > bound).any()
    with pytest.raises(ValueError, match=r"R = A\^T S A - D\^T D must be positive definite, .* eigenvalue is -"):
        step_bound(problem, x, z, solution, identity, scales)


def test_a_separable_problem_can_be_improved_on() -> None:
    """Atoms of different lengths: S = ||d_i||^2 solves it in a step, ISTA does not."""
    problem = LassoProblem(torch.diag(torch.tensor([1.0, 5.0])).double(), 0.1)
    x = torch.tensor([[1.0, 1.0]]).double()
    solution, _ = reference_optimum(problem, x)
    step = step_bound(problem, x, 0 * solution, solution, torch.eye(2), torch.tensor([1.0, 25.0]))
    assert step.suboptimality.item() == pytest.approx(0, abs=1e-9)
    assert step.bound.item() == pytest.approx(0, abs=1e-9)
    assert step.ista_bound.item() > 1
    assert step.improves.all()


def test_float32_weights_of_a_valid_pair_are_valid(problem: LassoProblem, x: Tensor) -> None:
    single = problem.to(torch.float32)
    solution, _ = reference_optimum(single, x.float())
    A = unitary(1.0)
    found = check_factorization(single, A.float(), (valid_scales(problem, A) + 1e-6).float())
    assert found.valid
    ista_pair = torch.eye(M), torch.full((M,), single.lipschitz)
    step = step_bound(single, x.float(), torch.zeros(25, M), solution, *ista_pair)
    assert (step.suboptimality <= step.bound + 1e-8).all()


def test_refuses_a_matrix_that_is_not_unitary(problem: LassoProblem, x: Tensor) -> None:
    z = torch.zeros(25, M).double()
    scales = torch.full((M,), 2 * problem.lipschitz).double()
    with pytest.raises(ValueError, match=r"A must be unitary, but A\^T A is off the identity by 0.21: project it"):
        step_bound(problem, x, z, z, 1.1 * torch.eye(M).double(), scales)
    scales[3] = -1
    with pytest.raises(ValueError, match=r"S must be positive, but its smallest entry is -1"):
        step_bound(problem, x, z, z, torch.eye(M).double(), scales)


@pytest.mark.parametrize(
    ("A", "S", "message"),
    [
        (torch.eye(M + 1), torch.ones(M), r"A must have shape \(16, 16\), got \(17, 17\)"),
        (torch.eye(M), torch.ones(M, M), r"S must have shape \(16,\), got \(16, 16\)"),
        (torch.eye(M) * math.nan, torch.ones(M), "A must be finite"),
        (torch.eye(M), torch.ones(M) * math.inf, "S must be finite"),
    ],
)
def test_refuses_factors_of_other_shapes(problem: LassoProblem, A: Tensor, S: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_factorization(problem, A, S)


def test_random_design_is_its_formula(problem: LassoProblem, x: Tensor) -> None:
    solution, _ = reference_optimum(problem, x)
    iterates = [z for _, z in zip(range(200), ista_iterates(problem, x), strict=False)] + [solution]
    condition = random_design(problem, iterates, solution)
    for k, row in ((0, 0), (3, 7), (199, 24)):
        left = problem.lam * iterates[k][row].abs().sum()
        right = math.sqrt(M * (M - 1) / N) * (iterates[k][row] - solution[row]).square().sum()
        assert condition.holds[k, row] == (left <= right)
        assert condition.left[k, row].item() == pytest.approx(left.item())
        assert condition.right[k, row].item() == pytest.approx(right.item())
    # It holds at zero, and not at the solution.
    assert condition.holds[0].all()
    assert not condition.holds[-1].any()
    for row, first in enumerate(condition.first_failure.tolist()):
        assert condition.holds[:first, row].all()
        assert not condition.holds[first, row]


def test_a_condition_that_never_fails_counts_all_iterates() -> None:
    problem = LassoProblem(torch.eye(3), 1e-3)
    solution = torch.ones(2, 3)
    assert random_design(problem, [torch.zeros(2, 3)] * 4, solution).first_failure.tolist() == [4, 4]


def test_random_design_refuses_other_shapes(problem: LassoProblem) -> None:
    with pytest.raises(ValueError, match="iterates must each have the shape of solution"):
        random_design(problem, [], torch.zeros(2, M))
    with pytest.raises(ValueError, match=r"got \[\(3, 16\)\]"):
        random_design(problem, [torch.zeros(3, M)], torch.zeros(2, M))
    with pytest.raises(ValueError, match=r"solution must have shape \(batch, 16\), got \(2, 5\)"):
        random_design(problem, [torch.zeros(2, 5)], torch.zeros(2, 5))
