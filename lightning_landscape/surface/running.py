"""Buffers that a module estimates while it trains, whatever they are: found, and estimated anew at every point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_landscape.surface.names import buffer_places

_STILL = 1e-6  # relative change of a buffer that counts as none
_LONG = 10_000  # passes of a training that is long
_SLOWEST = 0.9999  # per pass; what decays more slowly than that is not settled by extrapolation


class Recipe(NamedTuple):
    """How estimates are taken: passes over the batches, and whether sums and counts start from zero in the last one.

    Moving averages are put at their limit after every second pass: those of one layer, then those of the next, which
    sees what the first makes of its inputs. What is summed in the last pass depends on no earlier value of them.
    """

    passes: int
    anew: bool


RECIPES = (
    Recipe(2, anew=False),
    Recipe(1, anew=True),
    Recipe(3, anew=True),
    Recipe(8, anew=False),
    Recipe(9, anew=True),
)


class RunningBuffers:
    """Buffers that a forward pass in train mode moves, such as the mean and variance of a running normaliser.

    They are taken at a point by passes over the batches during which the modules that own them are in train mode.
    A moving average ``b <- (1 - m) b + m s`` is affine in b: passes move it by steps that shrink by one factor A,
    and its limit is ``b_2 + (b_2 - b_1) A / (1 - A)`` (Aitken's delta-squared process, with one A for a tensor).
    What grows by the same amount in each pass is a sum or a count. A single number that does so at every point is a
    counter: of steps, say, by which a layer weighs its estimates. Where no estimate is with it, it is none.

    Args:
        module: the detached copy that is evaluated.
        others: names of the buffers that belong to somebody else.
        in_eval: names of the modules that keep what they have, because their owner froze them.

    Attributes:
        names: what is estimated, empty until :meth:`find`.
        unknown: what moves, and the loss depends on it, but is no estimate.
        recipe: how.
    """

    def __init__(self, module: nn.Module, others: Set[str], in_eval: Set[str]) -> None:
        self.names: list[str] = []
        self.unknown: list[str] = []
        self.recipe = RECIPES[0]
        places = {name: (owner, key) for name, owner, key in buffer_places(module)}
        # By owner: a module may have several names.
        belonging = {places[name] for name in others & places.keys()}
        frozen = {owner for name, (owner, _) in places.items() if name.rpartition(".")[0] in in_eval}
        self._places = {
            name: place for name, place in places.items() if place not in belonging and place[0] not in frozen
        }
        self._counts: set[str] = set()
        self._counters: dict[str, Tensor] = {}  # counts that are counters, with what a pass adds
        self._stored: dict[str, Tensor] = {}
        self._last: list[dict[str, Tensor]] = []
        self._passed = 0

    @property
    def candidates(self) -> list[str]:
        """Buffers that may turn out to be estimates."""
        return list(self._places)

    @property
    def passes(self) -> int:
        """Passes over the batches that an estimate takes."""
        return self.recipe.passes if self.names else 0

    @property
    def sums(self) -> set[str]:
        """What is summed and depends on the point, so that it has to start from zero."""
        return self._counts - self._counters.keys()

    def far(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Values that counters have after a long training."""
        return {name: stored[name] + (_LONG * added).to(stored[name]) for name, added in self._counters.items()}

    def find(self, run: Callable[[], None]) -> None:
        """Names what two passes of ``run`` in train mode move, and of these the sums and counts."""
        self.names = list(self._places)
        weights = {
            owner: [p.detach().clone() for p in owner.parameters(recurse=False)] for _, owner, _ in self._owned()
        }
        before, between, after = self._run_twice(run)
        self.names = [
            name
            for name, owner, _ in self._owned()
            if not _same(before[name], after[name])
            # A layer that sets its weights by the first batch it sees would set them at every point.
            and all(map(_same, weights[owner], owner.parameters(recurse=False)))
        ]
        self._counts = set()
        while True:
            # What is counted relative to a mean grows steadily once the count begins at zero.
            further = {name for name in self.names if _is_count(before[name], between[name], after[name])}
            if further <= self._counts:
                return
            self._counts |= further
            for name in self.names:
                self._write(name, torch.zeros_like(before[name]) if name in self._counts else before[name])
            before, between, after = self._run_twice(run)

    def find_counters(self, growths: Sequence[Mapping[str, Tensor]]) -> None:
        """Tells counters from sums.

        Args:
            growths: what a pass adds to each buffer, at several points.
        """
        first, *others = growths or [{}]
        self._counters = {
            name: first[name]
            for name in self._counts
            if first[name].numel() == 1 and all(torch.equal(first[name], other[name]) for other in others)
        }
        estimating = {self._places[name][0] for name in self.names if name not in self._counters}
        schedules = {name for name in self._counters if self._places[name][0] not in estimating}
        self.names = [name for name in self.names if name not in schedules]
        self._counts -= schedules
        self._counters = {name: added for name, added in self._counters.items() if name not in schedules}

    def growth(self, run: Callable[[], None]) -> dict[str, Tensor]:
        """What a pass in train mode adds to each buffer."""
        before, between, _ = self._run_twice(run)
        return {name: between[name] - before[name] for name in self._counts}

    def adopt(self, other: RunningBuffers) -> None:
        """Estimates what ``other``, over a copy of the same module, estimates, and in its way."""
        self.names, self.recipe, self._counts = list(other.names), other.recipe, set(other._counts)
        self.unknown = list(other.unknown)

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Train mode for the modules that own the estimates, and for no other."""
        owners = {id(owner): owner for owner, _ in (self._places[name] for name in self.names)}
        modes = [(owner, owner.training) for owner in owners.values()]
        for owner, _ in modes:
            owner.training = True
        try:
            yield
        finally:
            for owner, mode in modes:
                owner.training = mode

    def _run_twice(self, run: Callable[[], None]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """The values before, between and after two passes."""
        before = self.values()
        with self.updating():
            run()
            between = self.values()
            run()
        return before, between, self.values()

    def begin(self) -> None:
        """Makes ready for the first pass."""
        self._stored = self.values()
        self._last, self._passed = [self.values()], 0
        if self.recipe.anew:
            self._count_from_zero()

    def passed(self) -> None:
        """Notes where a pass has led, and makes ready for the next."""
        self._last.append(self.values())
        self._passed += 1
        if len(self._last) == 3:
            self._extrapolate()
            self._last = [self.values()]
        if self.recipe.anew and self._passed == self.recipe.passes - 1:
            self._count_from_zero()

    def settle(self) -> None:
        """Moves the estimates to their limit, and leaves counts that belong to training where they were."""
        if not self.recipe.anew:
            for name in self._counts:
                self._write(name, self._stored[name])

    def _count_from_zero(self) -> None:
        for name in self._counts:
            self._write(name, torch.zeros_like(self._stored[name]))

    @torch.no_grad()
    def _extrapolate(self) -> None:
        first, second, third = self._last
        for name in self.names:
            if name not in self._counts and third[name].is_floating_point():
                self._write(name, _limit(first[name], second[name], third[name]))

    def values(self) -> dict[str, Tensor]:
        """Copies of the estimates as they are."""
        return {name: owner._buffers[key].clone() for name, owner, key in self._owned()}  # type: ignore[union-attr]

    def _owned(self) -> Iterator[tuple[str, nn.Module, str]]:
        for name in self.names:
            yield name, *self._places[name]

    def _write(self, name: str, value: Tensor) -> None:
        owner, key = self._places[name]
        owner._buffers[key] = value.clone()


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _is_count(a: Tensor, b: Tensor, c: Tensor) -> bool:
    if not (a.shape == b.shape == c.shape):
        return False
    if not a.is_floating_point():
        return True
    first, second = (b - a).double(), (c - b).double()
    return bool((second - first).norm() <= 1e-4 * first.norm())


def _limit(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    if not (a.shape == b.shape == c.shape):
        return c
    first, second = (b - a).double().flatten(), (c - b).double().flatten()
    if not first.norm() > _STILL * c.double().norm():
        return c
    rate = float(first @ second / (first @ first))
    if not 0.0 < rate < _SLOWEST:
        return c
    return (c.double() + (c - b).double() * rate / (1 - rate)).to(c)
