"""What every way of finding a path shares: the endpoints, the level, the budget and the final measurement."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_landscape.connection import Connection, Reason, level_above
from lightning_landscape.finders.chain import Chain, Segment
from lightning_landscape.finders.measurement import barred, connection_of, settled
from lightning_landscape.finders.search import Budget, Ledger, Search
from lightning_landscape.finders.shorten import shorten
from lightning_landscape.finders.training import OptimizerFactory
from lightning_landscape.path import Profile
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.work import Progress, WorkSpent

_FINE = 5  # evaluations for each of the search's grid on the line, which the verification of a longer path may take
_PROGRESS = 0.01  # of the excess over the level, which a round must take off where no budget ends the search
_RESERVED = 1 / 3  # of what the line leaves, for that verification at most


class PathFinder(ABC):
    """Searches for a path between two points that stays below a level.

    A subclass implements :meth:`search`; endpoints, level, straight line and the measurement of the result
    are the same for all. A search is anytime: it returns the lowest path it has, whatever ended it.

    Args:
        samples: points per straight-line distance of the endpoints on the grid that a search uses. The
            result is measured at spacing three times finer, and finer still around its largest points.
        shorten: rounds of pulling the found path tight inside the level set; 0 leaves it as found.

    Raises:
        ValueError: for arguments out of range.
    """

    def __init__(self, *, samples: int = 9, shorten: int = 0) -> None:
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        if shorten < 0:
            raise ValueError(f"shorten must be at least 0, got {shorten}")
        self.samples = samples
        self.shorten = shorten

    @abstractmethod
    def search(self, search: Search) -> tuple[Chain, Reason]:
        """Looks for a chain below ``search.level``, starting from ``search.chain``, which rises above it.

        Returns:
            The lowest chain found, sampled, and the reason that applies if it turns out to rise above the level.
            A chain below the level comes refined.
        """

    def describe(self) -> list[Any]:
        """Class and options as JSON, down to the finders it holds: what tells rows of one search from another's.

        An optimiser is described by what its factory makes, class and hyperparameters, any other function or object by
        its name alone.

        Example:
            >>> from lightning_landscape.finders import LinearPath
            >>> LinearPath(samples=5).describe()
            ['LinearPath', {'samples': 5, 'shorten': 0}]
        """
        return [type(self).__name__, _plain_options(vars(self))]

    def connect(
        self,
        surface: LossSurface,
        theta_a: Tensor,
        theta_b: Tensor,
        level: float | None = None,
        *,
        margin: float = 0.0,
        budget: Budget | None = None,
        progress: Progress | None = None,
        known: Profile | None = None,
    ) -> Connection:
        """Searches for a path from ``theta_a`` to ``theta_b`` with ``E <= level``.

        Args:
            surface: the loss surface E.
            theta_a: first endpoint, shape (P,).
            theta_b: second endpoint, shape (P,).
            level: the level u; ``None`` derives it from the endpoints and ``margin``.
            margin: without a level, u = max(E_a, E_b) + margin |max(E_a, E_b)|; unused where a level is given.
            budget: limits of line, search, shortening and verification together; ``None`` is without limit. The
                coarse line is always measured, see :meth:`least_work`.
            progress: called with a description and a fraction while the search runs.
            known: losses along the straight line that are known already, and not measured again.

        Returns:
            The lowest path found with its measurements. ``verdict`` is ``connected`` iff the measured
            height is at most ``level``, and the budget allowed to verify that between the samples (else the reason is
            ``budget``). A level below an endpoint ends as ``not_found`` for the reason
            ``endpoint``, a loss that is not finite at an endpoint for ``diverged``.

        Raises:
            ValueError: if the endpoints do not both have shape (P,), or ``level`` is NaN; without a level, if
                ``margin`` is negative or not finite.
        """
        for name, theta in (("theta_a", theta_a), ("theta_b", theta_b)):
            if theta.shape != (surface.dimension,):
                raise ValueError(
                    f"{name} has shape {tuple(theta.shape)} and the surface has {surface.dimension} parameters: "
                    "both endpoints must come from the architecture of the surface"
                )
        if level is not None and math.isnan(level):
            raise ValueError("level is NaN: give a number, or None for the larger loss of the two endpoints")
        origin = surface.point()
        losses = None if known is None else dict(zip(known.t, known.loss, strict=True))
        line = Segment(theta_a.detach().to(origin), theta_b.detach().to(origin), losses)
        budget = budget or Budget()
        straight = Chain([line], line.length, self.samples)
        line.refined = line.finished = known is not None and straight.fine
        ledger = Ledger(surface, budget)
        straight.glance(surface)
        loss_a, loss_b = line.losses[0.0], line.losses[1.0]
        if level is None:
            level = level_above([loss_a, loss_b], margin)
        chain, thorough = straight, budget.work is None
        reason = barred(loss_a, loss_b, level)
        with ledger.capped():
            if reason is None:
                reason = Reason.DEPTH if settled(surface, straight, level, thorough) else Reason.BUDGET
                if not line.height <= level:
                    search = Search(surface, level, ledger, line, straight, progress or _quiet)
                    found, reason = self._found(search, thorough)
                    chain = _lower(surface, straight, found, thorough)
        return connection_of(chain, line, level, reason, ledger)

    def least_work(self, surface: LossSurface) -> float:
        """What :meth:`connect` spends whatever its budget, in training steps: the straight line on a coarse grid.

        Args:
            surface: the loss surface on which it would be called.
        """
        line = Segment(surface.point(), surface.point())
        return len(Chain([line], 0.0, self.samples).coarse(line)) * surface.evaluation_passes / 3

    def _found(self, search: Search, thorough: bool) -> tuple[Chain, Reason]:
        """What rounds of searching find, each from the lowest chain so far, verified and shortened within the budget.

        Limits of steps, which double from round to round, and rules for what is stuck share out a budget, and do not
        end a search. Without a budget it ends with the first round that takes less than a hundredth off the excess over
        the level: after finitely many, for what is left shrinks to nothing.
        """
        surface, level, ledger = search.surface, search.level, search.ledger
        grid = _FINE * (self.samples + 1) * surface.evaluation_passes / 3
        ledger.reserve(min(grid, _RESERVED * ledger.remaining))
        best, reason = search.chain, Reason.DEPTH
        for number in itertools.count():
            before, spent = best.height, ledger.spent.total
            try:
                found, reason = self.search(replace(search, chain=best, round=number))
            except WorkSpent:
                found, reason = search.lowest, Reason.BUDGET
            best = best.lower(found)
            if best.height <= level:
                if not settled(surface, best, level):
                    return best, Reason.BUDGET
                best = self._pulled_tight(search, best, thorough)
            progress = before - best.height > _PROGRESS * (before - level)
            if (
                best.height <= level
                or reason in (Reason.BUDGET, Reason.DIVERGED)
                or ledger.spent.total == spent
                or (math.isinf(ledger.remaining) and not progress)
            ):
                break
            if ledger.remaining <= 0:
                reason = Reason.BUDGET
                break
        settled(surface, best, level)
        return best, reason

    def _pulled_tight(self, search: Search, chain: Chain, thorough: bool) -> Chain:
        """A chain below the level, shortened and measured as finely as it will be; as it was, if that shows a peak."""
        tighter = chain
        with suppress(WorkSpent):
            tighter = shorten(search, chain, self.shorten)
        for candidate in (tighter, chain):
            if thorough:
                candidate.finish(search.surface, search.level)
            with suppress(WorkSpent):
                candidate.revisit(search.surface, search.line, search.level)
            if candidate.height <= search.level:
                return candidate
        return chain


def _plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _made_by(value) if name == "optimizer" and callable(value) else _plain(value)
        for name, value in options.items()
    }


def _plain(option: Any) -> Any:
    if option is None or isinstance(option, bool | int | float | str):
        return option
    if isinstance(option, PathFinder):
        return option.describe()
    if is_dataclass(option) and not isinstance(option, type):
        return _plain_options({field.name: getattr(option, field.name) for field in fields(option)})
    if isinstance(option, Mapping):
        return _plain_options(option)
    if isinstance(option, list | tuple):
        return [_plain(value) for value in option]
    if isinstance(option, Tensor | np.ndarray | np.generic):
        return option.tolist()
    return getattr(option, "__qualname__", type(option).__qualname__)


def _made_by(factory: OptimizerFactory) -> list[Any]:
    # A factory is most often a lambda, which does not show its learning rate.
    optimizer = factory([torch.zeros(1, 1, requires_grad=True)])
    groups = [_plain_options({**group, "params": None}) for group in optimizer.param_groups]
    return [type(optimizer).__name__, groups]


def _lower(surface: LossSurface, first: Chain, second: Chain, thorough: bool) -> Chain:
    """The lower chain, in the end measured finer everywhere, if ``thorough``, as the other is as soon as it counts."""
    lower = min(first, second, key=_height)
    if not thorough:
        return lower
    lower.finish(surface)
    again = min(first, second, key=_height)
    again.finish(surface)
    return min(first, second, key=_height)


def _height(chain: Chain) -> float:
    return math.inf if math.isnan(chain.height) else chain.height


def _quiet(description: str, fraction: float) -> None:
    pass
