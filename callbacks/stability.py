"""What ForkStability says of its forks: what they will cost, what was found, and from which step on a run is stable."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from rich.console import Group, RenderableType
from torch import Tensor

from lightning_landscape.callbacks.forking import ForkingCallback
from lightning_landscape.finders import LinearPath
from lightning_landscape.report.stability import Below, fork_table, stability_conclusion, stable_step, work_ahead
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.random_states import isolated_rng


class StabilityCallback(ForkingCallback):
    """Has the words for the rows of forks."""

    rows: list[dict[str, Any]]
    stable_below: Below
    num_steps: int | None
    _began: tuple[float, int]  # the clock and the step as training started

    def summary(self) -> RenderableType | None:
        """The table of all forks, the first stable step and where the files are, for printing with rich."""
        said = stability_conclusion(self.rows, self.stable_below)
        return Group(fork_table(self.rows), said, f"Figure and forks.jsonl: {self.folder}") if self.rows else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Looks at the clock, to know later how long a step takes."""
        super().on_train_start(trainer, pl_module)
        self._began = (time.perf_counter(), trainer.global_step)

    def announce(self, trainer: pl.Trainer, due: Sequence[int]) -> None:
        """Says how long the children of the forks at these steps will train, by the clock of this run."""
        last = trainer.global_step
        steps = sum(2 * min(last - step, self.num_steps or last) for step in due)
        taken = last - self._began[1]
        if steps and taken > 0:
            rank_zero_info(work_ahead(steps, len(due), (time.perf_counter() - self._began[0]) / taken))

    def close(self, trainer: pl.Trainer) -> None:
        """Puts what was found among the metrics, and warns of what failed; on every rank."""
        for row in self.rows:
            if row["reason"] is not None:
                rank_zero_warn(f"the fork at step {row['step']} failed: {row['message']}")
            at = f"{self._prefix}/step={row['step']}"
            self.expose(trainer, {key.replace(self._prefix, at): value for key, value in self.scalars(row).items()})
        if (stable := stable_step(self.rows, self.stable_below)) is not None:
            self.expose(trainer, {f"{self._prefix}/stable_step": float(stable)})


def between(
    module: pl.LightningModule,
    surfaces: Mapping[str, LossSurface],
    children: Sequence[Mapping[str, Tensor]],
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """What lies on the straight line between two children, in the fields of a row of ``forks.jsonl``.

    Args:
        module: what trains, with the buffers and attributes of the moment.
        surfaces: of the ``loss`` and of the ``error``.
        children: their parameters and buffers.
        samples: points of the grid on the line.
        seed: of what a loss draws at random.
    """
    row: dict[str, Any] = {}
    for what, surface in surfaces.items():
        with isolated_rng(seed):
            present = surface.with_module(module)
            ends = [present.point(child) for child in children]
            found = LinearPath(samples=samples).connect(present, ends[0], ends[1]).to_dict()
        both = (found["loss_a"], found["loss_b"])
        row[f"{what}_barrier"] = found["barrier"]
        row[f"child_{what}"] = None if None in both else sum(both) / 2
        row[f"{what}_profile"] = found["profile"]
        if what == "loss":
            row["linear_height"], row["distance"] = found["height"], found["length"]
    return row
