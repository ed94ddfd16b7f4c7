"""One pair of one figure: two networks trained to a threshold, and what a search between them finds."""

from __future__ import annotations

import json
import math
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_landscape import Connection, LossSurface
from lightning_landscape.finders import Budget, DynamicStringSampling, Ladder, PathFinder
from lightning_landscape.storage.tensor_files import SnapshotError, read_safetensors, write_safetensors
from scripts.reproduce.freeman_bruna.descent import descend
from scripts.reproduce.freeman_bruna.published_sampling import PublishedConnection, PublishedSampling
from scripts.reproduce.freeman_bruna.task import Problem, Settings, Task
from scripts.reproduce.freeman_bruna.tasks import TASKS
from scripts.reproduce.shared.kept import KeptError, once

Mode = Literal["faithful", "strict"]
MODES: tuple[Mode, ...] = ("faithful", "strict")
_PLACES = ("source", "cache")  # settings that change no number
_STRICT = ("strict_work",)  # settings that change the numbers of strict mode alone
_ATTEMPTS = 10  # fresh networks, where one does not come below the threshold


@dataclass(frozen=True)
class Pair:
    """What names a pair.

    Attributes:
        task: one of the keys of ``TASKS``.
        threshold: as published: an error, a percentage, a perplexity.
        index: number of the pair at this threshold, from 0.
    """

    task: str
    threshold: float
    index: int

    def __str__(self) -> str:
        return f"{self.task}-{self.threshold:g}-{self.index}"

    def seed(self, settings: Settings) -> int:
        """Of all that is random in the pair."""
        return (settings.seed * 1_000_003 + zlib.crc32(str(self).encode())) % 2**31

    def file(self, folder: Path, mode: Mode) -> Path:
        """Where the row of the finished pair is kept."""
        return folder / mode / f"{self}.json"


def identity(pair: Pair, mode: Mode, settings: Settings) -> dict[str, Any]:
    """All that the row of a pair depends on."""
    idle = _PLACES if mode == "strict" else (*_PLACES, *_STRICT)
    changing = {name: value for name, value in asdict(settings).items() if name not in idle}
    return {**asdict(pair), "mode": mode, **changing, "search": _search(pair, mode, settings)[0].describe()}


def run_pair(pair: Pair, mode: Mode, settings: Settings, folder: Path) -> dict[str, Any]:
    """The row of a pair: done before, or done now and kept.

    Networks are trained once for both modes.

    Raises:
        KeptError: if the file of the pair was made with other settings, or is damaged.
    """
    file, wanted = pair.file(folder, mode), identity(pair, mode, settings)
    row: dict[str, Any] = once(file, wanted, lambda: _made(pair, mode, settings, folder))
    return row


def _made(pair: Pair, mode: Mode, settings: Settings, folder: Path) -> dict[str, Any]:
    began = time.perf_counter()
    task = TASKS[pair.task]
    torch.manual_seed(pair.seed(settings))
    problem = task.open(settings)
    networks, training = _networks(pair, task, problem, settings, folder)
    finder, level, budget = _search(pair, mode, settings)
    row = {**asdict(pair), "mode": mode, "settings": asdict(settings), "search": finder.describe(), **training}
    if networks is None:
        row |= {"connected": False, "accepted": False, "reason": "training"}
    else:
        torch.manual_seed(pair.seed(settings) + 1)
        surface = problem.metric if mode == "faithful" else problem.loss
        row |= _measured(finder.connect(surface, *networks, level=level, budget=budget), surface)
    row["seconds"] = time.perf_counter() - began
    row["versions"] = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    return row


def _networks(
    pair: Pair, task: Task, problem: Problem, settings: Settings, folder: Path
) -> tuple[Tensor | None, dict[str, Any]]:
    file = folder / "networks" / f"{pair}.safetensors"
    surface, recipe = problem.metric, task.recipe(settings)
    training = {
        "optimizer": repr(recipe.optimizer([torch.zeros(1)])),
        "check": recipe.network_check,
        "clip": recipe.clip,
    }
    changing = {name: value for name, value in asdict(settings).items() if name not in (*_PLACES, *_STRICT)}
    target, max_steps = task.level(pair.threshold), settings.max_steps or recipe.max_steps
    key = json.dumps(changing | training | {"target": target, "max_steps": max_steps})
    if file.exists():
        try:
            header, tensors = read_safetensors(file)
            if header["settings"] == key:
                return tensors["networks"], json.loads(header["training"])
        except (SnapshotError, KeyError) as error:
            raise KeptError(f"{file} is damaged ({error}): delete it, and the networks are trained anew") from error
        raise KeptError(f"{file} was made with other settings: give another --out, or delete it to train anew")
    networks: list[Tensor] = []
    steps: list[int] = []
    attempts = 0
    while len(networks) < 2:
        if attempts >= _ATTEMPTS:
            return None, {"training_steps": steps, "attempts": attempts}
        starts = torch.stack([problem.initial() for _ in range(min(problem.together, 2 - len(networks)))])
        attempts += len(starts)
        ends = descend(surface, starts, target, recipe, recipe.network_check, max_steps, surface.training_stream())
        networks += [point.clone() for point in ends.points[ends.reached]]
        steps += ends.steps[ends.reached].tolist()
    both = torch.stack(networks)
    found = {"training_steps": steps, "attempts": attempts, "metric": surface.losses(both).tolist()}
    write_safetensors(file, {"networks": both}, {"settings": key, "training": json.dumps(found)})
    return both, found


def _search(pair: Pair, mode: Mode, settings: Settings) -> tuple[PathFinder, float | None, Budget]:
    """How the networks of a pair are connected, and the level."""
    task, threshold = TASKS[pair.task], pair.threshold
    if mode == "strict":
        curve_first = Ladder(rungs=[task.curve, DynamicStringSampling()])
        return curve_first, task.strict_level(threshold), Budget(settings.strict_work)
    recipe = task.recipe(settings)
    target, max_steps = task.level(recipe.alpha * threshold), settings.max_steps or recipe.max_steps
    return PublishedSampling(recipe, target, max_steps), task.level(recipe.slack * threshold), Budget()


def _measured(found: Connection, surface: LossSurface) -> dict[str, Any]:
    assert found.path is not None  # a search ends with a path, whatever it is
    beads, mask = found.path.beads, _weights(surface)
    steps = (beads[1:] - beads[:-1])[:, mask].double().norm(dim=1).sum()
    chord = (beads[-1] - beads[0])[mask].double().norm()
    published = found.accepted if isinstance(found, PublishedConnection) else found.connected
    values = {
        "connected": found.connected,
        "accepted": published,
        "reason": None if published else str(found.reason or "slack"),
        "level": found.level,
        "losses": [found.loss_a, found.loss_b],
        "linear_height": found.linear_height,
        "height": found.height,
        "normalized_length": found.normalized_length,
        "weights_length": float(steps / chord),
        "num_beads": found.num_beads,
        "gradient_steps": found.gradient_steps,
        "loss_evaluations": found.loss_evaluations,
    }
    return {key: _finite(value) for key, value in values.items()}


def _weights(surface: LossSurface) -> Tensor:
    """Which coordinates the published lengths measure: weights, biases left out."""
    state = surface.parameters(surface.point())
    return torch.cat([torch.full((value.numel(),), value.ndim > 1) for value in state.values()])


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
