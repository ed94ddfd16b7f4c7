"""A proof that E stays below a level on the whole of a path, between the points where it is evaluated too."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lightning_landscape.certificates.chord import UNIT
from lightning_landscape.certificates.losses import Bent, ConvexLoss, Excess
from lightning_landscape.certificates.operation import Piece, Point, UnsupportedError
from lightning_landscape.certificates.recognise import Problem, recognise
from lightning_landscape.connection import Connection, level_above
from lightning_landscape.finders import Budget
from lightning_landscape.finders.search import Ledger
from lightning_landscape.path import Path
from lightning_landscape.storage.plain import plain_json
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.work import Work

_BOUND = 8  # forward passes that one bound costs: four products of matrices, in double precision
_SHORTEST = 2.0**-24  # of a segment
_SAFETY = 0.9


@dataclass(frozen=True)
class Certificate:
    """What is proved of the loss along a path.

    Attributes:
        certified: whether ``E <= level`` is proved on the whole path.
        height: an upper bound of E on the whole path; infinite where nothing is proved.
        level: the level u.
        pieces: pieces of the path that were bounded one by one, those that were too long included.
        work: cost in training steps, counted as a search counts.
        seconds: wall time.
        reason: why there is no proof; ``None`` where there is one.
        knots: the ends of the pieces in [0, 1], by arc length.
        bounds: for each piece an upper bound of E on it.
    """

    certified: bool
    height: float
    level: float
    pieces: int
    work: float
    seconds: float
    reason: str | None = None
    knots: tuple[float, ...] = field(default=(), repr=False)
    bounds: tuple[float, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; a number that is not finite becomes ``None``."""
        return {key: plain_json(value) for key, value in asdict(self).items()}


def certify(
    surface: LossSurface,
    path: Path | Connection | Tensor,
    level: float | None = None,
    budget: Budget | None = None,
    *,
    loss: ConvexLoss | None = None,
) -> Certificate:
    """Proves that the loss stays below a level on a whole path, or says why it does not.

    The path is walked in pieces. On each, every activation is its chord and a deviation that is bounded from layer to
    layer, which bounds a loss that is convex in the network's output (docs/certificates.md has the proof, and what is
    assumed). A piece is as long as the bound allows.

    Args:
        surface: the loss surface E: cross-entropy or squared error of a network of the layers that the page names.
        path: the path, a connection that has one, or the corners as a tensor (K, P).
        level: the level u; ``None`` takes the connection's, and for a path 1.05 times the largest E on a grid.
        budget: limits of the work; ``None`` is without limit.
        loss: the loss that E is, where it is not found by itself. It is compared with E in either case.

    Returns:
        The certificate. ``certified`` is true only where ``E <= level`` is proved at every point of the path, for E in
        exact arithmetic.

    Raises:
        ValueError: for a connection without a path, a path of another architecture, or a level that is NaN.

    Example:
        >>> from torch import nn
        >>> from lightning_landscape import LossSurface
        >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> batch = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])
        >>> surface = LossSurface(net, [batch], loss_fn=lambda m, b: nn.functional.mse_loss(m(b[0]), b[1]))
        >>> certificate = certify(surface, torch.stack([torch.zeros(7), torch.full((7,), 0.1)]), level=0.51)
        >>> certificate.certified, round(certificate.height, 2)
        (True, 0.5)
    """
    if isinstance(path, Connection):
        level = path.level if level is None else level
        if path.path is None:
            raise ValueError("the connection has no path, as it was read from a row: give the path itself")
        path = path.path
    beads = (path if isinstance(path, Path) else Path(path)).beads.to(surface.point())
    if beads.shape[1] != surface.dimension:
        raise ValueError(
            f"the path has points of {beads.shape[1]} parameters and the surface has {surface.dimension}: "
            "both must come from one architecture"
        )
    if level is not None and math.isnan(level):
        raise ValueError("level is NaN: give a number, or None for that of the connection")
    ledger = Ledger(surface, budget or Budget())
    lengths = Path(beads).knots.tolist()
    checked = torch.cat([beads, (beads[:-1] + beads[1:]) / 2]) if len(beads) <= 64 else beads
    if level is None:
        level = level_above(surface.losses(_grid(beads)).tolist(), 0.05)
    walk = _Walk(surface, level, ledger)
    try:
        walk.along(recognise(surface, checked, loss), beads, lengths)
    except UnsupportedError as error:
        walk.reason = str(error)
    return walk.certificate()


class _Walk:
    """The way along a path: what is proved so far, and how far the next piece reaches."""

    def __init__(self, surface: LossSurface, level: float, ledger: Ledger) -> None:
        self.reason: str | None = None
        self._surface, self._level, self._ledger = surface, level, ledger
        self._knots: list[float] = [0.0]
        self._bounds: list[float] = []
        self._pieces = 0
        self._step = 0.25

    def along(self, problem: Problem, beads: Tensor, knots: list[float]) -> None:
        for ends, (begin, end) in zip(pairwise(beads), pairwise(knots), strict=True):
            if not torch.equal(*ends):
                self._segment(problem, *ends, begin, end)
            if self.reason is not None:
                return

    def certificate(self) -> Certificate:
        spent: Work = self._ledger.spent
        proved = self.reason is None
        if proved and not self._bounds:
            self.reason, proved = "the path is a single point", False
        return Certificate(
            certified=proved,
            height=max(self._bounds) if proved else math.inf,
            level=self._level,
            pieces=self._pieces,
            work=spent.total,
            seconds=self._ledger.seconds,
            reason=self.reason,
            knots=tuple(self._knots),
            bounds=tuple(self._bounds),
        )

    def _segment(self, problem: Problem, first: Tensor, last: Tensor, begin: float, end: float) -> None:
        line = Line(self._surface, problem, first, last)
        t, here = 0.0, line.start
        while t < 1.0:
            if self._ledger.remaining <= 0:
                self.reason = f"the budget was spent at {begin + t * (end - begin):.3g} of the path"
                return
            # Ends that are multiples of a power of two are exact.
            reach = min(1.0, t + max(_SHORTEST, 2.0**-24 * round(self._step * 2.0**24)))
            there = line.at(reach)
            excess = line.bound(here, there)
            bound, ratio = bound_of(excess), room_of(excess, self._level)
            self._pieces += 1
            self._surface.work.forward_passes += _BOUND * self._surface.evaluation_passes
            if bound <= self._level:
                t, here = reach, there
                self._knots.append(begin + t * (end - begin))
                self._bounds.append(bound)
                self._step *= min(2.0, max(0.5, _SAFETY * ratio))
                continue
            where = begin + (end - begin) * (t if excess.start > self._level else reach)
            if not math.isfinite(bound):
                self._step /= 8
            else:
                self._step *= min(0.7, max(0.1, _SAFETY * ratio))
            if max(excess.start, excess.end) - excess.slack > self._level:
                self.reason = f"E rises above the level at {where:.6g} of the path: no proof is possible"
                return
            if self._step < _SHORTEST:
                self.reason = f"E comes too close to the level at {begin + t * (end - begin):.6g} of the path"
                return


class Line:
    """One segment of a path in double precision, with what its ends share."""

    def __init__(self, surface: LossSurface, problem: Problem, first: Tensor, last: Tensor) -> None:
        self._problem = problem
        self._first, self._last = (
            {name: value.double() for name, value in surface.parameters(theta).items()} for theta in (first, last)
        )
        self._largest = {
            name: torch.maximum(value.abs(), self._last[name].abs()) for name, value in self._first.items()
        }
        with torch.no_grad():
            ends = [
                [problem.network.values(part.inputs, point) for part in problem.parts]
                for point in (self._first, self._last)
            ]
        self._values = ends
        self.start = Node(self._first, ends[0])

    def at(self, t: float) -> Node:
        """The point (1 - t) a + t b."""
        if t == 1.0:
            return Node(self._last, self._values[1])
        point = {name: value * (1 - t) + self._last[name] * t for name, value in self._first.items()}
        with torch.no_grad():
            values = [
                self._problem.network.values_between(start, end, t, point)
                for start, end in zip(*self._values, strict=True)
            ]
        return Node(point, values)

    def bound(self, here: Node, there: Node) -> Excess:
        """The bound on the piece between two points."""
        network, loss, parts = self._problem
        piece = Piece(here.point, there.point, self._largest)
        total = Excess(0.0, 0.0, 0.0, 0.0, 0.0)
        with torch.no_grad():
            for part, start, end in zip(parts, here.values, there.values, strict=True):
                chords = network.chords(start, end, piece)
                total += loss.excess(network, chords, piece, part.targets, part.shares)
        return total

    def each(self, here: Node, there: Node) -> list[Bent]:
        """The bound of each example by itself, for each part of the examples."""
        network, loss, parts = self._problem
        piece = Piece(here.point, there.point, self._largest)
        with torch.no_grad():
            return [
                loss.each(network, network.chords(start, end, piece), piece, part.targets)
                for part, start, end in zip(parts, here.values, there.values, strict=True)
            ]


@dataclass(frozen=True)
class Node:
    """A point of a segment and all activations there, for each part of the examples."""

    point: Point
    values: list[list[Tensor]]


def bound_of(excess: Excess) -> float:
    """The largest value of ``(1 - s) E_0 + s E_1 + 4 s (1 - s) G`` over s in [0, 1], and the slack.

    Example:
        >>> round(bound_of(Excess(1.0, 1.0, 1.5, 1.25, 0.0)), 12)
        1.5
    """
    start, end, *_ = excess
    if not all(map(math.isfinite, excess)):
        return math.inf
    bend = 4 * _gain(excess)
    largest = max(start, end)
    if bend > abs(end - start):
        largest = max(largest, (start + end) / 2 + bend / 4 + (end - start) ** 2 / (4 * bend))
    return largest + excess.slack + 4 * UNIT * (abs(largest) + bend)


def room_of(excess: Excess, level: float) -> float:
    """By what factor a piece could be longer, if its bend grows with the square of its length."""
    bend, half, tilt = 4 * _gain(excess), level - (excess.start + excess.end) / 2, excess.end - excess.start
    if not all(map(math.isfinite, excess)):
        return 0.0
    if bend <= 0:
        return math.inf
    allowed = 2 * half + math.sqrt(max(0.0, 4 * half**2 - tilt**2)) if half > 0 else 0.0
    return math.sqrt(max(allowed, 0.0) / bend)


def _gain(excess: Excess) -> float:
    return max(excess.bent_start - excess.start, excess.bent_end - excess.end, 0.0)


def _grid(beads: Tensor) -> Tensor:
    steps = torch.linspace(0, 1, 9, dtype=beads.dtype, device=beads.device)[:-1, None]
    return torch.cat([*(torch.lerp(a, b, steps) for a, b in pairwise(beads)), beads[-1:]])
