"""The contour figure of a slice, with a path drawn on it."""

from __future__ import annotations

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lightning_landscape.path import Path, distance
from lightning_landscape.report.style import LINEAR, LOG_DECADES, STYLE
from lightning_landscape.surface.slices import Slice

_CEILING = 0.9  # share of the grid below the end of the colour scale, so that cliffs do not take all of it


def slice_figure(
    surface_slice: Slice, path: Path | None = None, level: float | None = None, title: str | None = None
) -> Figure:
    """Draws E on a plane as filled contours, the level set's boundary, and a path projected onto the plane.

    Args:
        surface_slice: the values.
        path: drawn by its orthogonal projection; the caption says how far it leaves the plane.
        level: the level u, whose contour is drawn bold.
        title: above the figure.

    Returns:
        A figure for :func:`~lightning_landscape.report.style.save_figure`.
    """
    x, y, losses = (part.numpy() for part in (surface_slice.x, surface_slice.y, surface_slice.losses))
    masked = np.ma.masked_invalid(losses)
    if masked.count() == 0:
        raise ValueError("no loss on the slice is finite: there is nothing to draw")
    with style.context(STYLE):
        figure = Figure(figsize=(7.0, 6.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        low, high = float(masked.min()), float(np.quantile(masked.compressed(), _CEILING))
        if level is not None:
            high = max(high, level)
        if not high > low:
            high = low + max(abs(low), 1e-12)
        logarithmic = low > 0 and np.log10(high / low) > LOG_DECADES
        edges = np.geomspace(low, high, 18) if logarithmic else np.linspace(low, high, 18)
        norm = LogNorm(low, high) if logarithmic else Normalize(low, high)
        filled = axes.contourf(x, y, masked, edges, norm=norm, cmap="viridis_r", extend="max")
        axes.set_facecolor("#BBBBBB")  # where E is not finite
        bar = figure.colorbar(filled, ax=axes, label="training loss E", format="%.3g")
        if level is not None and masked.min() < level < masked.max():
            axes.contour(x, y, masked, [level], colors="black", linewidths=2)
            bar.ax.axhline(level, color="black", linewidth=2)
            axes.plot([], [], color="black", label=f"boundary of the level set, u = {level:.3g}")
        if path is not None:
            _draw_path(axes, surface_slice, path)
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower left", frameon=False, fontsize=10)
        axes.set(xlabel="x", ylabel="y", aspect="equal")
        axes.set_title(title or "", parse_math=False)
        axes.grid(False)
    return figure


def _draw_path(axes: Axes, surface_slice: Slice, path: Path) -> None:
    plane = surface_slice.plane
    beads = path.beads
    curve = plane.coordinates(beads).numpy(force=True)
    span = distance(beads[0], beads[-1])
    outside = float(plane.distances(beads).max())
    label = f"path, {path.num_beads} beads"
    if outside > 1e-6 * span:
        label += f", projected (up to {outside / span:.2g} of the distance A to B off the plane)"
    axes.plot(curve[:, 0], curve[:, 1], "o-", color=LINEAR, markersize=5, linewidth=2, label=label)
    for name, point in (("A", curve[0]), ("B", curve[-1])):
        text = axes.annotate(name, point, (0, 9), textcoords="offset points", ha="center", fontweight="bold")
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])
