from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_landscape.theory.subspaces import OneParameterRotations, null_space, plane_rotation


def orthogonal(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    basis[:, 0] *= torch.linalg.det(basis).sign()
    return basis


@pytest.mark.parametrize(
    ("rows", "columns", "rank"), [(3, 5, 3), (5, 3, 2), (4, 4, 0), (4, 4, 4), (1, 1, 0), (6, 2, 1)]
)
def test_null_space(rows: int, columns: int, rank: int) -> None:
    matrix = torch.randn(rows, rank, dtype=torch.float64) @ torch.randn(rank, columns, dtype=torch.float64)
    basis = null_space(matrix)
    assert basis.shape == (columns, columns - rank)
    torch.testing.assert_close(basis.T @ basis, torch.eye(columns - rank, dtype=torch.float64))
    assert float((matrix @ basis).norm()) < 1e-12


def test_what_rounding_left_of_a_product_is_kernel() -> None:
    left = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    right = torch.tensor([[1.0, 0.3], [-1.0, -0.3 + 1e-16]], dtype=torch.float64)
    assert null_space(left @ right + 1e-16).shape == (2, 1)
    assert null_space(left @ right + 1e-16, scale=2.0).shape == (2, 2)


def test_a_matrix_without_rows_has_all_for_its_kernel() -> None:
    assert torch.equal(null_space(torch.zeros(0, 3)), torch.eye(3))
    assert null_space(torch.zeros(3, 0)).shape == (0, 0)


def test_plane_rotation_turns_its_plane_and_nothing_else() -> None:
    start, end, *rest = orthogonal(4, 0).T
    turn = plane_rotation(start, end, 0.3)
    torch.testing.assert_close(turn @ start, math.cos(0.3) * start + math.sin(0.3) * end)
    torch.testing.assert_close(turn @ end, -math.sin(0.3) * start + math.cos(0.3) * end)
    for other in rest:
        torch.testing.assert_close(turn @ other, other)


@pytest.mark.parametrize(("size", "flips"), [(size, flips) for size in range(1, 7) for flips in range(0, size + 1, 2)])
def test_rotations_lead_from_the_identity_to_the_last_as_a_group(size: int, flips: int) -> None:
    basis = orthogonal(size, size)
    signs = torch.ones(size, dtype=torch.float64)
    signs[:flips] = -1
    # Equal eigenvalues -1, and a generic rotation.
    for rotation in (basis @ torch.diag(signs) @ basis.T, orthogonal(size, 10 + size)):
        path = OneParameterRotations(rotation)
        torch.testing.assert_close(path(0.0), torch.eye(size, dtype=torch.float64), atol=1e-12, rtol=0)
        torch.testing.assert_close(path(1.0), rotation, atol=1e-12, rtol=0)
        torch.testing.assert_close(path(0.3) @ path(0.45), path(0.75), atol=1e-12, rtol=0)
        torch.testing.assert_close(path(0.3) @ path(0.3).T, torch.eye(size, dtype=torch.float64), atol=1e-12, rtol=0)
