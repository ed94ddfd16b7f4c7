"""Finders of rising cost, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightning_landscape.alignment.permuted import permuted_copy
from lightning_landscape.connection import Reason
from lightning_landscape.finders.base import PathFinder
from lightning_landscape.finders.bezier import BezierCurve
from lightning_landscape.finders.chain import Chain, Segment
from lightning_landscape.finders.polygonal_chain import PolygonalChain
from lightning_landscape.finders.search import Search
from lightning_landscape.finders.string_sampling import DynamicStringSampling


class Ladder(PathFinder):
    """Tries the straight line, then each rung, and stops at the first path that is verified.

    Each rung goes on from the lowest path of those before it, and may spend an equal share of what is left
    of the budget. The rungs by default: a chain with one bend, for 60 steps, a Bezier curve with one, for 200, and
    Dynamic String Sampling.

    With ``align``, and a straight line that rises above the level, the hidden units of theta_b are permuted to match
    those of theta_a (weight matching, Ainsworth et al. 2023), and the path is sought to that copy P theta_b, the
    straight line to it first. **Such a path does not connect theta_a with theta_b**, but with another point of the
    same function. The connection says so by ``aligned``, and its height and length are those of a path to the copy.

    Args:
        align: whether to search up to permutation of hidden units.
        rungs: finders in the order in which they are tried; None for those above. Their own samples
            and shorten are not used.
        samples: points per straight-line distance of the endpoints on the grid that a search uses. The result is
            measured at a spacing three times finer, and finer still around its largest points.
        shorten: rounds of pulling the found path tight inside the level set; 0 leaves it as found.

    Raises:
        ValueError: for arguments out of range, and from ``connect`` with ``align`` where the module's permutations
            cannot be derived, or the copy has another loss.

    Example:
        >>> import torch
        >>> from lightning_landscape import LossSurface
        >>> ring = torch.nn.Linear(2, 1, bias=False)  # minima on the unit circle, a hill in the middle
        >>> surface = LossSurface(ring, [None], loss_fn=lambda module, batch: (module.weight.norm() - 1) ** 2)
        >>> found = Ladder().connect(surface, torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0]), level=0.2)
        >>> str(found.verdict), found.aligned
        ('connected', False)
    """

    def __init__(
        self,
        align: bool = False,
        rungs: Sequence[PathFinder] | None = None,
        *,
        samples: int = 9,
        shorten: int = 6,
    ) -> None:
        super().__init__(samples=samples, shorten=shorten)
        if rungs is not None and not rungs:
            raise ValueError("rungs is empty: give at least one finder, or None for the default ones")
        self.align = align
        # The curves get the steps in which they succeed if at all; what they found is not lost to the last rung.
        default = [PolygonalChain(max_steps=60), BezierCurve(max_steps=200), DynamicStringSampling()]
        self.rungs = default if rungs is None else list(rungs)

    def search(self, search: Search) -> tuple[Chain, Reason]:
        """Climbs rung by rung."""
        if self.align:
            search = replace(search, line=_straight(search.chain)) if search.chain.aligned else _aligned(search)
            if search.chain.height <= search.level:
                return search.chain, Reason.DEPTH
        best, reason = search.chain, Reason.DEPTH
        for number, rung in enumerate(self.rungs):
            ledger = search.ledger.part(1 / (len(self.rungs) - number))
            found, reason = rung.search(replace(search, chain=best, ledger=ledger))
            best = best.lower(found)
            if best.height <= search.level:
                break
        return best, reason


def _straight(chain: Chain) -> Segment:
    """The segment between the ends of a chain, with their losses."""
    first, last = chain.segments[0], chain.segments[-1]
    return Segment(first.start, last.end, {0.0: first.losses[0.0], 1.0: last.losses[1.0]})


def _aligned(search: Search) -> Search:
    """The search to the permuted copy of the second endpoint, its straight line refined."""
    surface, line = search.surface, search.line
    copy, expected = permuted_copy(surface, line.start, line.end), line.losses[1.0]
    # One function has one loss: the difference is rounding, which must not decide against the level.
    segment = Segment(line.start, copy, {0.0: line.losses[0.0], 1.0: expected})
    chain = Chain([segment], segment.length, search.chain.samples, aligned=True)
    chain.sample(surface)
    chain.refine(surface, search.level)
    return replace(search, line=segment, chain=chain)
