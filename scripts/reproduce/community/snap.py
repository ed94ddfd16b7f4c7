"""Community detection on SNAP's graphs: networks and the affiliation graph model, beside the published figures.

    python -m scripts.reproduce.community.snap --source FOLDER --report

Seeds 0 to 2 on Amazon and 0 on DBLP; sizes are those of the recipes.
Every result is a file in ``--out``, and what is there of
the same settings is not done again, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_landscape.community import AffiliationGraphFit, CommunityGraph, LaplacianSpectral
from lightning_landscape.datamodules import SNAPCommunityDataModule
from lightning_landscape.metrics import Overlap
from lightning_landscape.models import CommunityGNN, LineGraphGNN
from lightning_landscape.recipes import read_recipe
from scripts.reproduce.shared import pages
from scripts.reproduce.shared.kept import KeptError, once
from scripts.reproduce.shared.statistics import Error, Mean

REPOSITORY = Path(__file__).parents[3]
REPORT = REPOSITORY / "docs" / "results" / "community_snap.md"
SPLITS = {"amazon": 3, "dblp": 1}  # each with trainings of its own; Amazon's have 13 test graphs, DBLP's 520
Labelling = Callable[[CommunityGraph], Tensor]

# As the lecture shows them, for Amazon and DBLP, and as a later version of the paper does.
PUBLISHED = {
    "one label": ("", ""),
    "LaplacianSpectral": ("", ""),
    "AffiliationGraphFit": (".76 / .64, SNAP's program", ""),
    "CommunityGNN": (".74 / .78", ""),
    "LineGraphGNN": ("", ".96 / .87"),
}


def one_label(graph: CommunityGraph) -> Tensor:
    """What needs no graph: a single community."""
    return torch.zeros_like(graph.y)


BASELINES: dict[str, Labelling] = {
    "one label": one_label,
    "LaplacianSpectral": lambda graph: LaplacianSpectral().fit_predict(graph, 2),
    "AffiliationGraphFit": lambda graph: AffiliationGraphFit().fit_predict(graph, 2),
}
NETWORKS: dict[str, type[CommunityGNN | LineGraphGNN]] = {"CommunityGNN": CommunityGNN, "LineGraphGNN": LineGraphGNN}


def recipe(dataset: str) -> dict[str, Any]:
    return read_recipe(REPOSITORY / "configs" / f"snap_{dataset}.yaml")


def data_of(dataset: str, seed: int, options: argparse.Namespace) -> SNAPCommunityDataModule:
    arguments = recipe(dataset)["data"]["init_args"] | {"source": options.source, "root": options.out, "seed": seed}
    data = SNAPCommunityDataModule(**arguments)
    data.prepare_data()
    data.setup()
    return data


def trained(name: str, dataset: str, data: SNAPCommunityDataModule, seed: int) -> Labelling:
    """The network after the training of the data set's recipe."""
    settings = recipe(dataset)
    pl.seed_everything(seed, verbose=False)
    model = NETWORKS[name](**settings["model"]["init_args"])
    trainer = pl.Trainer(
        max_epochs=settings["trainer"]["max_epochs"], accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, data)

    @torch.no_grad()
    def labelling(graph: CommunityGraph) -> Tensor:
        logits: Tensor = model(graph)
        return logits.argmax(1)

    return labelling


def evaluated(labelling: Labelling, graphs: list[CommunityGraph]) -> dict[str, float]:
    """Overlap, a mean over graphs, and accuracy up to the exchange of the two names, over all nodes."""
    overlap = Overlap(2)
    right = 0
    for graph in graphs:
        labels = labelling(graph)
        overlap.update(labels, graph.y)
        agree = int((labels == graph.y).sum())
        right += max(agree, len(labels) - agree)
    nodes = sum(len(graph.y) for graph in graphs)
    return {"overlap": float(overlap.compute()), "accuracy": right / nodes, "chance": float(overlap.chance())}


def measure(dataset: str, name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of a method on a data set and seed: those kept in ``--out`` of the same recipe, or made now.

    Raises:
        KeptError: if the file that is there was made with other settings, or is damaged.
    """
    path: Path = options.out / f"{dataset}-{name.replace(' ', '-')}-{seed}.json"
    settings = {"dataset": dataset, "method": name, "seed": seed, "recipe": recipe(dataset)}

    def made() -> dict[str, Any]:
        data = data_of(dataset, seed, options)
        started = time.process_time()
        labelling = BASELINES[name] if name in BASELINES else trained(name, dataset, data, seed)
        result = evaluated(labelling, data.splits["test"]) | {"counts": data.counts}
        result["cpu_seconds"] = time.process_time() - started
        print(path.stem, {key: round(value, 3) for key, value in result.items() if key != "counts"}, flush=True)
        return result

    found: dict[str, Any] = once(path, settings, made)
    return found


def table(dataset: str, rows: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a method a row."""
    column = ("amazon", "dblp").index(dataset)
    header = [
        "method",
        f"overlap, {Error.DEVIATION.label}",
        f"accuracy, {Error.DEVIATION.label}",
        "CPU seconds",
        "published, lecture",
        "published, later version",
    ]
    lines = []
    for name, results in rows.items():
        figures = [
            Mean.of([result[key] for result in results], Error.DEVIATION).text() for key in ("overlap", "accuracy")
        ]
        seconds = mean(result["cpu_seconds"] for result in results)
        published = [_published(entry, column) for entry in PUBLISHED[name]]
        lines.append([name, *figures, f"{seconds:.0f}", *published])
    chance = mean(result["chance"] for result in next(iter(rows.values())))
    return f"{pages.table(header, lines)}\nUniform guessing has an overlap of {chance:.3f} on the same graphs.\n"


def counted(counts: list[dict[str, int]]) -> list[str]:
    """Markdown lines: how many instances there are, and in each split of each seed."""
    first = counts[0]
    splits = "; ".join(" / ".join(str(one[key]) for key in ("train", "val", "test", "left_out")) for one in counts)
    return [
        f"{first['communities']} communities listed, {first['distinct_communities']} distinct; "
        f"{first['crossing_edges']} crossing edges, {first['raw_instances']} of them within the limits, which are "
        f"{first['instances']} distinct instances. Train / val / test / left out, a seed each: {splits}."
    ]


def _published(entry: str, column: int) -> str:
    values, _, note = entry.partition(",")
    return (values.split(" / ")[column] + (f" ({note.strip()})" if note else "")) if values else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=("amazon", "dblp"), default=["amazon", "dblp"])
    parser.add_argument("--methods", nargs="+", choices=[*PUBLISHED], default=[*PUBLISHED])
    parser.add_argument("--source", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=Path("reproduced") / "snap")
    parser.add_argument("--report", action="store_true", help="write the tables into docs/results/community_snap.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    sections: list[str] = []
    for dataset in options.datasets:
        seeds = range(SPLITS[dataset])
        try:
            rows = {name: [measure(dataset, name, seed, options) for seed in seeds] for name in options.methods}
        except KeptError as error:
            parser.error(str(error))
        counts = [result["counts"] for result in rows[options.methods[0]]]
        sections += [f"### com-{dataset}", "", table(dataset, rows), *counted(counts), ""]
    text = "\n".join(sections)
    print(text)
    if options.report:
        pages.fill(REPORT, {"measured": text})


if __name__ == "__main__":
    main()
