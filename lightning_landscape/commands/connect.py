"""``landscape connect A B --config RECIPE``: are two checkpoints in one connected level set?"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from lightning_landscape.alignment.permuted import permuted_copy
from lightning_landscape.certificates import certify
from lightning_landscape.certificates.apart import judged
from lightning_landscape.commands.settings import own_folder, settings
from lightning_landscape.commands.slice import draw_slice
from lightning_landscape.connection import Connection, Verdict
from lightning_landscape.finders import Budget, LinearPath
from lightning_landscape.recipes import add_finder, add_recipe, build_finder, build_recipe, parse
from lightning_landscape.report.check_figures import profile_figure
from lightning_landscape.report.conclusion import conclusion, is_linear
from lightning_landscape.report.plain_help import PlainArgumentParser
from lightning_landscape.report.progress import search_progress
from lightning_landscape.report.style import save_figure
from lightning_landscape.report.tables import connection_table
from lightning_landscape.storage.atomic import replacing
from lightning_landscape.storage.checkpoints import read_reference
from lightning_landscape.surface import LossSurface

NOT_FOUND, SEPARATED = 3, 4  # exit codes


def connect(args: Sequence[str], prog: str) -> int:
    """Runs the command.

    Args:
        args: the arguments after the command's name.
        prog: the name that usage and error messages give.

    Returns:
        0 if a path below the level was found, 3 if not, 4 if it is proved that there is none.

    Raises:
        SystemExit: with code 2 for arguments that are wrong.
        ValueError: for files, a recipe or values that cannot be used; the message says what to do.
    """
    parser = PlainArgumentParser(
        prog=prog,
        description="May two checkpoints of one architecture be averaged, and does a path of low training loss join "
        "them? Exit code 0: connected, 3: not found (which never proves that there is none), 4: separated (proved), "
        "2: usage or unreadable input.",
    )
    parser.add_argument("a", type=str, help="a Lightning checkpoint, a snapshot or any .safetensors file")
    parser.add_argument("b", type=str, help="another one")
    add_recipe(parser)
    add_finder(parser)
    parser.add_argument("--align", action="store_true", help="permute the hidden units of B onto those of A first")
    parser.add_argument("--level", type=float | None, default=None, help="default: (1 + margin) times the larger loss")
    parser.add_argument("--slice", type=int, default=0, help="draw E around the path, this many points wide")
    parser.add_argument("--certify", action="store_true", help="prove that the whole path lies below the level")
    parser.add_argument(
        "--out",
        type=str | None,
        default=None,
        help="folder of connection.json, profile.png; default: one a pair",
    )
    namespace = parse(parser, args)
    if namespace.slice != 0 and namespace.slice < 2:
        raise ValueError(f"slice must be at least 2 points, or 0 for none, got {namespace.slice}")
    files = [namespace.a, namespace.b]
    states = [read_reference(file) for file in files]
    recipe = build_recipe(parser, namespace)
    finder = build_finder(parser, namespace)
    console = Console()

    folder = own_folder("connect", files) if namespace.out is None else Path(namespace.out)
    title = f"{files[0]} to {files[1]}{', aligned' if namespace.align else ''}"

    asked = {name: namespace[name] for name in ("align", "margin", "level", "budget")}
    defined_by = settings(recipe, finder, **asked)

    def search(surface: LossSurface, points: list[Tensor]) -> dict[str, Any]:
        theta_a, theta_b = points
        # How stacks of points are evaluated shows in the last digits.
        defined_by["vectorize"] = surface.choice()
        if namespace.align:
            theta_b = permuted_copy(surface, theta_a, theta_b)
        with search_progress("connect", console) as progress:
            found = finder.connect(
                surface,
                theta_a,
                theta_b,
                level=namespace.level,
                margin=namespace.margin,
                budget=Budget(namespace.budget),
                progress=progress,
            )
        if namespace.align:
            found = replace(found, aligned=True)
        found = judged(surface, found, theta_a, theta_b)
        reordered = None if namespace.align else _reordered_height(surface, theta_a, theta_b, found)
        row = {
            **{"a": files[0], "b": files[1], "align": namespace.align, "margin": namespace.margin},
            **found.to_dict(),
            "reordered_linear_height": reordered,
            "conclusion": conclusion(found, reordered),
            "settings": defined_by,
        }
        # Before the slice, which may fail where the search did not.
        with replacing(folder / "connection.json") as file:
            file.write(json.dumps(row, indent=2).encode())
        save_figure(profile_figure(found, title), folder / "profile.png")
        if namespace.certify and found.connected:
            certificate = certify(surface, found)
            with replacing(folder / "certificate.json") as file:
                file.write(json.dumps(certificate.to_dict(), indent=2).encode())
            proved = f"E is at most {certificate.height:.6g} on the whole path, in {certificate.pieces} pieces"
            text = f"Certified: {proved}" if certificate.certified else f"Not certified: {certificate.reason}"
            console.print(text, markup=False, soft_wrap=True)
        if namespace.slice and found.path is not None and math.isfinite(found.loss_a + found.loss_b):
            draw_slice(surface, found.path, found.level, namespace.slice, namespace.seed, folder, title, console)
        return row

    row = recipe.examine(states, search)
    console.print(connection_table(row))
    console.print(row["conclusion"], markup=False, highlight=False)
    console.print(f"Figures and connection.json: {folder}", markup=False, soft_wrap=True)
    return {Verdict.CONNECTED: 0, Verdict.SEPARATED: SEPARATED}.get(row["verdict"], NOT_FOUND)


def _reordered_height(surface: LossSurface, theta_a: Tensor, theta_b: Tensor, found: Connection) -> float | None:
    """The largest loss on the line to B with its hidden units reordered; ``None`` where that cannot or need not be."""
    if is_linear(found.to_dict()) or not math.isfinite(found.loss_a + found.loss_b):
        return None
    try:
        copy = permuted_copy(surface, theta_a, theta_b)
    except Exception:  # whatever tracing a user's forward raises; --align reports it
        return None
    return LinearPath().connect(surface, theta_a, copy).height
