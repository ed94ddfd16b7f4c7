"""What the tables of communities compare: classical methods and trained networks, scored on the same graphs."""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_landscape.community import (
    AdjacencySpectral,
    BeliefPropagation,
    BetheHessian,
    BurerMonteiro,
    CommunityGraph,
    LaplacianSpectral,
    NonBacktrackingSpectral,
    ProjectedPowerIteration,
    rates_from_snr,
    stochastic_block_model,
    symmetric_connectivity,
)
from lightning_landscape.metrics import Overlap
from lightning_landscape.models import CommunityGNN, LineGraphGNN, PyGCommunityModel
from lightning_landscape.models.graphs.community_classifier import CommunityClassifier
from scripts.reproduce.shared.kept import described, file_of, once
from scripts.reproduce.shared.statistics import Mean

REPOSITORY = Path(__file__).parents[3]
Row = dict[str, Any]


@dataclass(frozen=True)
class GraphSet:
    """Graphs of one law, drawn one after the other from one generator."""

    num_nodes: int
    num_communities: int
    average_degree: float
    snr: float
    assortative: bool
    count: int
    seed: int = 0

    @property
    def connectivity(self) -> Tensor:
        """The probabilities (k, k)."""
        rates = rates_from_snr(self.snr, self.average_degree, self.num_communities, self.assortative)
        return symmetric_connectivity(self.num_nodes, *rates, self.num_communities)

    def draw(self) -> list[CommunityGraph]:
        generator = torch.Generator().manual_seed(self.seed)
        return [
            stochastic_block_model(self.num_nodes, self.connectivity, generator=generator) for _ in range(self.count)
        ]


# The methods without training.
BASELINES: dict[str, Callable[[GraphSet], Any]] = {
    "BP, known parameters": lambda graphs: BeliefPropagation(graphs.connectivity),
    "BP, learned parameters": lambda graphs: BeliefPropagation(),
    "BetheHessian": lambda graphs: BetheHessian(not graphs.assortative),
    "NonBacktrackingSpectral": lambda graphs: NonBacktrackingSpectral(not graphs.assortative),
    "ProjectedPowerIteration": lambda graphs: ProjectedPowerIteration(BetheHessian(not graphs.assortative)),
    "BurerMonteiro": lambda graphs: BurerMonteiro(not graphs.assortative),
    "AdjacencySpectral": lambda graphs: AdjacencySpectral(not graphs.assortative),
    "LaplacianSpectral": lambda graphs: LaplacianSpectral(not graphs.assortative, regularizer=0),
    "LaplacianSpectral, regularised": lambda graphs: LaplacianSpectral(not graphs.assortative),
}


@dataclass(frozen=True)
class Network:
    """A network and how ``landscape fit`` trains it: a recipe of ``configs`` and changes to it."""

    kind: type[CommunityClassifier]
    recipe: str
    changes: tuple[str, ...] = ()

    def train(self, folder: Path) -> Path:
        """The best checkpoint of a training in ``folder``, which goes on where it was interrupted."""
        checkpoints = folder / "runs" / self.recipe / "checkpoints"
        config = REPOSITORY / "configs" / f"{self.recipe}.yaml"
        settings = {"recipe": config.read_text(), "changes": self.changes}

        def fit() -> dict[str, Any]:
            folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "lightning_landscape", "fit", "--config", str(config), *self.changes]
            if (checkpoints / "last.ckpt").exists():
                command += ["--ckpt_path", str((checkpoints / "last.ckpt").resolve())]
            subprocess.run(command, cwd=folder, check=True)
            return {}

        once(folder / "finished.json", settings, fit)
        return checkpoints / "best.ckpt"


def _of_class(kind: str, **arguments: object) -> tuple[str, ...]:
    """Options of the command line for another network in a recipe's place."""
    given = [(f"--model.init_args.{name}", str(value)) for name, value in arguments.items()]
    return ("--model", f"lightning_landscape.models.{kind}", *(word for pair in given for word in pair))


_PYG = {"num_classes": 5, "num_layers": 8, "num_features": 32}
NETWORKS = {
    "overlap": {"CommunityGNN": Network(CommunityGNN, "sbm_gnn")},
    "disassortative": {
        "LineGraphGNN": Network(LineGraphGNN, "sbm_lgnn"),
        "LineGraphGNN, linear": Network(LineGraphGNN, "sbm_lgnn", ("--model.init_args.linear", "true")),
        "CommunityGNN": Network(CommunityGNN, "sbm_lgnn", _of_class("CommunityGNN", num_features=16)),
        "GCN": Network(PyGCommunityModel, "sbm_lgnn", _of_class("PyGCommunityModel", backbone="gcn", **_PYG)),
        "GAT": Network(PyGCommunityModel, "sbm_lgnn", _of_class("PyGCommunityModel", backbone="gat", **_PYG)),
    },
}


# A network's recipe and the weights to score it with.
Trained = dict[str, tuple[Network, Path]]


def measured(graphs: GraphSet, methods: Sequence[str], trained: Trained, folder: Path) -> dict[str, Row]:
    """A row for each classical method and each network, kept in ``folder`` with all that it depends on.

    Args:
        graphs: to score the methods on.
        methods: names among ``BASELINES``.
        trained: the networks with their weights.
        folder: of the rows; one that is there with the same settings is not measured again.
    """
    rows = {}
    for name in methods:
        method = BASELINES[name](graphs)
        rows[name] = _row(name, described(method), graphs, folder, partial(_classical, method, graphs))
    for name, (network, checkpoint) in trained.items():
        weights = {"kind": network.kind.__name__, "weights": hashlib.sha256(checkpoint.read_bytes()).hexdigest()}
        row = _row(name, weights, graphs, folder, partial(_learned, network, checkpoint, graphs))
        rows[name] = row | {"curve": learning_curve(checkpoint)}
    return rows


def _row(name: str, method: Any, graphs: GraphSet, folder: Path, measure: Callable[[], Row]) -> Row:
    settings = {"graphs": asdict(graphs), "method": method}

    def made() -> Row:
        row = measure()
        print(f"{graphs} {name}: {Mean.of(row['overlap']).text()}", flush=True)
        return row

    row: Row = once(file_of(folder, name, settings), settings, made)
    return row


def _classical(method: Any, graphs: GraphSet) -> Row:
    return scores(lambda graph: method.fit_predict(graph, graphs.num_communities), graphs)


def _learned(network: Network, checkpoint: Path, graphs: GraphSet) -> Row:
    model = network.kind.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    with torch.no_grad():
        row = scores(lambda graph: model(graph).argmax(1), graphs)
    steps = torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"]
    return row | {"steps": steps, "parameters": sum(parameter.numel() for parameter in model.parameters())}


def scores(labelling: Callable[[CommunityGraph], Tensor], graphs: GraphSet) -> Row:
    """Overlap with the true communities, graph by graph, beside that of uniform guessing."""
    every, single = Overlap(graphs.num_communities), Overlap(graphs.num_communities)
    drawn = graphs.draw()
    overlaps = []
    started = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", RuntimeWarning)  # of iterations that have not converged
        for graph in drawn:
            labels = labelling(graph)
            single.reset()
            single.update(labels, graph.y)
            overlaps.append(float(single.compute()))
            every.update(labels, graph.y)
    seconds = (time.process_time() - started) / graphs.count
    return {
        "overlap": overlaps,
        "chance": float(every.chance()),
        "cpu_seconds": seconds,
        "unconverged": len(caught),
    }


def learning_curve(checkpoint: Path) -> dict[str, float]:
    """Validation overlap by step, of the logs beside the checkpoints of a run."""
    curve = {}
    for file in sorted(checkpoint.parents[1].glob("log/version_*/metrics.csv")):
        with open(file, newline="") as table:
            curve |= {line["step"]: float(line["val/overlap"]) for line in csv.DictReader(table) if line["val/overlap"]}
    return dict(sorted(curve.items(), key=lambda item: int(item[0])))
