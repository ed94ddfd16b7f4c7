"""One training of an unrolled network by a shipped recipe, kept as a checkpoint and a row of figures."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_landscape.datamodules import SparseCodingDataModule
from lightning_landscape.models import UnrolledSparseCoder
from lightning_landscape.recipes import read_recipe
from scripts.reproduce.shared.kept import KeptError, once, read
from scripts.reproduce.sparse_coding.reference import Reference, signals

REPOSITORY = Path(__file__).parents[3]
NETWORKS = ("lista", "l_fista", "facnet", "lista_cp", "alista", "tilista", "slista")
DATASETS = ("gaussian", "adversarial", "mnist-patches")
Row = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """What defines a training, and with it its figures.

    Attributes:
        network: the layers' kind.
        dataset: what it is trained and tested on.
        depths: the depths up to its own, each of which continues from the one before; the first starts as ISTA.
        epochs: of each depth, of 100 steps each.
        seed: of the data and of the training.
    """

    network: str
    dataset: str
    depths: tuple[int, ...]
    epochs: tuple[int, ...]
    seed: int = 0

    @property
    def depth(self) -> int:
        return self.depths[-1]

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.network}-{self.depth}"

    def cut(self, count: int) -> Training:
        """The training of the first ``count`` depths."""
        return Training(self.network, self.dataset, self.depths[:count], self.epochs[:count], self.seed)


def recipe(network: str, dataset: str) -> dict[str, Any]:
    """The configuration that ``landscape fit`` takes."""
    name = network if dataset == "gaussian" else f"{network}_{dataset.replace('-', '_')}"
    return read_recipe(REPOSITORY / "configs" / f"{name}.yaml")


def identity(training: Training) -> Row:
    """What a row must have been made with to be the training's."""
    read = recipe(training.network, training.dataset)
    settings = {"recipe": read["model"]["init_args"], "data": read["data"]["init_args"]}
    return {**asdict(training), "depths": [*training.depths], "epochs": [*training.epochs], **settings}


def data_of(training: Training, cache: Path, source: Path) -> SparseCodingDataModule:
    """The data of the recipe."""
    arguments = recipe(training.network, training.dataset)["data"]["init_args"]
    arguments |= {"root": cache, "seed": training.seed}
    if training.dataset.startswith("mnist"):
        arguments["source"] = source
    return SparseCodingDataModule(**arguments)


def train(training: Training, data: SparseCodingDataModule, reference: Reference, out: Path) -> Row:
    """The row of a training, made now unless ``out`` holds it. The one it continues from must be there.

    Raises:
        KeptError: if what ``out`` holds was trained otherwise, or is damaged.
    """
    wanted = identity(training)

    def made() -> Row:
        started = time.process_time()
        fit(training, data, out)
        seconds = time.process_time() - started
        return {"training": wanted, "cpu_seconds": seconds, **figures(load(training, out), data, reference)}

    row: Row = once(out / f"{training.name}.json", wanted, made)
    return row


def fit(training: Training, data: SparseCodingDataModule, out: Path) -> None:
    """Train, and keep the best weights as ``<name>.ckpt`` in ``out``."""
    settings = recipe(training.network, training.dataset)["model"]["init_args"]
    before = training.cut(-1)
    pl.seed_everything(training.seed, verbose=False)
    network = UnrolledSparseCoder(
        **settings | {"depth": training.depth, "warm_start": checkpoint(before, out) if before.depths else None}
    )
    with TemporaryDirectory(dir=out) as scratch:
        best = ModelCheckpoint(scratch, monitor="val/loss", save_weights_only=True)
        trainer = pl.Trainer(
            max_epochs=training.epochs[-1], accelerator="cpu", logger=False, callbacks=[best],
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=scratch,
        )  # fmt: skip
        trainer.fit(network, data)
        Path(best.best_model_path).replace(checkpoint(training, out))


def load(training: Training, out: Path) -> UnrolledSparseCoder:
    """The network with the best weights of a training that is done."""
    return UnrolledSparseCoder.load_from_checkpoint(checkpoint(training, out), warm_start=None).eval()


def checkpoint(training: Training, out: Path) -> Path:
    return out / f"{training.name}.ckpt"


@torch.no_grad()
def figures(network: UnrolledSparseCoder, data: SparseCodingDataModule, reference: Reference) -> Row:
    """Means over the test signals: F of the codes, F - F* of every layer, and the iterations that reach the same F."""
    x = signals(data).x
    problem = network.problem.to(torch.float64)
    objectives = [float(problem.objective(x.double(), z.double()).mean()) for z in network.iterates(x)]
    return {
        "objective": objectives[-1],
        "layers": [value - reference.optimum for value in objectives],
        "ista": reference.iterations("ista", objectives[-1]),
        "fista": reference.iterations("fista", objectives[-1]),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def kept_rows(dataset: str, out: Path) -> list[Row]:
    """The rows of a data set that ``out`` holds.

    Raises:
        KeptError: if there are none, or one is damaged.
    """
    found = [read(path)[1] for network in NETWORKS for path in sorted(out.glob(f"{dataset}-{network}-*.json"))]
    if not found:
        raise KeptError(f"{out} holds no training on {dataset!r}: run `train --dataset {dataset}` first")
    return found


def training_of(row: Row) -> Training:
    """The training that a row is of."""
    kept = row["training"]
    return Training(kept["network"], kept["dataset"], tuple(kept["depths"]), tuple(kept["epochs"]), kept["seed"])
