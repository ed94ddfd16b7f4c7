"""A curve trained where its loss is high, and beads where that does not suffice: the default search."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from lightning_landscape.connection import Reason
from lightning_landscape.finders.base import PathFinder
from lightning_landscape.finders.bezier import BezierCurve
from lightning_landscape.finders.chain import Chain
from lightning_landscape.finders.curve_looks import CurveLooks
from lightning_landscape.finders.loss_profile import LossProfile
from lightning_landscape.finders.search import Search
from lightning_landscape.finders.string_sampling import DynamicStringSampling
from lightning_landscape.finders.tempered_adam import relative_tempered_adam
from lightning_landscape.finders.training import OptimizerFactory, averaging_weight, descend

_JITTER = 1e-3  # first displacement of a bend, as a share of the distance of the ends
_FIRST = 50  # steps before the first look, and the least that a curve goes on without progress
_IMPROVEMENT = 0.99  # a look shows progress when the height is below this share of the lowest so far
_WAIT = 1 / 3  # this share of the steps so far may pass without progress
_DECAY = 0.3
_DECAYS = 1  # falls of the learning rate before a curve gives up


class CurveThenBeads(PathFinder):
    """Trains a Bezier curve where its loss is high, then beads on what still rises, in rounds until the budget ends.

    The bends of the curve descend the loss of one training batch at one point t a step (Garipov et al. 2018). Where t
    is drawn uniformly most steps are spent where the curve lies low already. Here a running mean of the losses met is
    kept in 20 bins of [0, 1], and t is drawn in proportion to it four times out of five. The learning rate stays as it
    is, and what counts is a running average of the bends, so that a larger budget goes on where a smaller one ended.

    The path is a polyline along the averaged curve. It is looked at where it was highest, and beyond that only once
    that has come below the level. When the mean loss of the curve no longer falls, Dynamic String Sampling puts beads
    on what still rises above the level. Where these fail too, a new round begins with a curve through the lowest path
    so far: with one bend more, and twice as long before it is called stuck.

    Args:
        bends: movable bends of the curve in the first round, at least 1.
        pieces: straight segments of the polyline, at least 2.
        optimizer: makes the optimiser of the bends, a tensor (n, P), any of torch's. None is
            :class:`~lightning_landscape.finders.tempered_adam.TemperedAdam` with a step of 0.04 times the root mean
            square coordinate difference of the endpoints.
        samples: points per straight-line distance of the endpoints on the grid that a search uses. The result is
            measured at a spacing three times finer, and finer still around its largest points.
        shorten: rounds of pulling the found path tight inside the level set; 0 leaves it as found.
        seed: of the random numbers of the search: the points on the curve, and the small first displacement of the
            bends off symmetric saddles.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> from lightning_landscape import LossSurface
        >>> ring = torch.nn.Linear(2, 1, bias=False)  # minima on the unit circle, a hill in the middle
        >>> surface = LossSurface(ring, [None], loss_fn=lambda module, batch: (module.weight.norm() - 1) ** 2)
        >>> found = CurveThenBeads().connect(
        ...     surface, torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0]), level=0.1)
        >>> str(found.verdict), 1.0 < found.normalized_length < 1.6
        ('connected', True)
    """

    def __init__(
        self,
        bends: int = 3,
        *,
        pieces: int = 8,
        optimizer: OptimizerFactory | None = None,
        samples: int = 9,
        shorten: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(samples=samples, shorten=shorten)
        for name, value, least in (("bends", bends, 1), ("pieces", pieces, 2)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.bends = bends
        self.pieces = pieces
        self.optimizer = optimizer
        self.seed = seed

    def search(self, search: Search) -> tuple[Chain, Reason]:
        """Trains the curve, then beads on what rises of it."""
        found, reason = _Curve(search, self).descend()
        best = search.chain.lower(found)
        if best.height <= search.level or reason in (Reason.BUDGET, Reason.DIVERGED):
            return best, reason
        beads = DynamicStringSampling(seed=self.seed, shorten=0)
        found, reason = beads.search(replace(search, chain=found))
        return best.lower(found), reason


class _Curve:
    """The curve of one round of a search."""

    def __init__(self, search: Search, finder: CurveThenBeads) -> None:
        surface = search.surface
        generator = search.generator(finder.seed)
        self._search = search
        self._shape = BezierCurve(finder.bends + search.round)
        self._controls = self._shape.through(search.chain)
        self._bends = self._controls[1:-1]  # a view: the curve moves with its bends
        scale = _JITTER * search.line.length / math.sqrt(surface.dimension)
        self._bends += scale * torch.randn(self._bends.shape, generator=generator).to(self._bends)
        factory = finder.optimizer or relative_tempered_adam(search.line.length, surface.dimension)
        self._optimizer = factory([self._bends])
        self._mean = self._bends.clone()
        self._profile = LossProfile(generator)
        self._stream = surface.training_stream()
        knots = torch.linspace(0, 1, finder.pieces + 1, dtype=torch.float64)[1:-1]
        self._corners = self._shape.coefficients(knots).to(self._controls)
        self._looks = CurveLooks(search, self._profile)
        self._steps = self._averaged = 0
        self._lowest, self._progress, self._decays = math.inf, 0, 0
        self._next = _FIRST

    def descend(self) -> tuple[Chain, Reason]:
        """Trains until the polyline lies below the level, the mean loss no longer falls, or the budget ends.

        Returns:
            The polyline, sampled, and why it is the last one.
        """
        search = self._search
        while search.ledger.remaining >= 1 + self._looks.price:
            if not self._step():
                return search.lowest, Reason.DIVERGED
            if self._steps >= self._next:
                excess = self._looks.excess(self._polyline())
                search.progress(f"curve: step {self._steps}, height {self._looks.height:.4g}", self._share())
                if excess is None:
                    return self._whole(), Reason.DEPTH
                self._next = math.ceil(self._steps * excess)
                if self._stuck():
                    return self._whole(), Reason.BEAD
        return (self._whole() if self._steps else search.chain), Reason.BUDGET

    def _stuck(self) -> bool:
        """Takes note of a look; whether the curve makes no progress, though its learning rate has fallen."""
        if self._looks.height < self._lowest - (1 - _IMPROVEMENT) * abs(self._lowest) or not self._progress:
            self._lowest, self._progress = self._looks.height, self._steps
        if self._steps - self._progress < max(self._search.patience * _FIRST, _WAIT * self._steps):
            return False
        self._decays += 1
        for group in self._optimizer.param_groups:
            group["lr"] *= _DECAY
        self._bends.copy_(self._mean)
        self._averaged, self._progress = 0, self._steps
        return self._decays > _DECAYS

    def _share(self) -> float:
        left = self._search.ledger.remaining
        return 0.0 if math.isinf(left) else min(1.0, self._steps / (self._steps + left))

    def _step(self) -> bool:
        """Moves the bends by one batch at one point; whether loss and bends are finite."""
        t = self._profile.draw()
        weights = self._shape.coefficients(t).to(self._controls)
        batch = next(self._stream)

        def evaluate() -> tuple[Tensor, Tensor, Tensor]:
            losses, gradients = self._search.surface.gradients(weights @ self._controls, batch)
            return losses, losses.mean(), weights[:, 1:-1].T @ gradients

        losses = descend(self._optimizer, evaluate)
        self._steps += 1
        self._profile.note(float(t), float(losses[0]))
        self._averaged += 1
        self._mean.lerp_(self._bends, averaging_weight(self._averaged))
        return bool(losses.isfinite().all() and self._bends.isfinite().all())

    def _polyline(self) -> Tensor:
        return self._corners @ torch.cat([self._controls[:1], self._mean, self._controls[-1:]])

    def _whole(self) -> Chain:
        return self._looks.whole(self._polyline())
