"""The checker: what E does along a path that a theorem promises to keep low."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lightning_landscape.path import Path, Profile
from lightning_landscape.surface.detached import detached_copy
from lightning_landscape.surface.objective import Objective, Settings

_CHUNK = 256  # points in memory at a time


@dataclass(frozen=True)
class PathBound:
    """E along a path, beside the two bounds that the theorems state.

    Attributes:
        profile: (t, E) at the points measured.
        scale: the number that ``excess`` and ``rise`` are divided by, max(E_a, E_b) unless another was given.
    """

    profile: Profile
    scale: float

    @property
    def height(self) -> float:
        """The largest E measured."""
        return self.profile.height

    @property
    def excess(self) -> float:
        """``(height - max(E_a, E_b)) / scale``: at most rounding where the two ends are connected below their level.

        Example:
            >>> PathBound(Profile((0.0, 0.5, 1.0), (2.0, 3.0, 1.0)), scale=2.0).excess
            0.5
        """
        return (self.height - max(self.profile.loss[0], self.profile.loss[-1])) / self.scale

    @property
    def rise(self) -> float:
        """``max_{s < t} (E(t) - E(s)) / scale``: at most rounding where the path never increases.

        Example:
            >>> PathBound(Profile((0.0, 0.5, 1.0), (2.0, 1.0, 1.5)), scale=2.0).rise
            0.25
        """
        losses = torch.tensor(self.profile.loss, dtype=torch.float64)
        return float((losses - losses.cummin(0).values).max()) / self.scale


def measure_bound(
    module: nn.Module, path: Path, batch: tuple[Tensor, Tensor], num_points: int = 1000, scale: float | None = None
) -> PathBound:
    """Evaluates E in float64 at ``num_points`` equal steps of arc length, and at every bead and middle of a segment.

    Args:
        module: a module whose ``training_step`` is E, of operations that ``torch.func.vmap`` knows; it is only read.
        path: the path, in the coordinates of :class:`~lightning_landscape.surface.LossSurface`.
        batch: (x, y), the data of E.
        num_points: points at equal steps, at least 2.
        scale: a positive loss that errors are relative to; ``None`` for max(E_a, E_b). Where the ends are exact
            interpolations that is 0 or rounding, and a scale of the data (the mean of ||y||^2) is the one to give.

    Raises:
        ValueError: for fewer than 2 points, a path that is not finite, or a scale that is not positive.
    """
    if num_points < 2:
        raise ValueError(f"num_points must be at least 2, got {num_points}")
    objective = Objective(detached_copy(module).double(), None, Settings(batch_norm="frozen", device="cpu"))
    data = tuple(part.detach().to("cpu", torch.float64) for part in batch)

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        value: Tensor = functional_call(objective, parameters, (data,))
        return value

    if not bool(path.beads.isfinite().all()):
        raise ValueError("path must be finite, got beads with NaN or infinite entries")
    t, points = _points(path, num_points)
    with torch.no_grad():
        losses = torch.cat([vmap(loss)(objective.stacked(part)) for part in points.split(_CHUNK)]).tolist()
    level = max(losses[0], losses[-1]) if scale is None else scale
    if not level > 0:
        raise ValueError(f"errors cannot be relative to {level}: give a positive scale, such as the mean of ||y||^2")
    return PathBound(Profile(tuple(t.tolist()), tuple(losses)), level)


def _points(path: Path, num_points: int) -> tuple[Tensor, Tensor]:
    # Beads are taken as they are: those of a segment that is short beside the path all have one t in float64.
    beads, knots = path.beads.to("cpu", torch.float64), path.knots.to("cpu", torch.float64)
    corners, corner_t = (
        torch.stack([values[:-1], (values[:-1] + values[1:]) / 2], dim=1).flatten(0, 1) for values in (beads, knots)
    )
    corners, corner_t = torch.cat([corners, beads[-1:]]), torch.cat([corner_t, knots[-1:]])
    steps = torch.linspace(0.0, 1.0, num_points, dtype=torch.float64)
    steps = steps[~torch.isin(steps, corner_t)]
    t, order = torch.cat([corner_t, steps]).sort(stable=True)
    return t, torch.cat([corners, path(steps).to(corners)])[order]
