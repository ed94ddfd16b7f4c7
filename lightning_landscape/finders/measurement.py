"""What is measured on a path in the end, whoever found it."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor

from lightning_landscape.connection import Connection, Reason, Verdict, level_above
from lightning_landscape.finders.chain import Chain, Segment
from lightning_landscape.finders.search import Budget, Ledger
from lightning_landscape.path import Path
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.work import WorkSpent


def measured(
    surface: LossSurface,
    path: Path | Tensor,
    level: float | None = None,
    *,
    margin: float = 0.0,
    samples: int = 9,
    aligned: bool = False,
) -> Connection:
    """Measures a path that was found by any method, as every finder's result is measured.

    The losses are taken on a grid that is finer than that of a search, endpoints and corners included, and finer
    still around the highest points. The straight line between the endpoints is measured in the same way.

    Args:
        surface: the loss surface E.
        path: the path, or its corners as a tensor (K, P) with K >= 2; the first and the last row are the endpoints.
        level: the level u that the height is compared with; ``None`` derives it from the endpoints and ``margin``.
        margin: without a level, u = max(E_a, E_b) + margin |max(E_a, E_b)|; unused where a level is given.
        samples: points per straight-line distance of the endpoints; the path is measured at a spacing three times
            finer than these.
        aligned: whether the path ends in a permuted copy of the second endpoint.

    Returns:
        The connection. Its cost fields count this measurement alone: no gradient steps. A path that rises above the
        level is ``not_found``, for the reason ``depth``, ``endpoint`` or ``diverged``.

    Raises:
        ValueError: if the path has not the shape (K, P) of the surface, ``level`` is NaN, ``samples`` is below 1, or
            ``margin`` is negative or not finite.

    Example:
        >>> import torch
        >>> ring = torch.nn.Linear(2, 1, bias=False)  # minima on the unit circle, a hill in the middle
        >>> surface = LossSurface(ring, [None], loss_fn=lambda module, batch: (module.weight.norm() - 1) ** 2)
        >>> found = measured(surface, torch.tensor([[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), level=0.1)
        >>> str(found.verdict), round(found.height, 3), found.num_beads
        ('connected', 0.086, 1)
    """
    beads = (path if isinstance(path, Path) else Path(path)).beads.to(surface.point())
    if beads.shape[1] != surface.dimension:
        raise ValueError(
            f"the path has points of {beads.shape[1]} parameters and the surface has {surface.dimension}: "
            "both must come from one architecture"
        )
    if level is not None and math.isnan(level):
        raise ValueError("level is NaN: give a number, or None for the larger loss of the two endpoints")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    ledger = Ledger(surface, Budget())
    line = Segment(beads[0], beads[-1])
    straight = Chain([line], line.length, samples, aligned)
    straight.finish(surface)
    chain = straight
    if len(beads) > 2:
        chain = straight.with_segments([Segment(*ends) for ends in pairwise(beads)])
        chain.finish(surface)
    losses = line.losses[0.0], line.losses[1.0]
    level = level_above(losses, margin) if level is None else level
    return connection_of(chain, line, level, barred(*losses, level) or Reason.DEPTH, ledger)


def settled(surface: LossSurface, chain: Chain, level: float, thorough: bool = False) -> bool:
    """Measures a sampled chain as far as its verdict needs, and the budget allows: whether that was far enough.

    Below the level it is measured finer wherever a bound on the curvature does not exclude a loss above it, above the
    level around its highest point alone.

    Args:
        surface: the loss surface E.
        chain: the chain, sampled.
        level: the level u.
        thorough: whether a chain below the level is measured finer everywhere.
    """
    try:
        if chain.height <= level:
            chain.refine(surface, level)
        if thorough and chain.height <= level:
            chain.finish(surface, level)
        if not chain.height <= level:
            chain.crest(surface)
    except WorkSpent:
        return not chain.height <= level or chain.verified(level)
    return True


def barred(loss_a: float, loss_b: float, level: float) -> Reason | None:
    """Why no path between endpoints of these losses stays below the level, whatever it is; ``None`` where one may."""
    if not (math.isfinite(loss_a) and math.isfinite(loss_b)):
        return Reason.DIVERGED
    return Reason.ENDPOINT if max(loss_a, loss_b) > level else None


def connection_of(chain: Chain, line: Segment, level: float, reason: Reason, ledger: Ledger) -> Connection:
    """The connection that a chain makes, once it and the straight line are measured.

    Args:
        chain: the path, measured.
        line: the straight segment between the ends, measured.
        level: the level u that the height is compared with.
        reason: what stands in the connection if the chain rises above the level, or if it is not measured far enough to
            say that it does not.
        ledger: what the search and the measurement have cost.
    """
    profile, linear = chain.profile(), Chain([line], line.length, 1).profile()
    path = Path(chain.beads())
    # An infinite level, given or derived from an infinite loss at an end, would be reached by anything.
    if not math.isfinite(profile.height):
        reason = Reason.DIVERGED
    connected = reason is not Reason.DIVERGED and chain.verified(level)
    spent = ledger.spent
    return Connection(
        verdict=Verdict.CONNECTED if connected else Verdict.NOT_FOUND,
        reason=None if connected else reason,
        path=path,
        level=level,
        loss_a=profile.loss[0],
        loss_b=profile.loss[-1],
        linear_height=linear.height,
        linear_barrier=linear.barrier,
        height=profile.height,
        barrier=profile.barrier,
        length=path.length,
        normalized_length=path.normalized_length,
        num_beads=path.num_beads,
        gradient_steps=spent.gradient_steps,
        loss_evaluations=spent.loss_evaluations,
        work=spent.total,
        seconds=ledger.seconds,
        profile=profile,
        linear_profile=linear,
        aligned=chain.aligned,
        verified=("fine" if chain.fine else "curvature") if connected else None,
    )
