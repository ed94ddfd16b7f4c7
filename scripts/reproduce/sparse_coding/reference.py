"""What networks are compared with: the optima of the test signals, and ISTA and FISTA on them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from lightning_landscape.datamodules import SparseCodingDataModule
from lightning_landscape.metrics.iterations_equivalent import ROUNDING
from lightning_landscape.sparse_coding import (
    SparseCodingBatch,
    cost_curve,
    fista_iterates,
    ista_iterates,
)
from scripts.reproduce.shared.kept import KeptError, described, once, read

_DATA = ("dataset", "seed", "lam", "sparsity", "sizes")  # what the test signals depend on
_SOLVERS = {"ista": ista_iterates, "fista": fista_iterates}


@dataclass(frozen=True)
class Reference:
    """Means over the test signals of a data set.

    Attributes:
        seed: of the data.
        optimum: of F*.
        gap: the largest relative duality gap of the optima.
        ista: of F after 0, 1, ... iterations of ISTA.
        fista: of F after 0, 1, ... iterations of FISTA.
    """

    seed: int
    optimum: float
    gap: float
    ista: list[float]
    fista: list[float]

    def iterations(self, solver: str, objective: float) -> int | None:
        """The smallest number of iterations with a mean F of at most ``objective``; ``None`` if too few were run.

        Up to rounding, as :class:`~lightning_landscape.metrics.IterationsEquivalent` has it.

        Example:
            >>> Reference(0, 0.0, 0.0, ista=[4.0, 2.0, 1.0], fista=[4.0, 1.0, 0.5]).iterations("ista", 1.5)
            2
        """
        curve: list[float] = getattr(self, solver)
        return next((count for count, value in enumerate(curve) if value <= (1 + ROUNDING) * objective), None)


@cache
def signals(data: SparseCodingDataModule) -> SparseCodingBatch:
    """All test signals in one batch, with their optima."""
    data.prepare_data()
    data.setup("test")
    batches = [*data.test_dataloader()]
    return SparseCodingBatch(
        *(None if parts[0] is None else torch.cat(parts) for parts in zip(*batches, strict=True))  # type: ignore[arg-type]
    )


def reference_of(data: SparseCodingDataModule, num_iterations: int, out: Path) -> Reference:
    """The reference of a data set, from ``out`` or computed and kept there.

    Raises:
        KeptError: if what ``out`` holds is of another seed or number of iterations, or damaged.
    """
    own = {name: value for name, value in vars(data).items() if name in _DATA}
    settings = {"iterations": num_iterations, **described(own)}
    return Reference(**once(_file(data.dataset, out), settings, lambda: asdict(_computed(data, num_iterations))))


def _computed(data: SparseCodingDataModule, num_iterations: int) -> Reference:
    batch = signals(data)
    assert batch.optimum is not None
    assert batch.solution is not None
    problem = data.problem.to(torch.float64)
    return Reference(
        seed=data.seed,
        optimum=float(batch.optimum.mean()),
        gap=float(problem.relative_gap(batch.x.double(), batch.solution).max()),
        **{
            name: cost_curve(problem, batch.x, solver, num_iterations).mean(dim=0).tolist()
            for name, solver in _SOLVERS.items()
        },
    )


def kept_reference(dataset: str, out: Path) -> Reference:
    """The reference that ``out`` holds.

    Raises:
        KeptError: if it is not there or damaged.
    """
    try:
        return Reference(**read(_file(dataset, out))[1])
    except FileNotFoundError:
        raise KeptError(f"{_file(dataset, out)} is missing: run `train --dataset {dataset}` first") from None


def _file(dataset: str, out: Path) -> Path:
    return out / f"{dataset}-reference.json"
