"""Does a path connect two initialisations of LISTA? The recipe of the landscape, its table and its figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.datamodules import SparseCodingDataModule
from lightning_landscape.models import UnrolledSparseCoder
from lightning_landscape.recipes import callback_entry, instantiate, read_recipe
from lightning_landscape.report.style import LEVEL, LINEAR, PATH
from scripts.reproduce.shared import pages
from scripts.reproduce.shared.kept import KeptError, once, read
from scripts.reproduce.sparse_coding.training import REPOSITORY

RECIPE = REPOSITORY / "configs" / "lista_landscape.yaml"
Check = dict[str, Any]


def checks(out: Path, seed: int, epochs: int | None = None) -> list[Check]:
    """The rows of the recipe's callback, kept in ``out`` or made now.

    Raises:
        KeptError: if what ``out`` holds was made with other arguments, or is damaged.
    """
    settings = {"seed": seed, "epochs": epochs, "recipe": read_recipe(RECIPE)}
    rows: list[Check] = once(_file(out), settings, lambda: _run(out, seed, epochs))
    return rows


def kept_checks(out: Path) -> list[Check]:
    """The rows that ``out`` holds.

    Raises:
        KeptError: if there are none, or the file is damaged.
    """
    try:
        rows: list[Check] = read(_file(out))[1]
    except FileNotFoundError:
        raise KeptError(f"{_file(out)} is missing: run `landscape` first") from None
    return rows


def table(rows: Sequence[Check]) -> str:
    """Markdown: a check a row."""
    header = [
        "step", "E_a", "E_b", "level", "highest on the straight line", "path", "highest on the path", "barrier",
        "normalised length", "beads", "gradient steps",
    ]  # fmt: skip
    lines = []
    for row in rows:
        cells = [
            f"{row['step']}",
            *(f"{row[name]:.4f}" for name in ("loss_a", "loss_b", "level", "linear_height")),
            row["verdict"].replace("_", " "),
            *(f"{row[name]:.4f}" for name in ("height", "barrier", "normalized_length")),
            f"{row['num_beads']}",
            f"{row['gradient_steps']}",
        ]
        lines.append(cells)
    return pages.table(header, lines)


def figure(rows: Sequence[Check]) -> Figure:
    """The loss along the straight line and the found path, a panel a check."""
    drawn = Figure(figsize=(3.4 * len(rows), 3.8), layout="constrained")
    FigureCanvasAgg(drawn)
    for axes, row in zip(drawn.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
        line, path = row["linear_profile"], row["profile"]
        axes.plot(line["t"], line["loss"], "--", color=LINEAR, label="straight line", linewidth=1.8)
        if row["num_beads"]:
            axes.plot(path["t"], path["loss"], color=PATH, label="found path", linewidth=1.8)
        axes.axhline(row["level"], color=LEVEL, linestyle=":", linewidth=1.6, label="level")
        axes.set_title(f"step {row['step']}: {row['verdict'].replace('_', ' ')}", loc="left", fontsize=11)
        axes.set_xlabel("t (arc length / length)")
    drawn.axes[0].set_ylabel("training loss, mean F")
    drawn.legend(*drawn.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return drawn


def _run(out: Path, seed: int, epochs: int | None) -> list[Check]:
    settings = read_recipe(RECIPE)
    entry = callback_entry(settings, LevelSetConnectivity)
    entry["init_args"]["dirpath"] = str(out / "landscape")
    callback = instantiate(LevelSetConnectivity, entry)
    pl.seed_everything(seed, verbose=False)
    network = UnrolledSparseCoder(**settings["model"]["init_args"])
    data = SparseCodingDataModule(**settings["data"]["init_args"] | {"root": out, "seed": seed})
    trainer = pl.Trainer(
        max_epochs=epochs or settings["trainer"]["max_epochs"], accelerator="cpu", logger=False, callbacks=[callback],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        default_root_dir=out,
    )  # fmt: skip
    trainer.fit(network, data)
    return callback.rows


def _file(out: Path) -> Path:
    return out / "landscape.json"
