"""Every finder on every benchmark pair: the table and the figure of docs/results/finders.md, by one command.

    python -m scripts.benchmarks.compare_finders --source ../shared/data --cache /tmp/landscape-pairs

Trained pairs are kept in the cache, and so are finished rows: an interrupted comparison goes on where it ended. A row
of another budget, of a finder whose options were others, or of ends that were trained otherwise, is measured again.
Training has seeds 0 and 1, a search at most 2000 steps; all five pairs take some hours on one core.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytorch_lightning
import torch
from rich.console import Console

from lightning_landscape.alignment import weight_matching
from lightning_landscape.finders import (
    AutoNEB,
    BezierCurve,
    Budget,
    DynamicStringSampling,
    Ladder,
    LinearPath,
    PathFinder,
    PolygonalChain,
    SimplifiedString,
)
from lightning_landscape.storage.atomic import replacing
from scripts.benchmarks.pairs import PAIRS, Pair, Trained, trained
from scripts.reproduce.shared.kept import file_of, finished, keep

FINDERS: dict[str, PathFinder] = {
    "LinearPath": LinearPath(),
    "PolygonalChain": PolygonalChain(),
    "BezierCurve": BezierCurve(),
    "BezierCurve(bends=3)": BezierCurve(bends=3),
    "AutoNEB": AutoNEB(),
    "SimplifiedString": SimplifiedString(),
    "DynamicStringSampling": DynamicStringSampling(),
    "Ladder": Ladder(),
    "matching + BezierCurve": BezierCurve(),
    "matching + DynamicStringSampling": DynamicStringSampling(),
    "matching + Ladder": Ladder(),
}
MATCHED = "matching + "
COLUMNS = (
    "| finder | verdict | height | normalised length | beads | gradient steps | / training both | work | seconds |"
)
HEADING = "## Measurements"  # of the page's part that is written anew
COLOURS = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]


def measured(pair: Pair, setting: Trained, finder: str, budget: float) -> dict[str, Any]:
    """One row: the connection that a finder makes between the points of a pair, strictly below the larger end loss."""
    end = setting.theta_b
    if finder.startswith(MATCHED):
        end = weight_matching(setting.surface.module, setting.theta_a, end, setting.surface.batches[0][0])
    found = FINDERS[finder].connect(setting.surface, setting.theta_a, end, budget=Budget(budget))
    row = found.to_dict()
    del row["profile"], row["linear_profile"]
    search = FINDERS[finder].describe()
    return {
        "pair": pair.name,
        "finder": finder,
        "search": search,
        "training_steps": setting.steps,
        "budget": budget,
    } | row


def row_of(pair: Pair, finder: str, budget: float, cache: Path, source: Path) -> dict[str, Any]:
    """The row of a finder on a pair: kept in ``cache`` with the same settings, or measured now."""
    # Made anew for each, so that all of them see the same training batches.
    setting = trained(pair, cache, source)
    settings = {"pair": setting.settings, "finder": finder, "search": FINDERS[finder].describe(), "budget": budget}
    file = file_of(cache / "rows", f"{pair.name}-{finder}", settings)
    row: dict[str, Any] | None = finished(file, settings)
    if row is None:
        row = measured(pair, setting, finder, budget)
        keep(file, settings, row)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table for each pair."""
    lines = []
    for pair in PAIRS:
        own = sorted(
            (row for row in rows if row["pair"] == pair.name), key=lambda row: list(FINDERS).index(row["finder"])
        )
        if not own:
            continue
        lines += [f"### {pair.name}", "", f"Training both ends took {own[0]['training_steps']} steps.", ""]
        lines += [COLUMNS, "|" + " --- |" * (COLUMNS.count("|") - 1)]
        for row in own:
            verdict = row["verdict"] if row["reason"] is None else f"{row['verdict']} ({row['reason']})"
            cells = [
                row["finder"],
                verdict,
                f"{row['height']:.4g} of {row['level']:.4g}",
                f"{row['normalized_length']:.3f}",
                row["num_beads"],
                row["gradient_steps"],
                f"{row['gradient_steps'] / row['training_steps']:.2f}",
                f"{row['work']:.0f}",
                f"{row['seconds']:.1f}",
            ]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Cost against length, a panel for each pair; crosses are searches that found no path."""
    figure, axes = plt.subplots(1, len(PAIRS), figsize=(3.2 * len(PAIRS), 4.2), layout="constrained")
    for axis, pair in zip(axes, PAIRS, strict=True):
        for number, finder in enumerate(FINDERS):
            for row in rows:
                if (row["pair"], row["finder"]) == (pair.name, finder) and row["gradient_steps"]:
                    marker = "o" if row["verdict"] == "connected" else "x"
                    share = row["gradient_steps"] / row["training_steps"]
                    axis.plot(share, row["normalized_length"], marker, color=COLOURS[number], label=finder)
        axis.set(title=pair.name, xlabel="gradient steps / training both ends")
    axes[0].set_ylabel("normalised length of the path")
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize="small")
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)


def write(rows: list[dict[str, Any]], folder: Path) -> None:
    """Puts the tables under the heading of the page, whose text above it stays, and the figure beside it."""
    page = folder / "finders.md"
    text = page.read_text().partition(HEADING)[0] if page.exists() else ""
    with replacing(page) as file:
        file.write(f"{text}{HEADING}\n\n{table(rows)}".encode())
    draw(rows, folder / "finders.png")


def main() -> None:
    """Measures what is missing, prints the table and writes it with the rows and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder of the raw MNIST and CIFAR-10 files")
    parser.add_argument("--cache", type=Path, required=True, help="folder of unpacked data, trained pairs and rows")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder of the table and the figure")
    parser.add_argument("--budget", type=float, default=2000, help="training steps that a search may spend")
    parser.add_argument("--pairs", nargs="*", default=[pair.name for pair in PAIRS])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger(pytorch_lightning.__name__).setLevel(logging.ERROR)
    console = Console(width=160)
    rows = []
    for pair in [pair for pair in PAIRS if pair.name in arguments.pairs]:
        for finder in FINDERS:
            rows.append(row_of(pair, finder, arguments.budget, arguments.cache, arguments.source))
            shown = ("verdict", "reason", "height", "normalized_length", "gradient_steps", "work", "seconds")
            console.print(pair.name, finder, {key: rows[-1][key] for key in shown})
        write(rows, arguments.out)


if __name__ == "__main__":
    main()
