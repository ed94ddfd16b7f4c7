"""What the parts of the published search do: the pairs of a run, connected again by variants of the searches.

    python -m scripts.reproduce.freeman_bruna.ablation cubics 0.15 --out reproduced

prints a table in Markdown. The networks are those that ``python -m scripts.reproduce.freeman_bruna`` trained into the
same folder.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count, takewhile
from pathlib import Path

import torch

from lightning_landscape import Connection
from lightning_landscape.finders import DynamicStringSampling, PathFinder
from lightning_landscape.storage.tensor_files import read_safetensors
from scripts.reproduce.freeman_bruna.pairs import Pair
from scripts.reproduce.freeman_bruna.published_sampling import PublishedConnection, PublishedSampling
from scripts.reproduce.freeman_bruna.task import Settings, Task
from scripts.reproduce.freeman_bruna.tasks import TASKS
from scripts.reproduce.shared.statistics import Error, Mean

_STEPS = 5000  # for a bead of ours, which gives up after 1000 by default


def variants(task: Task, threshold: float) -> dict[str, tuple[PathFinder, float]]:
    """From the variant's name to its finder and the level that it searches."""
    recipe = task.recipe(Settings())
    target = task.level(recipe.alpha * threshold)
    level = task.level(threshold)
    published = PublishedSampling(recipe, target, recipe.max_steps)
    return {
        "published": (published, task.level(recipe.slack * threshold)),
        "published, no slack": (published, level),
        "published, no slack, beads to the level alone": (PublishedSampling(recipe, level, recipe.max_steps), level),
        "ours": (DynamicStringSampling(), level),
        "ours, as found": (DynamicStringSampling(shorten=0), level),
        "ours, more steps": (DynamicStringSampling(max_bead_steps=_STEPS), level),
        "the curve of strict mode": (task.curve, level),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("quadratics", "cubics"))
    parser.add_argument("threshold", type=float)
    parser.add_argument("--out", type=Path, default=Path("reproduced"))
    options = parser.parse_args(arguments)
    task = TASKS[options.task]
    surface = task.open(Settings()).metric
    pairs = (Pair(task.name, options.threshold, index) for index in count())
    files = takewhile(Path.exists, (options.out / "networks" / f"{pair}.safetensors" for pair in pairs))
    networks = [read_safetensors(file)[1]["networks"] for file in files]
    if not networks:
        parser.error(
            f"{options.out} holds no networks of {task.name} at {options.threshold:g}: run "
            f"`python -m scripts.reproduce.freeman_bruna {task.name} --thresholds {options.threshold:g}` first"
        )
    print(f"{task.name} at {options.threshold:g}, {len(networks)} pairs\n")
    label = Error.OF_MEAN.label
    print(
        f"| search | connected | length of those, {label} | length of all, {label} | beads of those, {label} "
        "| not connected because |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (finder, level) in variants(task, options.threshold).items():
        torch.manual_seed(0)
        print(_line(name, [finder.connect(surface, *pair, level=level) for pair in networks]), flush=True)


def _line(name: str, found: list[Connection]) -> str:
    connected = [one for one in found if _counts(one)]
    reasons = Counter(str(one.reason or "grid") for one in found if not _counts(one))

    def mean(value: Callable[[Connection], float], of: list[Connection]) -> str:
        return Mean.of([value(one) for one in of]).text()

    lengths = (mean(lambda one: one.normalized_length, group) for group in (connected, found))
    beads = mean(lambda one: one.num_beads, connected)
    because = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items())) or "-"
    return f"| {name} | {len(connected)} of {len(found)} | {' | '.join(lengths)} | {beads} | {because} |"


def _counts(found: Connection) -> bool:
    return found.accepted if isinstance(found, PublishedConnection) else found.connected


if __name__ == "__main__":
    main()
