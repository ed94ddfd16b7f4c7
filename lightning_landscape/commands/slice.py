"""The slice that ``landscape connect --slice`` draws."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from lightning_landscape.path import Path as LandscapePath
from lightning_landscape.path import distance
from lightning_landscape.report.progress import search_progress
from lightning_landscape.report.slice_figure import slice_figure
from lightning_landscape.report.style import save_figure
from lightning_landscape.storage.named_tensors import content_hash
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.slices import Plane, evaluate_slice

_MARGIN = 0.25  # of the picture around the path, as a share of its extent


def draw_slice(
    surface: LossSurface,
    path: LandscapePath,
    level: float,
    resolution: int,
    seed: int,
    folder: Path,
    title: str,
    console: Console,
) -> None:
    """Writes ``slice.png``: E on the plane through both ends and the bead farthest from the straight line.

    What a straight path or a single point leaves open is a random, filter-normalised direction.

    Args:
        surface: the loss surface.
        path: the path to draw.
        level: the level whose boundary is drawn.
        resolution: points along x, and along y.
        seed: of the random direction.
        folder: for the figure and the values, from which an interrupted slice goes on.
        title: above the figure.
        console: where the progress bar is shown.
    """
    beads = path.beads.double()
    start, end = beads[0], beads[-1]
    random = Plane.random(surface, start, torch.Generator().manual_seed(seed))
    along = nn.functional.normalize(end - start, dim=0)
    off_line = (beads - start - ((beads - start) @ along)[:, None] * along).norm(dim=1)
    if float(off_line.max()) > 1e-6 * distance(start, end):
        plane = Plane.through(start, end, beads[int(off_line.argmax())])
    elif torch.equal(start, end):
        plane = random
        title += "\none point: x and y are random, filter-normalised directions"
    else:
        plane = Plane.through(start, end, start + random.u)
        title += "\nstraight path: y is a random, filter-normalised direction"
    shadow = plane.coordinates(beads)
    low, high = shadow.min(dim=0).values, shadow.max(dim=0).values
    half = (float((high - low).max()) or 2.0) / 2 * (1 + 2 * _MARGIN)
    x, y = (torch.linspace(middle - half, middle + half, resolution) for middle in ((low + high) / 2).tolist())
    file = folder / f"slice-{content_hash({'beads': path.beads.cpu()})[:8]}-{resolution}.safetensors"
    with search_progress("slice", console) as progress:
        found = evaluate_slice(surface, plane, x, y, file, progress)
    save_figure(slice_figure(found, path, level, title), folder / "slice.png")
