"""The figures of docs/theory.md, from the measurements of pairs.py and sweep.py.

python -m scripts.theory.figures docs/results docs/images
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_landscape import LossSurface
from lightning_landscape.models import DeepLinearNetwork, PolynomialNetwork, QuadraticNetwork, ReLUNetwork
from lightning_landscape.report.style import LEVEL, LINEAR, PATH, STYLE, save_figure
from lightning_landscape.theory import (
    counterexample,
    deep_linear,
    intrinsic_dimension,
    measure_bound,
    multilinear,
    quadratic,
)
from lightning_landscape.theory.symmetries import canonical_units, permute_and_rescale

FOUND = "#009E73"
WIDTHS = (2, 5, 1)  # of the counterexample that is drawn


def canvas(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def profiles(measured: dict[str, Any]) -> Figure:
    """E along the straight line, the theorem's path and the one of Dynamic String Sampling, for each trained pair."""
    figure, axes = canvas(2, 3, (11.0, 6.4))
    for axis, row in zip(axes.flat, measured["pairs"], strict=True):
        found = row["searches"][0]
        for profile, label, color in (
            (row["linear_profile"], "straight line", LINEAR),
            (found["profile"], "Dynamic String Sampling", FOUND),
            (row["profile"], "the theorem's path", PATH),
        ):
            axis.plot(profile["t"], profile["loss"], color=color, label=label, linewidth=2)
        axis.axhline(max(row["loss_a"], row["loss_b"]), color=LEVEL, linestyle="--", linewidth=1.4, label="level")
        axis.set_yscale("log")
        axis.set_title(row["network"], loc="left", fontsize=11)
        axis.set_xlabel("t")
        axis.set_ylabel("E")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=10)
    return figure


def sweep(measured: dict[str, Any]) -> Figure:
    """The mean excess over the width, for n = 2 and 3, beside the slope of the bound."""
    figure, axes = canvas(1, 2, (9.6, 4.2))
    fits = {row["inputs"]: row for row in measured["exponents"]}
    for axis, excess, title in zip(
        axes.flat, ("rise", "gap"), ("rise above max(E_a, E_b), then below 1e-5", "gap above the least E"), strict=True
    ):
        for inputs, color in ((2, PATH), (3, LINEAR)):
            rows = [row for row in measured["rows"] if row["inputs"] == inputs]
            widths = np.array(sorted({row["width"] for row in rows}))
            means = np.array([np.mean([row[excess] for row in rows if row["width"] == width]) for width in widths])
            kept = means > measured["floor"]
            slope = fits[inputs][excess]
            axis.loglog(widths[kept], means[kept], "o-", color=color, label=f"n = {inputs}: slope {slope:.2f}")
            bound = means[kept][0] * (widths / widths[kept][0]) ** (-1 / inputs)
            axis.loglog(widths, bound, ":", color=color, linewidth=1.6, label=f"slope of the bound, {-1 / inputs:.2f}")
        axis.set_title(title, loc="left", fontsize=12)
        axis.set_xlabel("m, hidden units")
        axis.set_ylabel("mean excess")
        axis.set_xticks([4, 8, 16, 32, 64], labels=["4", "8", "16", "32", "64"])
        axis.minorticks_off()
        axis.legend(fontsize=9)
    return figure


def control(measured: dict[str, Any]) -> Figure:
    """Left: the data that need every kink. Right: E along what each finder returns, and the separating height."""
    figure, axes = canvas(1, 2, (10.4, 4.4))
    example = counterexample(WIDTHS)
    x, y = example.batch
    grid = torch.linspace(float(x[0, 0]), float(x[-1, 0]), 500, dtype=torch.float64)
    line = torch.zeros(len(grid), WIDTHS[0], dtype=torch.float64)
    line[:, 0], line[:, 1] = grid, 1.0
    left: Axes = axes[0, 0]
    left.plot(grid, example.module(line).detach()[:, 0], color=PATH, label="theta_a and theta_b")
    left.plot(x[:, 0], y[:, 0], "o", color=LEVEL, markersize=5, label="data")
    for unit in range(WIDTHS[1]):
        left.annotate(f"{unit + 1}", (unit + 1, -0.28), ha="center", fontsize=9, color=LINEAR)
    left.set_ylim(-0.45, None)
    left.set_xlabel("s, for the input (s, 1); below: the kink of each unit")
    left.set_ylabel("y")
    left.set_title("-".join(map(str, WIDTHS)) + ": every unit is needed in its place", loc="left", fontsize=12)
    left.legend(fontsize=9)
    right: Axes = axes[0, 1]
    row = next(row for row in measured["controls"] if tuple(row["widths"]) == WIDTHS)
    for found in row["searches"]:
        right.plot(found["profile"]["t"], found["profile"]["loss"], linewidth=1.6, label=found["finder"])
    right.axhline(row["separating_height"], color=LEVEL, linestyle="--", linewidth=1.6, label="separating height")
    right.set_yscale("log")
    right.set_ylim(row["separating_height"] / 30, None)
    right.set_xlabel("t")
    right.set_ylabel("E")
    right.set_title("no finder gets through below it", loc="left", fontsize=12)
    right.legend(fontsize=7, ncols=2, loc="lower center")
    return figure


def descents() -> Figure:
    """E along descent paths, as a share of the way to the minimum: from an all-zero saddle and from random weights."""
    figure, axes = canvas(1, 1, (7.4, 4.2))
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(40, size, generator=generator, dtype=torch.float64) for size in (3, 2))
    cases = (
        ("deep linear 3-4-4-2", DeepLinearNetwork(3, 2, [4, 4]), deep_linear, 1.0),
        ("linear 3-1-2, narrow", DeepLinearNetwork(3, 2, [1]), multilinear, 1.0),
        ("linear 3-1-2, from all zeros", DeepLinearNetwork(3, 2, [1]), multilinear, 0.0),
        ("quadratic 3-27-2", QuadraticNetwork(3, 27, 2), quadratic, 0.2),
        ("z^2 + z/2, 3-18-2", PolynomialNetwork(3, 18, 2, [1.0, 0.5, 0.0]), intrinsic_dimension, 0.2),
    )
    for label, module, theorem, scale in cases:
        size = sum(parameter.numel() for parameter in module.parameters())
        theta = scale * torch.randn(size, generator=generator, dtype=torch.float64)
        bound = measure_bound(module, theorem.descent_path(module, theta, (x, y)), (x, y))
        losses = np.array(bound.profile.loss)
        share = (losses - losses[-1]) / (losses[0] - losses[-1])
        axes[0, 0].plot(bound.profile.t, share, label=label, linewidth=2)
    axes[0, 0].set_xlabel("t")
    axes[0, 0].set_ylabel("(E - minimum) / (E at the start - minimum)")
    axes[0, 0].legend(fontsize=9)
    return figure


def symmetries() -> Figure:
    """E on the straight line from a network to a moved copy of itself, before and after both are made canonical."""
    figure, axes = canvas(1, 1, (7.0, 4.0))
    generator = torch.Generator().manual_seed(0)
    module = ReLUNetwork((3, 6, 4, 1)).double()
    theta = torch.randn(46, generator=generator, dtype=torch.float64)
    torch.nn.utils.vector_to_parameters(theta, module.parameters())
    x = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    surface = LossSurface(module, [(x, module(x).detach())])
    orders = [torch.randperm(width, generator=generator) for width in (6, 4)]
    scales = [torch.randn(width, generator=generator, dtype=torch.float64).exp() for width in (6, 4)]
    rescaled = permute_and_rescale(module, theta, [torch.arange(6), torch.arange(4)], scales)
    moved = permute_and_rescale(module, theta, orders, scales)
    t = torch.linspace(0, 1, 201, dtype=torch.float64)[:, None]
    for label, end, color in (("rescaled", rescaled, LINEAR), ("permuted and rescaled", moved, LEVEL)):
        axes[0, 0].plot(t, surface.losses(torch.lerp(theta, end, t)), label=label, color=color)
    ends = canonical_units(module, theta), canonical_units(module, moved)
    losses = surface.losses(torch.lerp(*ends, t))
    axes[0, 0].plot(t, losses, label="canonical representatives of both", color=PATH)
    axes[0, 0].set_ylim(-1, 26)
    axes[0, 0].set_xlabel("t on the straight line from theta to its copy")
    axes[0, 0].set_ylabel("E")
    axes[0, 0].legend(fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("images", type=Path)
    arguments = parser.parse_args()
    pairs, widths = (json.loads((arguments.results / f"theory_{name}.json").read_text()) for name in ("pairs", "sweep"))
    with style.context(STYLE):
        figures = {
            "profiles": profiles(pairs),
            "sweep": sweep(widths),
            "counterexample": control(pairs),
            "descents": descents(),
            "symmetries": symmetries(),
        }
        for name, figure in figures.items():
            save_figure(figure, arguments.images / f"theory-{name}.png")


if __name__ == "__main__":
    main()
