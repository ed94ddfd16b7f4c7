"""Averages of points on a loss surface, and which of them is worth having."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor

from lightning_landscape.alignment.rescaling import repair_mean, weighted_mean
from lightning_landscape.averaging.advice import Advice, advice
from lightning_landscape.path import Path
from lightning_landscape.surface import LossSurface

Method = Literal["best", "uniform", "greedy", "path"]
_PLACES = tuple(place / 10 for place in range(1, 10))  # on a path, ends left out


@dataclass(frozen=True)
class Candidate:
    """An average, or a point between two.

    Attributes:
        method: ``uniform``, ``greedy`` or ``path``.
        theta: the point, shape (P,).
        weights: of each of the points; empty for a point of a path.
        t: place on the path by arc length, ``None`` for an average.
        loss: E(theta).
        score: what it was chosen by, the smaller the better.
    """

    method: str
    theta: Tensor = field(repr=False, compare=False)
    weights: tuple[float, ...]
    t: float | None
    loss: float
    score: float

    @property
    def members(self) -> list[int]:
        """Numbers of the points with a weight."""
        return [number for number, weight in enumerate(self.weights) if weight > 0]

    @property
    def mixes(self) -> bool:
        """Whether it is more than one of the points as it is."""
        return self.t is not None or len(self.members) > 1


@dataclass(frozen=True)
class Average:
    """What :func:`average` found.

    Attributes:
        losses: E at each of the points.
        scores: the score of each of the points.
        uniform: the plain mean of all points.
        chosen: the average that the method gives.
        advice: whether ``chosen`` is worth having, by its score and those of the points.
    """

    losses: tuple[float, ...]
    scores: tuple[float, ...]
    uniform: Candidate
    chosen: Candidate
    advice: Advice

    @property
    def theta(self) -> Tensor:
        """The chosen point, shape (P,)."""
        return self.chosen.theta


def average(
    surface: LossSurface,
    points: Sequence[Tensor],
    method: Method = "best",
    *,
    path: Path | None = None,
    score: Callable[[Tensor], float] | None = None,
    scores: Sequence[float] | None = None,
    repair: bool = False,
) -> Average:
    """An average of models, and whether it is worth having.

    - ``uniform``: the mean of all points, ``(1/k) sum_i theta_i``.
    - ``greedy``: the points in the order of their scores, each kept if the mean's score does not rise by it.
    - ``path``: the best of nine points of ``path``, at equal steps of arc length, ends left out.
    - ``best``: of all these that can be made, and mix at least two points, the one with the smallest score.

    ``surface.state(chosen.theta)`` is the model: its batch norm statistics are estimated anew on the surface's batches,
    those of the ends would fit none of the points between.

    Args:
        surface: the loss surface. E is what scores are where no others are given.
        points: at least two models, (P,) each, as :meth:`LossSurface.point` gives them; models that differ in the
            order of hidden units go through :func:`~lightning_landscape.alignment.permuted.permuted_copies` first.
        method: which average.
        path: for ``path``: from one of the points to another, below a level for example.
        score: of a point, the smaller the better, such as the loss on held-out data. A score that is no finite number
            is the worst. Default: E, which does not see overfitting.
        scores: those of the points, where they are known already. Models as they are saved may have batch norm
            statistics of their own.
        repair: give the hidden units of every mean the mean and spread they have at its points (REPAIR).

    Raises:
        ValueError: for fewer than two points, a method that there is not, and ``path`` without a path; with ``repair``
            as :func:`~lightning_landscape.alignment.repair` does.

    Source: Wortsman et al. (2022), "Model soups", arXiv 2203.05482, recipe 1 (greedy); Garipov et al. (2018),
    arXiv 1802.10026 (points of a path).

    Example:
        >>> import torch
        >>> valley = torch.nn.Linear(1, 2, bias=False)
        >>> surface = LossSurface(valley, [None], loss_fn=lambda m, _: (m.weight[0] - m.weight[1] ** 2).square().sum())
        >>> near, far, off = (torch.tensor(point) for point in ([1.0, 1.1], [1.0, 0.9], [9.0, 0.0]))
        >>> found = average(surface, [near, far, off])
        >>> found.chosen.method, found.chosen.members, str(found.advice)
        ('greedy', [0, 1], 'average')
    """
    if len(points) < 2:
        raise ValueError(f"an average needs at least two points, got {len(points)}")
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    if method == "path" and path is None:
        raise ValueError("method='path' needs path=, that of a finder's connect(surface, theta_a, theta_b)")
    rate = score or surface.loss
    origin = surface.point()
    points = [point.detach().to(origin) for point in points]
    losses = tuple(float(surface.loss(point)) for point in points)
    own = tuple(scores) if scores is not None else losses if score is None else tuple(map(rate, points))
    if len(own) != len(points):
        raise ValueError(f"scores must be one for each of the {len(points)} points, got {len(own)}")

    def mean(kind: str, members: Sequence[int]) -> Candidate:
        weights = tuple(1 / len(members) if number in members else 0.0 for number in range(len(points)))
        inside = [points[number] for number in members]
        if len(inside) == 1:
            return Candidate(kind, inside[0], weights, None, losses[members[0]], own[members[0]])
        shares = [1 / len(inside)] * len(inside)
        mended = repair and all(bool(point.isfinite().all()) for point in inside)
        theta = (
            repair_mean(surface.module, inside, shares, surface.batches) if mended else weighted_mean(inside, shares)
        )
        return Candidate(kind, theta, weights, None, surface.loss(theta), rate(theta))

    uniform = mean("uniform", range(len(points)))
    candidates = [uniform]
    # Of two points the greedy average is the uniform one, or one of the two alone.
    if method == "greedy" or (method == "best" and len(points) > 2):
        candidates.append(_greedy(mean, own))
    if path is not None and method in ("path", "best"):
        candidates.append(_along(path, surface, rate))
    if method == "best":
        chosen = min((candidate for candidate in candidates if candidate.mixes), key=lambda c: _rank(c.score))
    else:
        chosen = next(candidate for candidate in candidates if candidate.method == method)
    if not chosen.mixes:
        return Average(losses, own, uniform, chosen, Advice.BEST_ALONE)
    # What a greedy average leaves out says nothing about it; the best point it never leaves out.
    compared = [own[number] for number in chosen.members] or own
    return Average(losses, own, uniform, chosen, advice(chosen.score, compared))


def _greedy(mean: Callable[[str, Sequence[int]], Candidate], scores: Sequence[float]) -> Candidate:
    first, *others = sorted(range(len(scores)), key=lambda number: _rank(scores[number]))
    members = [first]
    best = mean("greedy", members)
    for number in others:
        if not math.isfinite(scores[number]):
            break  # and so are all that follow
        tried = mean("greedy", sorted([*members, number]))
        if _rank(tried.score) <= _rank(best.score):
            members, best = [*members, number], tried
    return best


def _along(path: Path, surface: LossSurface, rate: Callable[[Tensor], float]) -> Candidate:
    rated = ((rate(theta := path(place)), place, theta) for place in _PLACES)
    score, place, theta = min(rated, key=lambda found: _rank(found[0]))
    return Candidate("path", theta, (), place, surface.loss(theta), score)


def _rank(score: float) -> float:
    return score if math.isfinite(score) else math.inf
