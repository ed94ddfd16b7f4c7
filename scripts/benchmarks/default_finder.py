"""A finder on pairs from several seeds, strict levels, every connected path checked again by other code.

    python -m scripts.benchmarks.default_finder --finder CurveThenBeads --cache /tmp/default-finder

Two networks are trained from seeds 2 s and 2 s + 1 until E, the mean loss on the first 1,000 examples in 10 batches,
is at most a threshold; the level is the larger loss of the two, the budget without limit. Ends and rows stay in the
cache, so that an interrupted run goes on. A connected path is evaluated once more at about 97 points per distance of
the ends by the module alone, which is ten times finer than a search samples. The digits take some minutes on one core.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from lightning_landscape import LossSurface, finders
from lightning_landscape.datamodules import DigitsDataModule, PolynomialDataModule
from lightning_landscape.models import ImageClassifier, PolynomialRegressor

Batch = tuple[Tensor, Tensor]
_POINTS = 97  # of the check, per distance of the ends: no multiple of a search's grid


@dataclass(frozen=True)
class Task:
    """A network, its loss, the thresholds at which its training is stopped, and the size of its batches."""

    module: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Batch], Tensor]
    thresholds: tuple[float, ...]
    batch_size: int = 64
    rate: float = 1e-3


def _cross_entropy(module: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(module(batch[0]), batch[1])


def _absolute_error(module: nn.Module, batch: Batch) -> Tensor:
    return (module(batch[0]) - batch[1]).abs().mean()


def _mlp() -> nn.Module:
    layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


TASKS = {
    "digits-mlp": Task(_mlp, _cross_entropy, (0.1, 0.03)),
    "digits-cnn": Task(lambda: ImageClassifier(image_size=8), _cross_entropy, (0.1, 0.03, 0.01)),
    "quadratic": Task(lambda: PolynomialRegressor(learning_rate=1e-2), _absolute_error, (0.02,), 500, 1e-2),
}


def examples(name: str) -> Batch:
    """All training examples of a task."""
    data = PolynomialDataModule("quadratic") if name == "quadratic" else DigitsDataModule()
    data.prepare_data()
    data.setup("fit")
    train = data.splits["train"]
    inputs, targets = train[: len(train)]
    return inputs, targets


class Shuffled:
    """Batches in an order drawn anew each time they are gone through."""

    def __init__(self, data: Batch, size: int, seed: int) -> None:
        self.data, self.size = data, size
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[Batch]:
        for places in torch.randperm(len(self.data[0]), generator=self.generator).split(self.size):
            if len(places) == self.size:
                yield self.data[0][places], self.data[1][places]


def ends(task: Task, data: Batch, probe: list[Batch], seed: int) -> dict[float, tuple[Tensor, int]]:
    """The first weights, looked at every 10 steps, at each threshold, and the steps that they took."""
    torch.manual_seed(seed)
    module = task.module()
    surface = LossSurface(module, probe, task.loss)
    optimizer = torch.optim.Adam(module.parameters(), task.rate)
    found: dict[float, tuple[Tensor, int]] = {}
    batches = itertools.chain.from_iterable(itertools.repeat(Shuffled(data, task.batch_size, seed)))
    for step, batch in enumerate(batches, start=1):
        optimizer.zero_grad()
        task.loss(module.train(), batch).backward()
        optimizer.step()
        if step % 10 == 0:
            point = surface.point(dict(module.named_parameters()))
            found |= {at: (point, step) for at in task.thresholds if at not in found and surface.loss(point) <= at}
            if len(found) == len(task.thresholds):
                break
    return found


def plain_height(task: Task, probe: list[Batch], corners: Tensor) -> float:
    """Largest loss on the polygon through ``corners`` (K, P), by the module alone."""
    module = task.module().eval()
    scale, top = float((corners[-1] - corners[0]).norm()), 0.0
    with torch.no_grad():
        for start, end in itertools.pairwise(corners):
            points = max(2, int(_POINTS * float((end - start).norm()) / scale) + 1)
            for number in range(points):
                nn.utils.vector_to_parameters(start + (end - start) * number / points, module.parameters())
                losses = torch.stack([task.loss(module, batch) for batch in probe])
                top = max(top, float(losses.mean()))
    return top


def rows(name: str, finder: str, seed: int, cache: Path) -> Iterator[dict[str, Any]]:
    """A row for each threshold of a task, kept in ``cache``."""
    task, data = TASKS[name], examples(name)
    probe = list(zip(data[0][:1000].split(100), data[1][:1000].split(100), strict=True))
    file = cache / f"{name}-{seed}.pt"
    if not file.exists():
        torch.save([ends(task, data, probe, 2 * seed + number) for number in (0, 1)], file)
    first, second = torch.load(file)
    for at in task.thresholds:
        kept = cache / f"{name}-{at}-{seed}-{finder}.json"
        if not kept.exists():
            training = Shuffled(data, task.batch_size, 2 + seed)
            surface = LossSurface(task.module(), probe, task.loss, training_batches=training)
            search = getattr(finders, finder)(seed=seed)
            found = search.connect(surface, first[at][0], second[at][0])
            steps = first[at][1] + second[at][1]
            over = plain_height(task, probe, found.path.beads) / found.level - 1 if found.connected else None
            row = {"task": name, "threshold": at, "seed": seed, "training": steps, "verdict": found.verdict}
            row |= {"work": found.work / steps, "steps": found.gradient_steps / steps}
            row |= {"length": found.normalized_length, "over": over}
            kept.write_text(json.dumps(row))
        yield json.loads(kept.read_text())


def main() -> None:
    """Measures what is missing and prints means with standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finder", default="CurveThenBeads", help="a class of lightning_landscape.finders")
    parser.add_argument("--cache", type=Path, required=True, help="folder of trained ends and rows")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    console = Console(width=160)
    for name in arguments.tasks:
        found = [row for seed in range(arguments.seeds) for row in rows(name, arguments.finder, seed, arguments.cache)]
        for at in TASKS[name].thresholds:
            own = [row for row in found if row["threshold"] == at]
            connected = [row for row in own if row["verdict"] == "connected"]
            shown = [f"{name} {at}", f"{len(connected)} of {len(own)} connected"]
            for key, among in (("work", own), ("steps", own), ("length", connected)):
                values = torch.tensor([row[key] for row in among], dtype=torch.float64)
                shown.append(f"{key} {values.mean():.3f} +- {values.std() / len(values) ** 0.5:.3f}")
            shown.append(f"largest loss over the level {max((row['over'] for row in connected), default=0):.1e}")
            console.print("  ".join(shown))


if __name__ == "__main__":
    main()
