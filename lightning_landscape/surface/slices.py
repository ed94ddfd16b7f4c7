"""Two-dimensional slices of a loss surface."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as FilePath

import torch
from torch import Tensor

from lightning_landscape.storage.tensor_files import SnapshotError, read_safetensors, write_safetensors
from lightning_landscape.surface.loss_surface import LossSurface

_STACK = 8  # points evaluated at once, which bounds the copies of theta in memory
_KEY = "slice"


@dataclass(frozen=True)
class Plane:
    """An affine plane theta(x, y) = origin + x * u + y * v in parameter space.

    Attributes:
        origin: tensor (P,).
        u: direction of x, tensor (P,).
        v: direction of y, tensor (P,), not parallel to ``u``.
    """

    origin: Tensor
    u: Tensor
    v: Tensor

    @classmethod
    def through(cls, a: Tensor, b: Tensor, c: Tensor) -> Plane:
        """The plane through three points, in Euclidean units: a at (0, 0), b at (||b - a||, 0), c above y = 0.

        With u = (b - a) / ||b - a|| and v the normalised part of c - a that is orthogonal to u (Garipov et al.
        2018, arXiv 1802.10026, section A.1).

        Raises:
            ValueError: if the three lie on one line.

        Example:
            >>> plane = Plane.through(torch.zeros(3), torch.tensor([2.0, 0, 0]), torch.tensor([1.0, 0, 3.0]))
            >>> plane.coordinates(torch.tensor([[1.0, 5.0, 3.0]])).tolist()
            [[1.0, 3.0]]
        """
        a, b, c = (point.double() for point in (a, b, c))
        across, up = b - a, c - a
        u = across / across.norm()
        v = up - (up @ u) * u
        v = v - (v @ u) * u  # once more: the first difference loses digits when c lies close to the line
        if not v.norm() > 1e-9 * max(float(across.norm()), float(up.norm())):
            raise ValueError("the three points lie on one line and span no plane: choose another third point")
        return cls(a, u, v / v.norm())

    @classmethod
    def random(cls, surface: LossSurface, theta: Tensor, generator: torch.Generator) -> Plane:
        """The plane through ``theta`` along two random, filter-normalised directions.

        Each direction d is Gaussian, and every filter d_i (a row of a weight of two or more axes) is scaled to
        the norm of the same filter of theta: d_i <- d_i ||theta_i|| / ||d_i||. Parameters of fewer axes, biases and
        scales of normalisation layers, stay as they are (Li et al. 2018, arXiv 1712.09913, section 4).
        """
        return cls(theta.double(), *(_filter_normalized(surface, theta, generator) for _ in range(2)))

    def points(self, coordinates: Tensor) -> Tensor:
        """Points (N, P) at ``coordinates`` (N, 2)."""
        coordinates = coordinates.to(self.origin)
        points: Tensor = self.origin + coordinates[:, :1] * self.u + coordinates[:, 1:] * self.v
        return points

    def coordinates(self, points: Tensor) -> Tensor:
        """Coordinates (N, 2) of the orthogonal projections of ``points`` (N, P)."""
        basis = torch.stack([self.u, self.v])
        coordinates: Tensor = torch.linalg.solve(basis @ basis.T, basis @ (points.to(self.origin) - self.origin).T).T
        return coordinates

    def distances(self, points: Tensor) -> Tensor:
        """Euclidean distances (N,) of ``points`` (N, P) from the plane."""
        distances: Tensor = (points.to(self.origin) - self.points(self.coordinates(points))).norm(dim=1)
        return distances


@dataclass(frozen=True)
class Slice:
    """E on a grid of a plane.

    Attributes:
        plane: the plane.
        x: coordinates along u, tensor (W,).
        y: coordinates along v, tensor (H,).
        losses: E at (y_i, x_j), tensor (H, W), float64.
    """

    plane: Plane
    x: Tensor
    y: Tensor
    losses: Tensor


def evaluate_slice(
    surface: LossSurface,
    plane: Plane,
    x: Tensor,
    y: Tensor,
    file: FilePath | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Slice:
    """Evaluates E on the grid of ``x`` and ``y``.

    Args:
        surface: the loss surface.
        plane: the plane.
        x: coordinates along u, tensor (W,).
        y: coordinates along v, tensor (H,).
        file: keeps each row when it is done (safetensors), so that an interrupted call goes on where it was.
        progress: called with a description and a fraction.

    Raises:
        SnapshotError: if ``file`` holds another slice, or is damaged.
    """
    x, y = x.double().cpu(), y.double().cpu()
    key = _fingerprint(surface, plane, x, y)
    done = torch.empty(0, len(x), dtype=torch.float64)
    if file is not None and file.exists():
        done = _read(file, key)
    for row in range(len(done), len(y)):
        if progress is not None:
            progress(f"row {row + 1} of {len(y)}", row / len(y))
        grid = torch.stack([x, y[row].expand_as(x)], dim=1)
        losses = torch.cat([surface.losses(plane.points(part)).double().cpu() for part in grid.split(_STACK)])
        done = torch.cat([done, losses[None]])
        if file is not None:
            write_safetensors(file, {"losses": done, "x": x, "y": y}, {_KEY: key})
    return Slice(plane, x, y, done)


def _filter_normalized(surface: LossSurface, theta: Tensor, generator: torch.Generator) -> Tensor:
    state = surface.parameters(theta)
    direction = {}
    for name, value in state.items():
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        if value.ndim < 2:
            direction[name] = torch.zeros_like(noise)
            continue
        rows = value.double().cpu().flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)
        direction[name] = noise * rows.view(-1, *[1] * (noise.ndim - 1))
    return torch.cat([part.reshape(-1) for part in direction.values()]).to(theta.device)


def _fingerprint(surface: LossSurface, plane: Plane, x: Tensor, y: Tensor) -> str:
    """Tells one slice from another; E itself enters by its value at the corner of the grid."""
    digest = hashlib.sha256()
    for tensor in (plane.origin, plane.u, plane.v, x, y):
        digest.update(tensor.detach().double().cpu().numpy().tobytes())
    return f"{digest.hexdigest()} {surface.loss(plane.points(torch.stack([x[:1], y[:1]], dim=1))[0]):.5e}"


def _read(file: FilePath, key: str) -> Tensor:
    header, tensors = read_safetensors(file)
    if header.get(_KEY) != key:
        raise SnapshotError(f"{file} holds another slice: give another file, or delete it to compute anew")
    return tensors["losses"]
