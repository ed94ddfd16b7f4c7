"""Kernels of matrices, and rotations."""

from __future__ import annotations

import math

import torch
from scipy.linalg import qr, schur
from torch import Tensor

# Singular values below this share of the largest count as 0, and below this share of what a product was made of.
RANK_TOLERANCE = 1e-10
_ROUNDING = 1e-13


def null_space(matrix: Tensor, scale: float = 0.0) -> Tensor:
    """Orthonormal basis of the kernel of ``matrix`` (m, n), as the columns of a tensor (n, n - rank).

    Args:
        matrix: the matrix.
        scale: for a product, that of the norms of its factors: a product that cancels leaves rounding, which would
            have full rank in its own measure.

    Example:
        >>> null_space(torch.tensor([[0.0, 2.0]])).abs()
        tensor([[1.],
                [0.]])
    """
    if 0 in matrix.shape:
        return torch.eye(matrix.shape[1], dtype=matrix.dtype)
    _, values, rows = torch.linalg.svd(matrix, full_matrices=True)
    rank = int((values > max(RANK_TOLERANCE * float(values[0]), _ROUNDING * scale)).sum())
    kernel: Tensor = rows[rank:].T
    return kernel


def spectral_norm(matrix: Tensor) -> float:
    """The largest singular value, 0 for a matrix without entries."""
    return float(torch.linalg.matrix_norm(matrix, ord=2)) if matrix.numel() else 0.0


def pseudo_inverse(matrix: Tensor) -> Tensor:
    """Moore-Penrose inverse, with the tolerance of :func:`null_space`."""
    inverse: Tensor = torch.linalg.pinv(matrix, rtol=RANK_TOLERANCE)
    return inverse


def power_of_two(sizes: Tensor) -> Tensor:
    """The powers of two next to the sizes, 1 for a size of 0: to divide by them and multiply again is exact.

    Args:
        sizes: numbers of at least 0, of any shape.

    Example:
        >>> power_of_two(torch.tensor([0.0, 3.0, 1000.0]))
        tensor([1.0000e+00, 4.0000e+00, 1.0240e+03])
    """
    return torch.where(sizes > 0, sizes, 1.0).log2().round().exp2()


def balanced_inverse(rows: Tensor) -> Tensor:
    """The pseudo-inverse in units in which rows and columns are of one size."""
    across = power_of_two(rows.abs().amax(0)) if len(rows) else torch.ones(rows.shape[1], dtype=rows.dtype)
    along = power_of_two((rows / across).norm(dim=1))
    return pseudo_inverse(rows / across / along[:, None]) / across[:, None] / along


def independent_rows(vectors: Tensor) -> list[int]:
    """Indices of rows that are a basis of the span of all, chosen by pivoted QR among the normalised rows."""
    norms = vectors.norm(dim=1)
    rows = vectors / torch.where(norms > 0, norms, 1.0)[:, None]
    triangle, order = qr(rows.T.numpy(), mode="r", pivoting=True)
    diagonal = torch.from_numpy(triangle).diagonal().abs()
    rank = int((diagonal > RANK_TOLERANCE * max(1.0, float(diagonal[0]))).sum()) if float(diagonal[0]) > 0 else 0
    return [int(index) for index in order[:rank]]


def plane_rotation(start: Tensor, end: Tensor, angle: float) -> Tensor:
    """The rotation of R^n by ``angle`` in the plane of two orthonormal vectors, from ``start`` towards ``end``."""
    basis = torch.stack([start, end], dim=1)
    sine, cosine = math.sin(angle), math.cos(angle)
    turn = torch.tensor([[cosine - 1, -sine], [sine, cosine - 1]], dtype=start.dtype)
    return torch.eye(len(start), dtype=start.dtype) + basis @ turn @ basis.T


class OneParameterRotations:
    """The rotations ``R(t) = exp(t log R)`` between the identity and a given rotation R of R^n.

    By the real Schur form an orthogonal matrix is a sum of plane rotations and of the numbers 1 and -1; det R
    = 1 makes the number of the latter even, and two of them are a plane rotation by pi.

    Args:
        rotation: an orthogonal matrix (n, n) of determinant 1, float64.

    Example:
        >>> half_turn = OneParameterRotations(-torch.eye(2, dtype=torch.float64))
        >>> quarter = half_turn(0.5)
        >>> torch.allclose(quarter @ quarter, -torch.eye(2, dtype=torch.float64))
        True
    """

    def __init__(self, rotation: Tensor) -> None:
        form, basis = (torch.from_numpy(part) for part in schur(rotation.numpy(), output="real"))
        self._basis = basis
        self._planes: list[tuple[int, int, float]] = []
        reflected: list[int] = []
        row = 0
        while row < len(form):
            if row + 1 < len(form) and form[row + 1, row] != 0:
                sine, cosine = (
                    (form[row + 1, row] - form[row, row + 1]) / 2,
                    (form[row, row] + form[row + 1, row + 1]) / 2,
                )
                self._planes.append((row, row + 1, math.atan2(float(sine), float(cosine))))
                row += 2
                continue
            if form[row, row] < 0:
                reflected.append(row)
            row += 1
        self._planes += [
            (first, second, math.pi) for first, second in zip(reflected[::2], reflected[1::2], strict=True)
        ]

    def __call__(self, t: float) -> Tensor:
        """R(t), shape (n, n)."""
        turn = torch.eye(len(self._basis), dtype=self._basis.dtype)
        for first, second, angle in self._planes:
            sine, cosine = math.sin(t * angle), math.cos(t * angle)
            turn[first, first] = turn[second, second] = cosine
            turn[second, first], turn[first, second] = sine, -sine
        return self._basis @ turn @ self._basis.T
