from __future__ import annotations

import pytest
import torch
from theorem_cases import batch_of

from lightning_landscape.theory.regression import Regression


@pytest.mark.parametrize("kind", ["generic", "copied input", "one example", "noise-free", "zero targets"])
def test_the_solution_is_stationary_and_the_loss_splits(kind: str) -> None:
    batch = batch_of(kind, 4, 3, 0)
    problem = Regression(batch)
    coefficients = torch.randn(3, 4, dtype=torch.float64)
    offset = coefficients - problem.solution
    split = problem.minimum() + float((offset @ problem.covariance * offset).sum())
    assert float(problem.gradient(problem.solution).norm()) < 1e-12
    assert problem.loss(coefficients) == pytest.approx(split)
    torch.testing.assert_close(problem.fitted, problem.solution @ problem.covariance @ problem.solution.T)
    variable = coefficients.clone().requires_grad_()
    (batch[0] @ variable.T - batch[1]).square().sum(1).mean().backward()
    torch.testing.assert_close(problem.gradient(coefficients), variable.grad)


def test_columns_of_very_different_sizes_keep_their_rank() -> None:
    x, y = batch_of("generic", 3, 2, 0)
    units = torch.tensor([1e9, 1.0, 1e-9], dtype=torch.float64)
    problem, same = Regression((x * units, y)), Regression((x, y))
    torch.testing.assert_close(problem.solution * units, same.solution)
    assert problem.minimum() == pytest.approx(same.minimum())


@pytest.mark.parametrize("kind", ["generic", "copied input"])
def test_no_matrix_of_the_rank_is_better_than_the_minimum(kind: str) -> None:
    batch = batch_of(kind, 4, 3, 1)
    problem = Regression(batch)
    for rank in range(5):
        # By Eckart and Young in the basis of the fits: the projection of y's prediction on its first components.
        left, values, right = torch.linalg.svd(batch[0] @ problem.solution.T, full_matrices=False)
        values[rank:] = 0
        best = float(((left * values) @ right - batch[1]).square().sum(1).mean())
        assert problem.minimum(rank) == pytest.approx(best)
        for _ in range(20):
            factor = torch.randn(3, rank, dtype=torch.float64) @ torch.randn(rank, 4, dtype=torch.float64)
            assert problem.loss(factor) >= best
    assert problem.minimum(3) == pytest.approx(problem.minimum())


def test_vectors_are_no_batch() -> None:
    with pytest.raises(ValueError, match=r"x \(N, n\) and y \(N, m\), got \(3,\) and \(3,\)"):
        Regression((torch.ones(3), torch.ones(3)))
