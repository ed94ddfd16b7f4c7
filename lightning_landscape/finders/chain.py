"""Segments with the losses measured on them, so that nothing is measured twice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from lightning_landscape.finders.curvature import rising_gaps, vertex
from lightning_landscape.path import Profile, distance
from lightning_landscape.surface import LossSurface

_POINT_BYTES = 2**28  # memory for points that wait to be evaluated
_FINER = 3  # how much finer the result is measured than the search samples
_PEAKS = 3  # local maxima of a segment that are looked at closely
_BESIDE = 0.01  # of the distance of the ends: a path so near the line is looked at where the line is high
_SAME = 1e-9  # samples closer than this are one
_ROUNDS = 2  # halvings of the grid around them
_HALVINGS = 3  # of a gap in which the loss may rise above the level


class Segment:
    """The straight segment from ``start`` to ``end``, and E at the parameters t in [0, 1] sampled so far.

    Args:
        start: first end, shape (P,).
        end: second end, shape (P,).
        losses: known losses by t.
    """

    def __init__(self, start: Tensor, end: Tensor, losses: dict[float, float] | None = None) -> None:
        self.start = start
        self.end = end
        self.losses = losses if losses is not None else {}
        self.length = distance(start, end)
        self.refined = False  # measured as finely as a search does it
        self.finished = False  # measured as finely as it will be
        self.crested = False  # measured closely around its highest sample

    def at(self, t: float) -> Tensor:
        """The point (1 - t) start + t end."""
        return torch.lerp(self.start, self.end, t)

    def part(self, first: float, last: float) -> Segment:
        """The piece from t = ``first`` to t = ``last``, with what is known of it."""
        if (first, last) == (0.0, 1.0):
            return self
        width = last - first
        known = {(t - first) / width: loss for t, loss in self.losses.items() if first <= t <= last}
        piece = Segment(self.at(first), self.at(last), known)
        # Where the whole was measured finely, so is the piece, once its ends are known too.
        whole = {0.0, 1.0} <= set(known)
        piece.refined, piece.finished = self.refined and whole, self.finished and whole
        return piece

    def knows(self, t: float) -> bool:
        """Whether E was sampled at ``t``, or so close to it that the difference is rounding."""
        return t in self.losses or (0 < t < 1 and any(abs(t - known) < _SAME for known in self.losses))

    @property
    def height(self) -> float:
        """Largest loss sampled; NaN as soon as one is NaN."""
        values = self.losses.values()
        return math.nan if any(math.isnan(value) for value in values) else max(values)

    @property
    def highest(self) -> float:
        """The t strictly between the ends with the largest loss sampled; a NaN counts as the largest."""
        inner = {t: math.inf if math.isnan(loss) else loss for t, loss in self.losses.items() if 0 < t < 1}
        return max(inner, key=lambda t: inner[t])

    def beside(self, points: list[Tensor], distance: float) -> list[float]:
        """The t of the segment's points nearest to those ``points`` (P,) that are no further than ``distance`` away."""
        direction = self.end - self.start
        square = float(direction.square().sum())
        if not 0 < square < math.inf:
            return []
        nearest = [(min(1.0, max(0.0, float((point - self.start) @ direction) / square)), point) for point in points]
        return [t for t, point in nearest if float((self.at(t) - point).norm()) <= distance]

    def peaks(self) -> list[float]:
        """The t of the highest few local maxima among the samples."""
        order = sorted(self.losses)
        values = [self.losses[t] for t in order]
        padded = [-math.inf, *values, -math.inf]
        tops = [i for i in range(len(values)) if padded[i] <= padded[i + 1] >= padded[i + 2]]
        return [order[i] for i in sorted(tops, key=lambda i: -values[i])[:_PEAKS]]

    def between(self, t: float, level: float = math.inf) -> list[float]:
        """The midpoints between ``t`` and its neighbours among the samples, where E may rise above a finite level."""
        gaps = list(pairwise(sorted(self.losses)))
        if math.isfinite(level):
            gaps = rising_gaps(self.losses, level)
        return [(before + after) / 2 for before, after in gaps if t in (before, after)]


def measure(surface: LossSurface, wanted: Iterable[tuple[Segment, Sequence[float]]]) -> None:
    """Evaluates E at every t that a segment lacks, many points at a time."""
    missing = [(segment, t) for segment, ts in wanted for t in dict.fromkeys(ts) if not segment.knows(t)]
    chunk = max(1, _POINT_BYTES // (8 * surface.dimension))
    for begin in range(0, len(missing), chunk):
        part = missing[begin : begin + chunk]
        values = surface.losses(torch.stack([segment.at(t) for segment, t in part])).tolist()
        for (segment, t), value in zip(part, values, strict=True):
            segment.losses[t] = value


class Chain:
    """A path as a list of segments, sampled at a spacing given by a reference length.

    Args:
        segments: consecutive segments.
        scale: the distance of the endpoints; a segment of that length gets ``samples`` interior points.
        samples: interior points of a segment as long as ``scale``; a shorter one gets fewer, and at least one.
        aligned: whether it ends in a permuted copy of the second endpoint.
    """

    def __init__(self, segments: list[Segment], scale: float, samples: int, aligned: bool = False) -> None:
        self.segments = segments
        self.scale = scale
        self.samples = samples
        self.aligned = aligned

    @property
    def height(self) -> float:
        """Largest loss sampled; NaN as soon as one is NaN."""
        heights = [segment.height for segment in self.segments]
        return math.nan if any(math.isnan(height) for height in heights) else max(heights)

    @property
    def highest(self) -> float:
        """Where on the chain the largest sample lies, by arc length in [0, 1]; a NaN counts as the largest."""
        t, losses = self.profile()
        return t[max(range(len(t)), key=lambda i: math.inf if math.isnan(losses[i]) else losses[i])]

    @property
    def length(self) -> float:
        """Arc length."""
        return sum(segment.length for segment in self.segments)

    def with_segments(self, segments: list[Segment]) -> Chain:
        """Another chain at the same spacing."""
        return Chain(segments, self.scale, self.samples, self.aligned)

    def through(self, corners: Tensor) -> Chain:
        """A chain with the same ends through copies of other corners (K, P), not measured but at the ends."""
        first, last = self.segments[0], self.segments[-1]
        segments = [Segment(*ends) for ends in pairwise([first.start, *corners.clone(), last.end])]
        segments[0].losses[0.0], segments[-1].losses[1.0] = first.losses[0.0], last.losses[1.0]
        return self.with_segments(segments)

    def lower(self, other: Chain) -> Chain:
        """Whichever of the two is lower; this one where they are equal, the one that is finite before a NaN."""
        return other if other.height < self.height or math.isnan(self.height) else self

    def sample(self, surface: LossSurface) -> None:
        """Fills every segment up to the spacing of the search, ends included."""
        shared = [(before, after) for before, after in pairwise(self.segments) if before.end is after.start]
        measure(surface, [(before, (1.0,)) for before, _ in shared])
        for before, after in shared:
            after.losses.setdefault(0.0, before.losses[1.0])
        measure(surface, ((segment, self._grid(segment, 1)) for segment in self.segments))

    def wanted(self) -> list[tuple[Segment, float]]:
        """The samples that the spacing of the search asks for, in order, each corner as the end of its segment."""
        return [(segment, t) for segment in self.segments for t in self._grid(segment, 1)[1:]]

    def coarse(self, segment: Segment) -> list[float]:
        """The coarsest grid: ends, middle and every second point of the search's spacing."""
        return sorted({*self._grid(segment, 1)[::2], 0.5, 1.0})

    def glance(self, surface: LossSurface) -> None:
        """Samples every segment on the coarsest grid."""
        measure(surface, ((segment, self.coarse(segment)) for segment in self.segments))

    def refine(self, surface: LossSurface, level: float) -> None:
        """Looks between the samples, where a bound on the curvature does not exclude a loss above the level.

        Gaps are halved, the last time those beside peaks alone. Segments that are found above ``level`` are left at
        once: what they need is a new bead.
        """
        self.sample(surface)
        rest = [segment for segment in self.segments if segment.height <= level and not segment.refined]
        for halvings in range(1, _HALVINGS + 1):
            gaps = [
                [
                    (before + after) / 2
                    for before, after in rising_gaps(segment.losses, level)
                    if (after - before) * self._steps(segment, 1) > 0.5**halvings
                    and (halvings < _HALVINGS or {before, after} & set(segment.peaks()))
                ]
                for segment in rest
            ]
            measure(surface, zip(rest, gaps, strict=True))
            rest = [segment for segment in rest if segment.height <= level]
        for segment in rest:
            segment.refined = True

    def finish(self, surface: LossSurface, level: float = math.inf) -> None:
        """Measures three times finer everywhere, then halves the spacing around peaks that may rise above the level.

        Segments that are found above ``level`` are left at once.
        """
        self.sample(surface)
        rest = [segment for segment in self.segments if segment.height <= level and not segment.finished]
        measure(surface, [(segment, self._grid(segment, _FINER)) for segment in rest])
        for _ in range(_ROUNDS):
            rest = [segment for segment in rest if segment.height <= level]
            near = ([t for peak in segment.peaks() for t in segment.between(peak, level)] for segment in rest)
            measure(surface, zip(rest, near, strict=True))
        for segment in rest:
            segment.refined = segment.finished = True

    def crest(self, surface: LossSurface) -> None:
        """Measures closely around the highest sample alone: enough for a path that lies above the level anyway."""
        height = self.height
        highest = [segment for segment in self.segments if segment.height == height and math.isfinite(height)]
        for top in [segment for segment in highest if not (segment.finished or segment.crested)]:
            top.crested = True
            measure(surface, [(top, top.between(top.peaks()[0]))])
            for _ in range(_ROUNDS):
                measure(surface, [(top, vertex(top.losses))])

    def revisit(self, surface: LossSurface, line: Segment, level: float) -> None:
        """Measures it wherever it passes by a point of ``line`` that is known to lie above the level.

        What rises on the line between the samples of this chain, a wall that is narrower than they are apart, is not
        overlooked where both are all but the same.
        """
        high = [line.at(t) for t, loss in line.losses.items() if not loss <= level]
        measure(surface, ((segment, segment.beside(high, _BESIDE * self.scale)) for segment in self.segments))

    def verified(self, level: float) -> bool:
        """Whether it lies below the level, as far as it is measured, and was measured far enough to say so."""
        return all(
            segment.height <= level and (segment.refined or not rising_gaps(segment.losses, level))
            for segment in self.segments
        )

    @property
    def fine(self) -> bool:
        """Whether no gap between samples is wider than a third of the search's spacing."""
        # By arc length: a short segment has a few samples at least, a shorn one those of the whole that it comes from.
        widest = (1 + _SAME) * self.scale / (_FINER * (self.samples + 1))
        return all(
            not (after - before) * segment.length > widest
            for segment in self.segments
            for before, after in pairwise(sorted(segment.losses))
        )

    def profile(self) -> Profile:
        """All that was measured, by arc length."""
        total = self.length if len(self.segments) > 1 else 0.0  # t of a line alone is exact
        starts = [0.0, *accumulate(segment.length for segment in self.segments)]
        t: list[float] = []
        loss: list[float] = []
        for start, segment in zip(starts, self.segments, strict=False):
            for where in sorted(segment.losses):
                if where == 0.0 and t:
                    continue  # the end of the segment before
                here = (start + where * segment.length) / total if total and math.isfinite(total) else where
                if t and here <= t[-1]:  # the same point but for rounding
                    value = segment.losses[where]
                    loss[-1] = value if math.isnan(value) else max(loss[-1], value)
                    continue
                t.append(here)
                loss.append(segment.losses[where])
        t[-1] = 1.0
        return Profile(tuple(t), tuple(loss))

    def beads(self) -> Tensor:
        """The corners, endpoints included, shape (K, P)."""
        return torch.stack([self.segments[0].start, *(segment.end for segment in self.segments)])

    def _steps(self, segment: Segment, finer: int) -> int:
        """Into how many parts the grid divides a segment."""
        share = segment.length / self.scale if self.scale else 1.0
        # A point that is not finite has no length; it is measured all the same.
        parts = math.ceil((self.samples + 1) * share - 1e-9) if math.isfinite(share) else self.samples + 1
        return finer * max(2, parts)

    def _grid(self, segment: Segment, finer: int) -> list[float]:
        steps = self._steps(segment, finer)
        return [i / steps for i in range(steps + 1)]
