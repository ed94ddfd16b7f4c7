"""The certificate of a trained FacNet: what its bound grants each layer, and where the random-design condition ends."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_landscape.models import UnrolledSparseCoder
from lightning_landscape.report.style import LEVEL, LINEAR, PATH
from lightning_landscape.sparse_coding import (
    SparseCodingBatch,
    check_factorization,
    ista_iterates,
    least_scale,
    random_design,
    step_bound,
)
from scripts.reproduce.shared import pages

Layer = dict[str, Any]
_VALUES = ("bound", "ista_bound", "suboptimality", "improves")


@torch.no_grad()
def layers_of(network: UnrolledSparseCoder, batch: SparseCodingBatch) -> list[Layer]:
    """A row for each layer: whether it is valid as trained, and its bound with S raised until it is."""
    assert batch.solution is not None
    problem, rows = network.problem, []
    for number, (z, layer) in enumerate(zip(network.iterates(batch.x), network.layers, strict=False), start=1):
        A, S = layer.A.detach().double(), layer.S.detach().double()  # type: ignore[union-attr, operator]
        found = check_factorization(problem, A, S)
        scale = least_scale(problem, A, S)
        step = step_bound(problem, batch.x, z, batch.solution, A, scale * S)
        row = {
            "layer": number,
            "valid": found.valid,
            "eigenvalue": found.smallest_eigenvalue / found.lipschitz,
            "scale": scale,
            "least_slack": float((step.bound - step.suboptimality).min()),
        }
        rows.append(row | {name: float(getattr(step, name).double().mean()) for name in _VALUES})
    return rows


@torch.no_grad()
def designs(network: UnrolledSparseCoder, batch: SparseCodingBatch, iterations: int) -> dict[str, list[float]]:
    """The share of signals for which the random-design condition holds at z_0, z_1, ... of FacNet and of ISTA."""
    assert batch.solution is not None
    problem = network.problem.to(torch.float64)
    ista = [*islice(ista_iterates(problem, batch.x.double()), iterations + 1)]
    paths = {"FacNet": network.iterates(batch.x), "ISTA": ista}
    return {
        name: random_design(problem, codes, batch.solution).holds.double().mean(dim=1).tolist()
        for name, codes in paths.items()
    }


def first_failures(network: UnrolledSparseCoder, batch: SparseCodingBatch) -> list[int]:
    """How many signals fail the random-design condition first at z_0, z_1, ..., and, last, never."""
    assert batch.solution is not None
    with torch.no_grad():
        codes = network.iterates(batch.x)
    first = random_design(network.problem, codes, batch.solution).first_failure
    counts: list[int] = first.bincount(minlength=len(codes) + 1).tolist()
    return counts


def table(rows: Sequence[Layer]) -> str:
    """Markdown: a layer a row."""
    header = [
        "layer", "valid as trained", "smallest eigenvalue of R / L", "S raised by", "F - F* after its step", "bound",
        "bound of ISTA", "points with a better bound",
    ]  # fmt: skip
    lines = []
    for row in rows:
        cells = [
            f"{row['layer']}",
            "yes" if row["valid"] else "no",
            f"{row['eigenvalue']:.3f}",
            f"{row['scale']:.2f}",
            f"{row['suboptimality']:.3g}",
            f"{row['bound']:.3g}",
            f"{row['ista_bound']:.3g}",
            f"{100 * row['improves']:.0f} %",
        ]
        lines.append(cells)
    return pages.table(header, lines)


def figure(rows: Sequence[Layer], shares: dict[str, list[float]]) -> Figure:
    """Bounds beside what they bound; the share of points with a better bound; the random-design condition."""
    drawn = Figure(figsize=(14, 4.6), layout="constrained")
    FigureCanvasAgg(drawn)
    bounds, improved, design = drawn.subplots(1, 3)
    numbers = [row["layer"] for row in rows]
    for name, label, color, marker in (
        ("ista_bound", "bound of a step of ISTA", LINEAR, "s"),
        ("bound", "bound of the layer", PATH, "o"),
        ("suboptimality", "F - F* after its step", LEVEL, "."),
    ):
        bounds.plot(numbers, [row[name] for row in rows], color=color, marker=marker, label=label, linewidth=1.8)
    bounds.set_yscale("log")
    bounds.set_ylabel("mean over the test points")
    bounds.legend(fontsize=10)
    improved.bar(numbers, [row["improves"] for row in rows], color=PATH)
    improved.set_ylim(0, 1)
    improved.set_ylabel("test points with a better bound")
    for axes in (bounds, improved):
        axes.set_xticks(numbers)
        axes.set_xlabel("layer (S raised until it is valid)")
    for (name, values), color, marker in zip(shares.items(), (PATH, LINEAR), ("o", None), strict=True):
        design.plot(range(len(values)), values, color=color, marker=marker, markersize=4, label=name, linewidth=1.8)
    design.set_ylim(-0.03, 1.05)
    design.set_xlabel("iterate k")
    design.set_ylabel("test points, random-design condition met")
    design.legend(fontsize=10)
    return drawn
