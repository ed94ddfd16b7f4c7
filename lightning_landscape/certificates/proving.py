"""A search that is followed by a proof, within one budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from lightning_landscape.certificates.along_paths import certify
from lightning_landscape.certificates.apart import judged
from lightning_landscape.connection import Connection, Reason
from lightning_landscape.finders import Budget, PathFinder, default_finder
from lightning_landscape.finders.chain import Chain
from lightning_landscape.finders.search import Search
from lightning_landscape.path import Profile
from lightning_landscape.surface import LossSurface


class Proved(PathFinder):
    """Searches by another finder, and proves what it found: the whole path below the level, or that none stays there.

    The proof has what the search leaves of the budget. Where it fails, the connection is as the search left it, and
    says nothing more; :func:`~lightning_landscape.certificates.certify` says why.

    Args:
        finder: the search; ``None`` is :class:`~lightning_landscape.finders.CurveThenBeads`.
    """

    def __init__(self, finder: PathFinder | None = None) -> None:
        self.finder = finder or default_finder()
        super().__init__(samples=self.finder.samples, shorten=self.finder.shorten)

    def search(self, search: Search) -> tuple[Chain, Reason]:
        """The search of the finder."""
        return self.finder.search(search)

    def least_work(self, surface: LossSurface) -> float:
        """That of the finder: a proof has only what is left."""
        return self.finder.least_work(surface)

    def connect(
        self,
        surface: LossSurface,
        theta_a: Tensor,
        theta_b: Tensor,
        level: float | None = None,
        *,
        budget: Budget | None = None,
        **options: Any,
    ) -> Connection:
        """As :meth:`PathFinder.connect <lightning_landscape.finders.PathFinder.connect>`.

        Returns:
            The connection, with ``proved_profile`` where the whole path is proved to lie below the level, and the
            verdict ``separated`` where it is proved that none does. ``work`` and ``seconds`` count the proof too.
        """
        budget = budget or Budget()
        found = self.finder.connect(surface, theta_a, theta_b, level, budget=budget, **options)
        work, seconds = (
            None if limit is None else max(0.0, limit - spent)
            for limit, spent in ((budget.work, found.work), (budget.max_seconds, found.seconds))
        )
        if found.connected and found.path is not None:
            certificate = certify(surface, found, budget=Budget(work, seconds))
            found = replace(found, work=found.work + certificate.work, seconds=found.seconds + certificate.seconds)
            if certificate.certified:
                found = replace(found, proved_profile=Profile(certificate.knots[1:], certificate.bounds))
        elif work is None or work >= 2 * surface.evaluation_passes / 3:  # E at the ends, compared with what is read
            before = surface.work.total
            found = judged(surface, found, theta_a, theta_b)
            found = replace(found, work=found.work + surface.work.total - before)
        return found
