"""Level sets of a small network's loss across the thresholds: is a trained network connected with its twin?"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from math import log, nan
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.utilities.warnings import PossibleUserWarning

from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.community import detectability, rates_from_snr
from lightning_landscape.datamodules import SBMDataModule
from lightning_landscape.models import CommunityGNN
from lightning_landscape.recipes import callback_entry, instantiate, read_recipe
from scripts.reproduce.community.methods import REPOSITORY, Row, Trained
from scripts.reproduce.shared.kept import file_of, finished, keep
from scripts.reproduce.shared.pages import table
from scripts.reproduce.shared.statistics import Error, Mean


@dataclass(frozen=True)
class Setting:
    """A law of graphs to train on."""

    num_communities: int
    average_degree: float
    snr: float
    mixture: str

    @property
    def side(self) -> str:
        """What is proved of it in large graphs."""
        k = self.num_communities
        rates = rates_from_snr(self.snr, self.average_degree, k, self.mixture == "assortative")
        return str(detectability(*rates, k))


# Two communities below, at and above the threshold; five without inner edges, p = 0 and q = 5/4 of the degree, in the
# gap between the thresholds and above both.
SETTINGS = (
    *(Setting(2, 3.0, snr, "assortative") for snr in (0.5, 1.0, 2.0)),
    *(Setting(5, 16 * snr, snr, "disassortative") for snr in (0.95, 1.3)),
)
RECIPE = REPOSITORY / "configs" / "sbm_landscape.yaml"
_COLORS = {2: "tab:blue", 5: "tab:red"}
_KEPT = (
    "verdict", "reason", "message", "level", "loss_a", "loss_b", "linear_barrier", "linear_height", "height", "barrier",
    "normalized_length", "num_beads", "gradient_steps", "work",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=3, help="trainings at each SNR (3)")
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--steps", type=int, default=300, help="of training (300)")
    parser.add_argument("--search-steps", type=int, default=2000, help="of a search for a path (2000)")
    parser.add_argument("--workers", type=int, default=1, help="processes (1)")


def measure(options: argparse.Namespace, trained: Trained) -> dict[Setting, list[Row]]:
    """A row for each setting and seed; no weights are needed. One seed of all settings before the next."""
    jobs = []
    for seed in range(options.seeds):
        for setting in SETTINGS:
            work = (setting, options.nodes, options.steps, options.search_steps, seed)
            settings = _settings(*work)
            name = f"k{setting.num_communities}-snr{setting.snr:g}-seed{seed}"
            jobs.append((work, settings, file_of(options.out / "landscape", name, settings)))
    # Spawned, because a forked child would share the parent's thread pools.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, context, initializer=quietly) as pool:
        missing = [job for job in jobs if finished(job[2], job[1]) is None]
        for done in as_completed(futures := {pool.submit(search, *job[0]): job for job in missing}):
            _, settings, file = futures[done]
            row = done.result()
            keep(file, settings, row)
            print(f"{file.stem}: {row['verdict']}, {row['height']} of {row['level']}", flush=True)
    rows: dict[Setting, list[Row]] = {setting: [] for setting in SETTINGS}
    for (setting, *_), settings, file in jobs:
        rows[setting].append(finished(file, settings))
    return rows


def _settings(setting: Setting, nodes: int, steps: int, search_steps: int, seed: int) -> dict[str, Any]:
    """All that a row depends on, the recipe too."""
    size = {"nodes": nodes, "steps": steps, "search_steps": search_steps, "seed": seed}
    return {**asdict(setting), **size, "recipe": read_recipe(RECIPE)}


def quietly() -> None:
    """One thread, and no advice of Lightning's."""
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=PossibleUserWarning)


def search(setting: Setting, nodes: int, steps: int, search_steps: int, seed: int) -> Row:
    """Trains the recipe's network and its twin, and joins them by a path at the end of training."""
    recipe = read_recipe(RECIPE)
    pl.seed_everything(seed, verbose=False)
    k = setting.num_communities
    model = CommunityGNN(**recipe["model"]["init_args"] | {"num_classes": k})
    law = {
        "num_nodes": nodes,
        "num_communities": k,
        "average_degree": setting.average_degree,
        "snr": (setting.snr, setting.snr),
        "mixture": setting.mixture,
        "steps_per_epoch": steps,
        "seed": seed,
    }
    data = SBMDataModule(**recipe["data"]["init_args"] | law)
    with TemporaryDirectory() as folder:
        callback = connectivity(recipe, search_steps, {"seed": seed, "dirpath": folder, "on_error": "raise"})
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False,
            gradient_clip_val=recipe["trainer"]["gradient_clip_val"], enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        started = time.process_time()
        trainer.fit(model, data)
    metrics = {name: float(trainer.callback_metrics[f"val/{name}"]) for name in ("loss", "overlap", "chance")}
    row = {key: callback.rows[-1][key] for key in _KEPT}
    return row | metrics | {"cpu_seconds": time.process_time() - started}


def connectivity(recipe: dict[str, Any], search_steps: int, changes: dict[str, Any]) -> LevelSetConnectivity:
    """The recipe's callback, with a limit of its finder's steps and other arguments."""
    entry = callback_entry(recipe, LevelSetConnectivity)
    entry["init_args"] |= changes
    entry["init_args"]["finder"]["init_args"]["max_steps"] = search_steps
    return instantiate(LevelSetConnectivity, entry)


def forgotten(setting: Setting, row: Row, height: str) -> float:
    """``(height - E) / (log k - E)``, E the larger loss of the ends: 0 for a path below it, 1 for blind guessing.

    NaN where an end is no better than guessing.
    """
    worse = max(row["loss_a"], row["loss_b"])
    learned = log(setting.num_communities) - worse
    return max(row[height] - worse, 0.0) / learned if learned > 0 else nan


def markdown(rows: dict[Setting, list[Row]]) -> str:
    """A table of means and standard errors over seeds."""
    header = [
        "k", "degree", "SNR", "in large graphs", "overlap", "chance", "larger loss", "log k", "forgotten on the line",
        "forgotten on the path", "connected", "normalised length", "beads", "gradient steps",
    ]  # fmt: skip
    lines = []
    for setting, found in rows.items():
        k = setting.num_communities
        lines.append(
            [
                f"{k}",
                f"{setting.average_degree:g}",
                f"{setting.snr:g}",
                setting.side,
                Mean.of([row["overlap"] for row in found]).text(),
                f"{Mean.of([row['chance'] for row in found]).mean:.3f}",
                Mean.of([max(row["loss_a"], row["loss_b"]) for row in found]).text(),
                f"{log(k):.3f}",
                Mean.of([forgotten(setting, row, "linear_height") for row in found]).text(2),
                Mean.of([forgotten(setting, row, "height") for row in found]).text(2),
                f"{sum(row['verdict'] == 'connected' for row in found)} of {len(found)}",
                Mean.of([row["normalized_length"] for row in found]).text(2),
                Mean.of([row["num_beads"] for row in found]).text(1),
                Mean.of([row["gradient_steps"] for row in found]).text(0),
            ]
        )
    return table(header, lines) + f"\nValues: {Error.OF_MEAN.label} over seeds.\n"


def draw(rows: dict[Setting, list[Row]], file: BinaryIO) -> None:
    """Writes the figure as PNG."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    line, path, length = figure.subplots(1, 3)
    for k, color in _COLORS.items():
        mine = {setting: found for setting, found in rows.items() if setting.num_communities == k}
        snr = [setting.snr for setting in mine]
        values = {
            line: [[forgotten(setting, row, "linear_height") for row in found] for setting, found in mine.items()],
            path: [[forgotten(setting, row, "height") for row in found] for setting, found in mine.items()],
            length: [[row["normalized_length"] for row in found] for found in mine.values()],
        }
        for axes, of_seeds in values.items():
            means, errors = zip(*(Mean.of(values).bar for values in of_seeds), strict=True)
            axes.errorbar(snr, means, errors, color=color, marker="o", capsize=3, label=f"k = {k}")
        for setting, of_seeds in zip(mine, values[path], strict=True):
            share = f"{sum(row['verdict'] == 'connected' for row in mine[setting])}/{len(of_seeds)}"
            where = (setting.snr, Mean.of(of_seeds).mean)
            path.annotate(share, where, (5, 5), textcoords="offset points", fontsize=8, color=color)
    line.set_ylabel("share of the learned that the straight line forgets")
    path.set_ylabel("share that the best path found forgets")
    path.set_title("beside each point: how many were connected", fontsize=9)
    length.set_ylabel("normalised length of the path")
    for axes in (line, path, length):
        axes.axvline(1, color="0.6", lw=1)
        axes.set_xlabel("SNR (Kesten-Stigum threshold: 1)")
    line.legend()
    figure.savefig(file, format="png", dpi=110)
