"""``landscape average FILES --config RECIPE --out FILE``: may these checkpoints be averaged? If so, their average."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from lightning_landscape.alignment.permuted import permuted_copies
from lightning_landscape.attach.validation import can_validate, validated
from lightning_landscape.averaging import Advice, Candidate
from lightning_landscape.averaging import average as averaged
from lightning_landscape.commands.settings import settings
from lightning_landscape.connection import Connection
from lightning_landscape.finders import Budget
from lightning_landscape.recipes import Recipe, add_finder, add_recipe, build_finder, build_recipe, parse
from lightning_landscape.report.averages import average_conclusion, average_table, loss_name
from lightning_landscape.report.plain_help import PlainArgumentParser
from lightning_landscape.report.progress import counted_progress, search_progress
from lightning_landscape.storage.atomic import replacing
from lightning_landscape.storage.checkpoints import read_reference
from lightning_landscape.storage.plain import plain_json
from lightning_landscape.storage.written_checkpoint import read_checkpoint, write_checkpoint
from lightning_landscape.surface import LossSurface

AGAINST = 3  # exit code
_METHODS = ("best", "uniform", "greedy", "path")


def average(args: Sequence[str], prog: str) -> int:
    """Runs the command.

    Args:
        args: the arguments after the command's name.
        prog: the name that usage and error messages give.

    Returns:
        0 if the average was written and is worth having, 3 if it is advised against.

    Raises:
        SystemExit: with code 2 for arguments that are wrong.
        ValueError: for files, a recipe or values that cannot be used; the message says what to do.
    """
    parser = PlainArgumentParser(
        prog=prog,
        description="May checkpoints of one architecture be averaged? If so, write their average as a checkpoint for "
        "load_from_checkpoint and Trainer.test(ckpt_path=). Models are judged by the module's own validation, where it "
        "has one, else by the training loss. Exit code 0: written, 3: advised against, and nothing written unless "
        "--force says so, 2: usage or unreadable input.",
    )
    parser.add_argument("checkpoints", nargs="+", type=str, help="Lightning checkpoints or .safetensors files")
    parser.add_argument(
        "--out", type=str, required=True, help="the checkpoint to write, FILE.ckpt; numbers go to FILE.json"
    )
    parser.add_argument(
        "--method",
        type=str,
        default="best",
        help="uniform: the mean of all; greedy: best first, each kept if it helps; path: the best point of a path "
        "between two; best: of uniform and greedy the better one",
    )
    parser.add_argument("--monitor", type=str | None, default=None, help="metric of the validation; default: its loss")
    parser.add_argument("--mode", type=str, default="min", help="min or max: which values of --monitor are good")
    parser.add_argument("--align", action="store_true", help="first permute all hidden units into the order of one")
    parser.add_argument("--repair", action="store_true", help="rescale hidden units of a mean, which fade (REPAIR)")
    parser.add_argument("--force", action="store_true", help="write the average also where it is advised against")
    add_recipe(parser)
    # Statistics of batch norm are estimated on them, which a written model keeps.
    parser.set_defaults({"num_batches": 32})
    add_finder(parser)
    namespace = parse(parser, args)
    files, out = list(namespace.checkpoints), Path(namespace.out)
    _require_sense(namespace, files, out)
    states = [read_reference(file) for file in files]
    recipe = build_recipe(parser, namespace)
    finder = build_finder(parser, namespace)
    console = Console()

    def prepare(surface: LossSurface, points: list[Tensor]) -> tuple[LossSurface, list[Tensor], Connection | None]:
        if namespace.align:
            points = permuted_copies(surface, points)
        if namespace.method != "path":
            return surface, points, None
        with search_progress("average", console) as progress:
            limits: dict[str, Any] = {"margin": namespace.margin, "budget": Budget(namespace.budget)}
            return surface, points, finder.connect(surface, points[0], points[1], progress=progress, **limits)

    surface, points, path = recipe.examine(states, prepare)
    with counted_progress("validation", _most(namespace.method, len(files)), console) as done:
        judge = _Judge(recipe, surface, namespace.monitor, namespace.mode, done)
        own = [judge.metrics(state) for state in states]
        found = averaged(
            surface,
            points,
            namespace.method,
            path=None if path is None else path.path,
            score=judge.score if judge.validates else None,
            scores=[judge.of(metrics) for metrics in own] if judge.validates else None,
            repair=namespace.repair,
        )
        measure = judge.monitor or "E"
        said = average_conclusion(found, files, measure, judge.sign)
        rows = [
            {"name": name, "loss": loss, "metrics": metrics}
            for name, loss, metrics in zip(files, found.losses, own, strict=True)
        ]
        for candidate in (
            found.uniform,
            *([found.chosen] if found.chosen.mixes and found.chosen != found.uniform else []),
        ):
            metrics = judge.metrics(surface.state(candidate.theta))
            rows.append({"name": _named(candidate, files), "loss": candidate.loss, "metrics": metrics})
    good = found.advice is not Advice.AGAINST and found.chosen.mixes
    row = {
        "files": files,
        "method": found.chosen.method,
        "weights": list(found.chosen.weights),
        "t": found.chosen.t,
        "align": namespace.align,
        "repair": namespace.repair,
        "measure": measure,
        "advice": str(found.advice),
        "conclusion": said,
        "models": rows,
        "path": None if path is None else path.to_dict(),
        "written": str(out) if good or namespace.force else None,
        "settings": settings(recipe, finder, margin=namespace.margin, budget=namespace.budget),
    }
    if good or namespace.force:
        like = next((file for file in files if file.endswith(".ckpt")), files[0])
        notes = {key: row[key] for key in ("files", "method", "weights", "t", "align", "repair", "conclusion")}
        write_checkpoint(out, surface.state(found.theta), read_checkpoint(like), version("pytorch_lightning"), notes)
    beside = out.with_suffix(".json")
    with replacing(beside) as record:
        record.write(json.dumps({key: plain_json(value) for key, value in row.items()}, indent=2).encode())
    console.print(average_table(rows))
    console.print(said, markup=False, highlight=False)
    written = f"Written: {out}" if row["written"] else "Nothing written; --force writes it all the same"
    console.print(f"{written}. Numbers and settings: {beside}", markup=False, soft_wrap=True)
    return 0 if good else AGAINST


class _Judge:
    """Rates a model by its validation, or says that there is none."""

    def __init__(
        self, recipe: Recipe, surface: LossSurface, monitor: str | None, mode: str, done: Callable[[], None]
    ) -> None:
        self._recipe = recipe
        self._surface = surface
        self._done = done
        self._able = can_validate(recipe.model, recipe.data)
        self.monitor = monitor
        self.sign = -1.0 if mode == "max" else 1.0
        if monitor is not None and not self._able:
            raise ValueError(f"--monitor {monitor}: the module has no validation_step or no validation data")

    @property
    def validates(self) -> bool:
        """Whether models are rated by their validation; not before the first is measured."""
        return self.monitor is not None

    def metrics(self, state: Mapping[str, Any]) -> dict[str, float]:
        """All that the validation logs; the first time it also finds what to rate by."""
        if not self._able:
            return {}
        recipe = self._recipe
        found = validated(recipe.model, state, recipe.data, recipe.device, recipe.seed)
        self._done()
        if self.monitor is None:
            self.monitor = loss_name(found)
        elif self.monitor not in found:
            raise ValueError(f"--monitor {self.monitor}: the validation logs {', '.join(found) or 'nothing'}")
        return found

    def of(self, metrics: Mapping[str, float]) -> float:
        """The score, the smaller the better."""
        return math.nan if self.monitor is None else self.sign * metrics[self.monitor]

    def score(self, theta: Tensor) -> float:
        """The score of a point."""
        return self.of(self.metrics(self._surface.state(theta)))


def _most(method: str, files: int) -> int:
    """The largest number of validations: of the files, of what is tried, and of the rows of the table."""
    tried = {"uniform": 1, "path": 10}.get(method, files if files > 2 or method == "greedy" else 1)
    return files + tried + 2


def _named(candidate: Candidate, files: Sequence[str]) -> str:
    if candidate.t is not None:
        return f"path at {candidate.t:g}"
    return f"{candidate.method} average of {len(candidate.members)} of {len(files)}"


def _require_sense(namespace: Any, files: Sequence[str], out: Path) -> None:
    if len(files) < 2:
        raise ValueError(f"give at least two checkpoints, got {', '.join(files)}")
    if namespace.method not in _METHODS:
        raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {namespace.method!r}")
    if namespace.method == "path" and len(files) != 2:
        raise ValueError(f"method path needs two checkpoints, one for each end, got {len(files)}")
    if namespace.mode not in ("min", "max"):
        raise ValueError(f"mode must be min or max, got {namespace.mode!r}")
    if out.suffix != ".ckpt":
        raise ValueError(f"--out must be a checkpoint, FILE.ckpt, got {out}")
    if any(os.path.realpath(file) == os.path.realpath(out) for file in files):
        raise ValueError(f"--out {out} is one of the checkpoints to average: give another name")
