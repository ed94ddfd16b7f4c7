"""Pulling a path tight without leaving the level set."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lightning_landscape.finders.chain import Chain, Segment, measure
from lightning_landscape.finders.search import Search

_WORTH = 0.003  # share of the path's length that a corner must promise to be cut in part, which costs a bead
_CLEARANCE = 1e-3  # share of the level that a cut keeps away from it, for what lies between the samples
_HALVINGS = 4  # of a cut, before a corner is left as it is


def shorten(search: Search, chain: Chain, rounds: int) -> Chain:
    """Cuts the corners of a chain that lies below the level, as far as it stays there.

    A corner x between neighbours p and q is cut by the segment from ``x + s (p - x)`` to ``x + s (q - x)``. By the
    triangle inequality every cut shortens; s = 1 removes the corner, and smaller s, halved until the cut
    stays below the level, leave two flatter corners for the next round. The length falls towards that of a
    string pulled tight inside the level set, an upper bound of the geodesic distance.

    Args:
        search: the running search; the work comes from its budget.
        chain: a chain below ``search.level``.
        rounds: passes over all corners.

    Returns:
        The shortest chain found whose measured height is at most the level.
    """
    for number in range(rounds):
        search.progress(f"shortening, round {number + 1} of {rounds}", number / rounds)
        tighter = chain
        for parity in (0, 1):
            # A finely bent path first loses the corners that it can do without, however little each of them turns.
            tighter = _cut_corners(search, tighter, parity, 0.0 if number == 0 else _WORTH)
        tighter.refine(search.surface, search.level)
        if not tighter.height <= search.level or search.ledger.remaining <= 0:
            break
        if tighter.length >= chain.length:
            break
        chain = tighter
    return chain


class _Corner:
    """The corner between two segments of a chain, with a cut that is tried ever smaller."""

    def __init__(self, chain: Chain, index: int) -> None:
        self.index = index
        self.before, self.after = chain.segments[index - 1], chain.segments[index]
        self.share = 1.0
        self.cut = self._between()
        # By similar triangles a cut of share s saves s times this.
        self.slack = self.before.length + self.after.length - self.cut.length

    def halve(self) -> None:
        """Tries a cut of half the size."""
        self.share /= 2
        self.cut = self._between()

    def _between(self) -> Segment:
        ends = {0.0: self.before.losses.get(1 - self.share), 1.0: self.after.losses.get(self.share)}
        known = {t: loss for t, loss in ends.items() if loss is not None}
        return Segment(self.before.at(1 - self.share), self.after.at(self.share), known)

    def share_ends(self) -> None:
        """Tells the segments beside it what is known of the cut's ends, which lie on them."""
        self.before.losses.setdefault(1 - self.share, self.cut.losses[0.0])
        self.after.losses.setdefault(self.share, self.cut.losses[1.0])


def _cut_corners(search: Search, chain: Chain, parity: int, least: float) -> Chain:
    """Cuts every second corner that promises a share ``least`` of the length, together: no two share a segment."""
    corners = [_Corner(chain, index) for index in range(1 + parity, len(chain.segments), 2)]
    pending = [corner for corner in corners if corner.slack >= least * chain.length]
    done: dict[int, _Corner] = {}
    for _ in range(_HALVINGS + 1):
        if not pending or search.ledger.remaining <= 0:
            break
        # The middle is where a cut most often fails, and rules it out for the price of one point.
        measure(search.surface, ((corner.cut, (0.5,)) for corner in pending))
        hopeful = [corner.cut for corner in pending if corner.cut.height <= search.level]
        chain.with_segments(hopeful).refine(search.surface, search.level)
        failed = []
        for corner in pending:
            if _clears(corner.cut, search.level):
                done[corner.index] = corner
                corner.share_ends()
            else:
                failed.append(corner)
        pending = [corner for corner in failed if corner.slack >= _WORTH * chain.length]
        for corner in pending:
            corner.halve()
    return chain.with_segments(list(_with_cuts(chain, done)))


def _clears(cut: Segment, level: float) -> bool:
    """Whether a cut stays below the level, and visibly so between its ends, where E is known at samples alone."""
    inner = max(loss if 0 < t < 1 else -math.inf for t, loss in cut.losses.items())
    return cut.height <= level and inner <= level - _CLEARANCE * abs(level)


def _with_cuts(chain: Chain, done: dict[int, _Corner]) -> Iterator[Segment]:
    """The segments of a chain, shorn where a corner was cut, with the cuts between them."""
    for index, segment in enumerate(chain.segments):
        first = done[index].share if index in done else 0.0
        last = 1 - done[index + 1].share if index + 1 in done else 1.0
        if index in done:
            yield done[index].cut
        if last > first:
            yield segment.part(first, last)
