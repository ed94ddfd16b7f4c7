"""Looks at a polyline in training that cost no more than they must."""

from __future__ import annotations

import math

from torch import Tensor

from lightning_landscape.finders.chain import Chain, Segment, measure
from lightning_landscape.finders.loss_profile import LossProfile
from lightning_landscape.finders.search import Search

_LEAST, _MOST = 1.1, 1.6  # by which the number of steps grows from look to look
_POWER = 1 / 3  # a loss that falls towards the level as fast as steps^-3 is not missed


class CurveLooks:
    """Looks at the polylines of one curve: first where the last one was highest, then ever more widely.

    A polyline lies above the level as soon as one point of it does. So the point that is suspected most is evaluated
    first, alone; if it lies below the level, the next one, then two, four and so on, and a look ends at the first point
    above. Before anything was evaluated, the running training losses say what to suspect.

    Args:
        search: the running search.
        profile: running losses along the curve.

    Attributes:
        height: the largest loss of the last look.
    """

    def __init__(self, search: Search, profile: LossProfile) -> None:
        self._search = search
        self._profile = profile
        self._highest: float | None = None
        self._last: tuple[Tensor, Chain] | None = None
        self.height = search.chain.height

    @property
    def price(self) -> float:
        """What a look at a whole polyline costs, in training steps, as long as it is not much longer than the line."""
        chain = self._search.chain
        return 2 * (chain.samples + 1) * self._search.surface.evaluation_passes / 3

    def excess(self, corners: Tensor) -> float | None:
        """Looks at the polyline through ``corners`` (K, P): ``None`` if it lies below the level.

        Returns:
            Otherwise by which the number of steps should grow until the next look; more the higher the polyline lies.
        """
        surface, level = self._search.surface, self._search.level
        chain = self._search.chain.through(corners)
        self._last = corners, chain
        pending = self._suspects(chain)
        count = 1
        while pending:
            group, pending = pending[:count], pending[count:]
            measure(surface, [(segment, (t,)) for _, segment, t in group])
            where, top = max(((place, segment.losses[t]) for place, segment, t in group), key=_by_loss)
            if not top <= level:
                self._highest, self.height = where, top
                ratio = (top / level) ** _POWER if level > 0 and math.isfinite(top) else _LEAST
                return min(_MOST, max(_LEAST, ratio))
            count = 1 if count == 1 and group[0][0] == self._highest else 2 * count
        chain.refine(surface, level)
        self._search.keep(chain)
        self._highest, self.height = chain.highest, chain.height
        return None if chain.height <= level else _LEAST

    def whole(self, corners: Tensor) -> Chain:
        """The polyline through ``corners`` (K, P), sampled; a repeated one is not evaluated again."""
        chain = self._search.chain.through(corners)
        if self._last is not None and self._last[0].equal(corners):
            chain = self._last[1]
        chain.sample(self._search.surface)
        if chain.height <= self._search.level:
            chain.refine(self._search.surface, self._search.level)
        self._last = corners, chain
        self._search.keep(chain)
        self._highest, self.height = chain.highest, chain.height
        return chain

    def _suspects(self, chain: Chain) -> list[tuple[float, Segment, float]]:
        """The samples of a chain that are not known, with their places in [0, 1], in the order of suspicion."""
        places = {id(segment): number for number, segment in enumerate(chain.segments)}
        points = [
            ((places[id(segment)] + t) / len(places), segment, t)
            for segment, t in chain.wanted()
            if not segment.knows(t)
        ]
        points.sort(key=lambda point: -self._profile.at(point[0]))
        if self._highest is not None:
            highest = self._highest
            first = min(points, key=lambda point: abs(point[0] - highest))
            points.remove(first)
            points.insert(0, first)
        return points


def _by_loss(point: tuple[float, float]) -> float:
    return math.inf if math.isnan(point[1]) else point[1]
