"""Piecewise linear paths between two parameter vectors, and what is known about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Profile(NamedTuple):
    """Losses along a path: ``t`` in [0, 1] by arc length, increasing, and ``loss`` at each t."""

    t: tuple[float, ...]
    loss: tuple[float, ...]

    @property
    def height(self) -> float:
        """Largest loss of the profile; NaN as soon as one loss is NaN."""
        return math.nan if any(math.isnan(value) for value in self.loss) else max(self.loss)

    @property
    def barrier(self) -> float:
        """``max_t [ loss(t) - (1 - t) loss(0) - t loss(1) ]`` (Entezari et al. 2022, Eq. 1).

        Example:
            >>> Profile((0.0, 0.5, 1.0), (1.0, 4.0, 2.0)).barrier
            2.5
        """
        first, last = self.loss[0], self.loss[-1]
        excess = [loss - ((1 - t) * first + t * last) for t, loss in zip(self.t, self.loss, strict=True)]
        return math.nan if any(math.isnan(value) for value in excess) else max(excess)


class Path:
    """A piecewise linear path through K beads, endpoints included.

    Arc length is measured by the Euclidean norm of the flat parameter vector, and t in [0, 1] is
    arc length divided by the whole length.

    Args:
        beads: tensor (K, P) with K >= 2; the first and last rows are the endpoints.

    Raises:
        ValueError: if ``beads`` is not a matrix with at least two rows.

    Example:
        >>> path = Path(torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]]))
        >>> path.length, path.normalized_length, path.num_beads
        (7.0, 1.4, 1)
        >>> path(0.5)
        tensor([3.0000, 0.5000])
    """

    def __init__(self, beads: Tensor) -> None:
        if beads.ndim != 2 or beads.shape[0] < 2:
            raise ValueError(f"beads must have shape (K, P) with K >= 2, got {tuple(beads.shape)}")
        self.beads = beads.detach()

    @classmethod
    def straight(cls, theta_a: Tensor, theta_b: Tensor) -> Path:
        """The segment from ``theta_a`` to ``theta_b``, both of shape (P,)."""
        return cls(torch.stack([theta_a, theta_b]))

    def __repr__(self) -> str:
        beads, parameters = self.beads.shape
        return f"Path(beads={beads}, parameters={parameters}, length={self.length:.6g})"

    @property
    def num_beads(self) -> int:
        """Number of interior beads, K - 2: a straight line has none."""
        return self.beads.shape[0] - 2

    @property
    def segment_lengths(self) -> Tensor:
        """Euclidean lengths of the K - 1 segments, float64 on the CPU."""
        # Row by row, so that no second (K, P) tensor is made for large models.
        pairs = zip(self.beads[:-1], self.beads[1:], strict=True)
        return torch.tensor([distance(start, end) for start, end in pairs], dtype=torch.float64)

    @property
    def length(self) -> float:
        """Arc length, the sum of the segment lengths."""
        return float(self.segment_lengths.sum())

    @property
    def normalized_length(self) -> float:
        """Arc length / ||theta_a - theta_b|| (Freeman & Bruna 2017, Sec. 3.1), at least 1.

        Identical endpoints give 1 for a path that stays there and infinity for a loop.
        """
        chord = distance(self.beads[0], self.beads[-1])
        length = self.length
        if chord == 0.0:
            return 1.0 if length == 0.0 else math.inf
        return max(length / chord, 1.0)  # in this order a NaN stays one

    @property
    def knots(self) -> Tensor:
        """The parameter t of each bead, shape (K,), float64 on the CPU, from 0 to 1."""
        ends = self.segment_lengths.cumsum(0)
        if ends[-1] == 0:
            return torch.linspace(0.0, 1.0, len(ends) + 1, dtype=torch.float64)
        # Divided by the last of them, not by a sum that rounds otherwise, so that no knot lies beyond 1.
        return torch.cat([torch.zeros(1, dtype=torch.float64), ends / ends[-1]])

    def __call__(self, t: float | Sequence[float] | Tensor) -> Tensor:
        """Points at arc-length parameters ``t``.

        Args:
            t: one number, or n of them, in [0, 1].

        Returns:
            Tensor (P,) for a number and (n, P) for a sequence. Endpoints and beads are returned exactly.

        Raises:
            ValueError: if a value lies outside [0, 1].
        """
        where = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        if where.numel() and not bool(((where >= 0) & (where <= 1)).all()):
            raise ValueError(f"t must lie in [0, 1], got values from {where.min():g} to {where.max():g}")
        knots = self.knots
        flat = where.reshape(-1)
        segment = torch.searchsorted(knots, flat, right=True).clamp(1, len(knots) - 1) - 1
        width = (knots[segment + 1] - knots[segment]).clamp_min(torch.finfo(torch.float64).tiny)
        # At 1 the end, also when the last segment is too short for t to resolve.
        weight = torch.where(flat == 1, 1.0, (flat - knots[segment]) / width).to(self.beads)
        segment = segment.to(self.beads.device)
        points = torch.lerp(self.beads[segment], self.beads[segment + 1], weight[:, None])
        return points[0] if where.ndim == 0 else points.reshape(*where.shape, points.shape[1])

    def reversed(self) -> Path:
        """The same path walked from its end to its start."""
        return Path(self.beads.flip(0))

    def resample(self, num_points: int) -> Path:
        """A path through ``num_points`` points at equal steps of arc length, endpoints kept."""
        return Path(self(torch.linspace(0.0, 1.0, num_points, dtype=torch.float64)))


def distance(start: Tensor, end: Tensor) -> float:
    """Euclidean distance of two flat vectors."""
    # Apple's GPUs have no float64.
    precise = None if start.device.type == "mps" else torch.float64
    return float(torch.linalg.vector_norm(end - start, dtype=precise))
