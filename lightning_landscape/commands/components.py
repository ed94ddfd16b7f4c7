"""``landscape components FILES --config RECIPE``: in how many components of a level set do checkpoints lie?"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from torch import Tensor

from lightning_landscape.commands.processes import processes
from lightning_landscape.components.heights import PairwiseHeights, search_heights
from lightning_landscape.components.levels import common_level, over_levels
from lightning_landscape.finders import Budget
from lightning_landscape.recipes import add_finder, add_recipe, build_finder, build_recipe, parse
from lightning_landscape.report.level_table import level_table
from lightning_landscape.report.plain_help import PlainArgumentParser
from lightning_landscape.report.progress import search_progress
from lightning_landscape.report.style import save_figure
from lightning_landscape.report.tables import component_table
from lightning_landscape.report.tree_figure import tree_figure
from lightning_landscape.storage.atomic import replacing
from lightning_landscape.storage.checkpoints import read_reference
from lightning_landscape.storage.plain import plain_json
from lightning_landscape.storage.rows import KeyedRows
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.random_states import isolated_rng

SEVERAL = 3  # exit code
_SUFFIXES = (".ckpt", ".safetensors")
_ADVICE = "Finished pairs are kept in pairs.jsonl: start the same command again to go on"


def components(args: Sequence[str], prog: str) -> int:
    """Runs the command.

    Args:
        args: the arguments after the command's name.
        prog: the name that usage and error messages give.

    Returns:
        0 if one component was found at the level, 3 if several or none.

    Raises:
        SystemExit: with code 2 for arguments that are wrong.
        ValueError: for files, a recipe or values that cannot be used; the message says what to do.
    """
    parser = PlainArgumentParser(
        prog=prog,
        description="Join checkpoints of one architecture by paths of low training loss, and count the components of "
        "the level set they lie in. Exit code 0: one component, 3: several, or no checkpoint below the level (paths "
        "that were not found may exist), 2: usage or unreadable input. Under torchrun processes share the pairs.",
    )
    parser.add_argument("checkpoints", nargs="+", type=str, help="checkpoints or snapshots, or folders of them")
    add_recipe(parser)
    add_finder(parser)
    parser.add_argument("--pairs", type=str, default="tree", help="tree: k - 1 searches for k points; all: every pair")
    parser.add_argument(
        "--level",
        type=float | None,
        default=None,
        help="default: (1 + margin) times the largest loss but for outliers, those above twice the median",
    )
    out = "folder of components.json, components.png, pairs.jsonl, lines.jsonl"
    parser.add_argument("--out", type=str, default="landscape/components", help=out)
    namespace = parse(parser, args)
    if namespace.level is not None and not math.isfinite(namespace.level):
        raise ValueError(f"level must be a finite number, got {namespace.level}")
    files = _files(namespace.checkpoints)
    states = [read_reference(file) for file in files]
    recipe = build_recipe(parser, namespace)
    finder = build_finder(parser, namespace)
    folder, console = Path(namespace.out), Console()
    with processes("the search of components", _ADVICE) as (rank, share):

        def search(surface: LossSurface, points: list[Tensor]) -> PairwiseHeights:
            with search_progress("components", console if rank == 0 else Console(quiet=True)) as progress:
                return search_heights(
                    surface,
                    dict(zip(files, points, strict=True)),
                    finder,
                    pairs=namespace.pairs,
                    level=namespace.level,
                    margin=namespace.margin,
                    budget=Budget(namespace.budget),
                    progress=progress,
                    record=KeyedRows(folder / "pairs.jsonl", part=rank),
                    lines=KeyedRows(folder / "lines.jsonl", part=rank),
                    share=share,
                    isolate=isolated_rng,
                )

        found = recipe.examine(states, search)
    tree = found.tree()
    level = namespace.level
    if level is None:
        level = common_level(tree.losses.tolist(), namespace.margin)
    steps = over_levels(tree, namespace.margin)
    count = tree.num_components(level) if math.isfinite(level) else 0
    fewest = tree.fewest_components(level) if math.isfinite(level) else 0
    if rank == 0:
        report = {
            "level": plain_json(level),
            "num_components": count,
            "fewest_components": fewest,
            **tree.to_dict(),
            "range": [step.to_dict() for step in steps],
            "searches": found.rows,
        }
        with replacing(folder / "components.json") as file:
            file.write(json.dumps(report, indent=2).encode())
        save_figure(tree_figure(tree), folder / "components.png")
        console.print(component_table(tree, level))
        console.print(level_table(steps))
        console.print(f"N_u = {count} among these points at level u = {level:.6g}, from {len(found.rows)} searches")
        if fewest > 1:
            console.print(f"Proved: N_u is at least {fewest} among these points")
        console.print(f"Figure, components.json and pairs.jsonl: {folder}", markup=False, soft_wrap=True)
    return 0 if count == 1 else SEVERAL


def _files(arguments: Sequence[str]) -> list[str]:
    """The files given, and those of each folder given; each once."""
    found: list[str] = []
    for argument in arguments:
        if not os.path.isdir(argument):
            found.append(argument)
            continue
        inside = sorted(str(file) for file in Path(argument).iterdir() if file.suffix in _SUFFIXES)
        if not inside:
            raise ValueError(f"the folder {argument} holds no {' or '.join(_SUFFIXES)} file: give one that does")
        found += inside
    return list(dict.fromkeys(found))
