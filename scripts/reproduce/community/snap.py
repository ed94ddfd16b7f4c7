"""Community detection on SNAP's graphs: networks and the affiliation graph model, beside the published figures.

    python -m scripts.reproduce.community.snap --source FOLDER --report

Every result is a file in ``--out``, and what is there is not done again, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor

from lightning_landscape.community import AffiliationGraphFit, CommunityGraph, LaplacianSpectral
from lightning_landscape.datamodules import SNAPCommunityDataModule
from lightning_landscape.metrics import Overlap
from lightning_landscape.models import CommunityGNN, LineGraphGNN
from lightning_landscape.storage.atomic import replacing
from scripts.reproduce.shared import pages

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
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "configs" / f"snap_{dataset}.yaml").read_text())
    return loaded


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
    path: Path = options.out / f"{dataset}-{name.replace(' ', '-')}-{seed}.json"
    if not path.is_file():
        data = data_of(dataset, seed, options)
        started = time.process_time()
        labelling = BASELINES[name] if name in BASELINES else trained(name, dataset, data, seed)
        result = evaluated(labelling, data.splits["test"]) | {"counts": data.counts}
        result["cpu_seconds"] = time.process_time() - started
        with replacing(path) as file:
            file.write(json.dumps(result).encode())
        print(path.stem, {key: round(value, 3) for key, value in result.items() if key != "counts"}, flush=True)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def spread(values: list[float]) -> str:
    return f"{mean(values):.3f} -+ {stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def table(dataset: str, rows: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a method a row."""
    column = ("amazon", "dblp").index(dataset)
    header = ["method", "overlap", "accuracy", "CPU seconds", "published, lecture", "published, later version"]
    lines = []
    for name, results in rows.items():
        figures = [spread([result[key] for result in results]) for key in ("overlap", "accuracy")]
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
        rows = {name: [measure(dataset, name, seed, options) for seed in seeds] for name in options.methods}
        counts = [result["counts"] for result in rows[options.methods[0]]]
        sections += [f"### com-{dataset}", "", table(dataset, rows), *counted(counts), ""]
    text = "\n".join(sections)
    print(text)
    if options.report:
        pages.fill(REPORT, {"measured": text})


if __name__ == "__main__":
    main()
