"""All finders with the options that tests use, and the small surfaces that they search."""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from lightning_landscape import Connection, LossSurface, finders
from lightning_landscape.finders import (
    AutoNEB,
    BezierCurve,
    CurveThenBeads,
    DynamicStringSampling,
    Ladder,
    LinearPath,
    PathFinder,
    PolygonalChain,
    SimplifiedString,
)
from tests.cases.surfaces import Pair, mse

# Options that keep the tests short; a finder that is not named here runs with its own.
OPTIONS: dict[type[PathFinder], dict[str, Any]] = {
    PolygonalChain: {"bends": 3, "max_steps": 300},
    BezierCurve: {"bends": 3, "draws": 4, "max_steps": 300},
    CurveThenBeads: {"shorten": 6},
    AutoNEB: {"steps": 40},
    SimplifiedString: {"max_steps": 100},
    Ladder: {"rungs": [PolygonalChain(max_steps=100), BezierCurve(max_steps=100), DynamicStringSampling()]},
}
FINDERS: list[PathFinder] = [
    kind(**OPTIONS.get(kind, {}))
    for kind in vars(finders).values()
    if inspect.isclass(kind) and issubclass(kind, PathFinder) and not inspect.isabstract(kind)
]
SEARCHERS = [finder for finder in FINDERS if not isinstance(finder, LinearPath)]

LEVEL = 0.25
LEFT, RIGHT = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0])


def class_name(finder: Any) -> str:
    """The id of a case: of a finder, or of a class of finders."""
    return (finder if isinstance(finder, type) else type(finder)).__name__


each_finder = pytest.mark.parametrize("finder", FINDERS, ids=class_name)
each_searcher = pytest.mark.parametrize("finder", SEARCHERS, ids=class_name)


def reseeded(finder: PathFinder, seed: int) -> PathFinder:
    """A copy in which the finder, and each one that it holds, draws from ``seed`` if it draws at all."""
    copied = copy.deepcopy(finder)
    for each in (copied, *getattr(copied, "rungs", ())):
        if hasattr(each, "seed"):
            each.seed = seed
    return copied


def ring(x: Tensor) -> Tensor:
    """E is 0 on the unit circle, and 1 in its centre; shape (2,)."""
    return (x.square().sum() - 1) ** 2


def thick_ring(x: Tensor) -> Tensor:
    """The ring in the first two coordinates, and a bowl in all others; shape (P,)."""
    return ring(x[:2]) + x[2:].square().sum()


def wells(x: Tensor) -> Tensor:
    """Two minima at -1 and 1 on the first axis, with a saddle of 1 between them; shape (P,)."""
    return (x[0].square() - 1) ** 2 + x[1:].square().sum()


def surface_of(energy: Callable[[Tensor], Tensor] = ring, dimension: int = 2) -> LossSurface:
    """E as the loss of a tiny module: theta is its weight."""
    module = nn.Linear(dimension, 1, bias=False)
    return LossSurface(module, [None], lambda module, batch: energy(module.weight[0]), vectorize=False)


def lbfgs(points: Iterable[Tensor]) -> Optimizer:
    return LBFGS(points, lr=0.1, max_iter=4)


def row(found: Connection) -> dict[str, Any]:
    """What two runs of one search must agree in: all but the time."""
    return {key: value for key, value in found.to_dict().items() if key != "seconds"}


def network(seed: int, width: int = 6, *, norm: bool = False) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle = [nn.BatchNorm1d(width)] if norm else []
        return nn.Sequential(nn.Linear(2, width), *middle, nn.Tanh(), nn.Linear(width, 1))


def regression(size: int = 8) -> list[Pair]:
    """Three batches of ``size`` points each, with the tanh of the product of their coordinates as target."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, size, 2, generator=generator)
    return [(part, (part[:, :1] * part[:, 1:]).tanh()) for part in x]


def trained(module: nn.Sequential, batches: list[Pair], steps: int) -> nn.Sequential:
    optimizer = torch.optim.Adam(module.parameters(), 0.02)
    for batch in itertools.islice(itertools.cycle(batches), steps):
        optimizer.zero_grad()
        mse(module, batch).backward()
        optimizer.step()
    return module


def trained_pair(width: int = 6, size: int = 8, steps: int = 60) -> tuple[LossSurface, Tensor, Tensor]:
    """Two networks of one architecture, trained a little from two initialisations, and the surface of their task."""
    batches = regression(size)
    first, second = (
        LossSurface(trained(network(seed, width), batches, steps), batches, mse, vectorize=False) for seed in (1, 2)
    )
    return first, first.point(), second.point()
