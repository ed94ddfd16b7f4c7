"""``landscape sweep --config RECIPE --over KEY=V1,V2,...``: is this width enough?"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from rich.console import Console
from torch import Tensor

from lightning_landscape.attach.trained import trained
from lightning_landscape.attach.validation import can_validate, validated
from lightning_landscape.commands.processes import processes, shown
from lightning_landscape.commands.settings import settings
from lightning_landscape.connection import level_above
from lightning_landscape.finders import Budget, PathFinder
from lightning_landscape.recipes import (
    Recipe,
    add_finder,
    add_recipe,
    build_finder,
    build_recipe,
    parse,
    read_recipe,
)
from lightning_landscape.report.averages import loss_name
from lightning_landscape.report.plain_help import PlainArgumentParser
from lightning_landscape.report.style import save_figure
from lightning_landscape.report.sweep import summarised, sweep_answer, sweep_figure, sweep_table
from lightning_landscape.storage.atomic import replacing
from lightning_landscape.storage.plain import plain_json
from lightning_landscape.storage.rows import KeyedRows
from lightning_landscape.storage.snapshots import SnapshotStore
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.random_states import isolated_rng

NOT_ALL = 3  # exit code
# Of a recipe's trainer, what a quiet run of one process leaves out.
_LEFT_OUT = {"logger", "callbacks", "default_root_dir", "devices", "strategy", "num_nodes", "log_every_n_steps"}
_LEFT_OUT |= {"enable_checkpointing", "enable_progress_bar", "enable_model_summary", "num_sanity_val_steps"}
_LEFT_OUT |= {"fast_dev_run", "plugins", "profiler"}


def sweep(args: Sequence[str], prog: str) -> int:
    """Runs the command.

    Args:
        args: the arguments after the command's name.
        prog: the name that usage and error messages give.

    Returns:
        0 if all pairs of the last value are connected at the level, 3 if not.

    Raises:
        SystemExit: with code 2 for arguments that are wrong.
        ValueError: for a recipe or values that cannot be used; the message says what to do.
    """
    parser = PlainArgumentParser(
        prog=prog,
        description="Is this width enough? Train pairs of models at each value of a hyperparameter, join them at one "
        "common level, and say from which value on they are connected and where overfitting begins. A sweep that was "
        "interrupted goes on; under torchrun processes share it. Exit code 0: all pairs of the last value are "
        "connected, 3: not all were found to be, 2: usage or unreadable input.",
    )
    parser.add_argument("--over", type=str, required=True, help="KEY=V1,V2,..., such as model.init_args.width=2,4,8")
    parser.add_argument("--seeds", type=int, default=3, help="pairs at each value, each of two initialisations")
    parser.add_argument("--level", type=float | None, default=None, help="default: the largest final loss and a margin")
    parser.add_argument("--max_epochs", type=int | None, default=None, help="default: the recipe's, or 10")
    parser.add_argument("--out", type=str, default="landscape/sweep", help="folder of sweep.json, sweep.png and states")
    add_recipe(parser)
    add_finder(parser)
    key, values = _over(args)
    spaces = {text: parse(parser, [*args, f"--{key}={text}"]) for text in values}
    first = next(iter(spaces.values()))
    if first.seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {first.seeds}")
    if first.level is not None and not math.isfinite(first.level):
        raise ValueError(f"level must be a finite number, got {first.level}")
    finder, folder, console = build_finder(parser, first), Path(first.out), Console()
    options = _trainer_options(first)
    plain = [yaml.safe_load(text) for text in values]
    seeds = [first.seed + number for number in range(2 * first.seeds)]

    def build(text: str, seed: int) -> Recipe:
        # Each run has an initialisation and an order of its own; the batches that define E are those of --seed.
        space = spaces[text].clone()
        space.seed = seed
        return build_recipe(parser, space)

    with processes("the sweep", "Finished runs are kept: start the same command again to go on") as (rank, share):
        work = _Work(build, first, options, finder, folder, rank, {text: _told(spaces[text]) for text in values})
        asked_runs = [(text, seed) for text in values for seed in seeds]
        runs = shown("training", lambda run: work.run(*run), asked_runs, rank, share, console)
        losses = [run["loss"] for run in runs if run["loss"] is not None]
        if not losses:
            raise ValueError("no run has a finite loss: give a smaller learning rate")
        level = level_above(losses, first.margin) if first.level is None else first.level
        two = list(zip(seeds[::2], seeds[1::2], strict=True))
        asked_pairs = [(text, one, other) for text in values for one, other in two]
        pairs = shown("joining", lambda pair: work.pair(*pair, level), asked_pairs, rank, share, console)
    named = dict(zip(values, plain, strict=True))
    runs = [{**run, "value": named[run["text"]], "steps": _steps(run["history"], level)} for run in runs]
    pairs = [{**pair, "value": named[pair["text"]]} for pair in pairs]
    table = summarised(plain, runs, pairs)
    name = key.rpartition(".")[2]
    said = sweep_answer(name, level, table)
    if rank == 0:
        defined_by = settings(build(values[0], first.seed), finder, over=key, seeds=first.seeds, trainer=options)
        row = {"conclusion": said, "level": level, "table": table, "runs": runs, "pairs": pairs, "settings": defined_by}
        with replacing(folder / "sweep.json") as file:
            file.write(json.dumps(plain_json(row), indent=2).encode())
        save_figure(sweep_figure(name, level, table), folder / "sweep.png")
        console.print(sweep_table(name, table))
        console.print(said, markup=False, highlight=False)
        console.print(f"Figure, numbers and settings: {folder}", markup=False, soft_wrap=True)
    return 0 if table[-1]["connected"] == table[-1]["pairs"] else NOT_ALL


class _Work:
    """Trains runs and joins pairs, each once: what is done is in files."""

    def __init__(
        self,
        build: Any,
        asked: Namespace,
        options: Mapping[str, Any],
        finder: PathFinder,
        folder: Path,
        rank: int,
        told: Mapping[str, str],
    ) -> None:
        self._build, self._asked, self._options, self._finder = build, asked, options, finder
        self._told = told
        self._runs = KeyedRows(folder / "runs.jsonl", part=rank)
        self._pairs = KeyedRows(folder / "pairs.jsonl", part=rank)
        self._states = SnapshotStore(folder / "states")

    def run(self, text: str, seed: int) -> dict[str, Any]:
        """Trains one model: its final losses, and E by steps."""
        name = self._name(text, seed)
        found = self._runs.get(name)
        if found is not None and name in self._states:
            return found
        recipe = self._build(text, seed)
        with isolated_rng(seed):
            kept = trained(recipe.model, recipe.data, self._options)
        steps, states = [step for step, _ in kept], [state for _, state in kept]
        measure = self._build(text, self._asked.seed)

        def losses(surface: LossSurface, points: list[Tensor]) -> list[float]:
            return [surface.loss(point) for point in points]

        history = measure.examine(states, losses)
        metrics: dict[str, float] = {}
        if can_validate(measure.model, measure.data):
            metrics = validated(measure.model, states[-1], measure.data, measure.device, self._asked.seed)
        monitored = loss_name(metrics)
        row = {
            "text": text,
            "seed": seed,
            "loss": history[-1],
            "val_loss": None if monitored is None else metrics[monitored],
            "metrics": metrics,
            "history": list(zip(steps, history, strict=True)),
        }
        self._states.save(states[-1], step=steps[-1], epoch=len(steps), name=name)
        self._runs.put(name, plain := plain_json(row))
        return dict(plain)

    def pair(self, text: str, one: int, other: int, level: float) -> dict[str, Any]:
        """Joins two models at the level."""
        search = json.dumps([self._finder.describe(), level, self._asked.budget], sort_keys=True)
        name = f"{self._name(text, one)} {self._name(text, other)} {_hash(search)}"
        found = self._pairs.get(name)
        if found is not None:
            return found

        def connect(surface: LossSurface, points: list[Tensor]) -> dict[str, Any]:
            budget = Budget(self._asked.budget)
            return self._finder.connect(surface, points[0], points[1], level=level, budget=budget).to_dict()

        states = [self._states.load(self._name(text, seed)) for seed in (one, other)]
        connection = self._build(text, self._asked.seed).examine(states, connect)
        row = {"text": text, "seeds": [one, other], "connected": connection["verdict"] == "connected", **connection}
        self._pairs.put(name, row)
        return row

    def _name(self, text: str, seed: int) -> str:
        asked = self._asked
        parts = [self._told[text], seed, self._options, asked.seed, asked.num_batches, asked.batch_norm]
        return f"seed={seed}-{_hash(json.dumps(parts, sort_keys=True, default=str))}"


def _over(args: Sequence[str]) -> tuple[str, list[str]]:
    """The key and the values of ``--over``, before anything is built."""
    given = [arg.partition("=")[2] for arg in args if arg.startswith("--over=")]
    given += [args[place + 1] for place, arg in enumerate(args[:-1]) if arg == "--over"]
    key, _, listed = given[-1].partition("=") if given else ("", "", "")
    values = list(dict.fromkeys(value.strip() for value in listed.split(",") if value.strip()))
    if not {"-h", "--help"} & set(args) and (not key or len(values) < 2):
        raise ValueError("--over must be KEY=V1,V2,... with at least two values, such as model.init_args.width=2,4,8")
    return key or "seed", values or ["0"]


def _trainer_options(namespace: Namespace) -> dict[str, Any]:
    """The plain settings of the recipe's trainer, and how long to train."""
    own = {} if namespace.config is None else read_recipe(namespace.config).get("trainer") or {}
    options = {
        name: value for name, value in own.items() if name not in _LEFT_OUT and not isinstance(value, dict | list)
    }
    if namespace.max_epochs is not None:
        options |= {"max_epochs": namespace.max_epochs, "max_steps": -1}
    elif "max_epochs" not in options and "max_steps" not in options:
        options["max_epochs"] = 10
    return {**options, "devices": 1}


def _told(namespace: Namespace) -> str:
    """Model and data that were asked for, as text."""
    parts = {name: namespace.get(name) for name in ("model", "data", "from")}
    return json.dumps({name: part.as_dict() if isinstance(part, Namespace) else part for name, part in parts.items()},
                      sort_keys=True, default=str)  # fmt: skip


def _steps(history: Sequence[Sequence[Any]], level: float) -> int | None:
    """The first step, among the ends of epochs, at which E is at most the level."""
    return next((int(step) for step, loss in history if loss is not None and loss <= level), None)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
