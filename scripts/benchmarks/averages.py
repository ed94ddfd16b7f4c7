"""Averages of late snapshots of ResNet-20 on CIFAR-10 beside Lightning's own SWA and EMA of the same run.

    python -m scripts.benchmarks.averages --source ../shared/data --cache /tmp/averages

One run of SGD at a constant rate on 10,000 images, with ``StochasticWeightAveraging`` (at that same rate, so that it
changes nothing) and ``EMAWeightAveraging`` attached. The ends of its last five epochs are averaged. What is averaged is
chosen by accuracy on 2,000 further images, and all are measured on 5,000 test images too. The trained weights stay in
the cache.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from torch import Tensor
from torch.utils.data import TensorDataset

from lightning_landscape import LossSurface
from lightning_landscape.averaging import average
from lightning_landscape.datamodules import CIFAR10DataModule
from lightning_landscape.models import ImageClassifier

State = dict[str, Tensor]
_RATE = 0.05
_SNAPSHOTS = 5
_SIZES = {"val": 2000, "test": 5000}  # images on which models are compared


def network() -> ImageClassifier:
    """ResNet-20 with batch norm."""
    return ImageClassifier(
        "resnet20", in_channels=3, image_size=32, optimizer="sgd", learning_rate=_RATE, momentum=0.9, weight_decay=1e-4
    )


def images(cache: Path, source: Path) -> CIFAR10DataModule:
    """10,000 images to train on, and fewer to validate and test on."""
    data = CIFAR10DataModule(cache / "data", source=source, val_size=40_000)
    data.prepare_data()
    data.setup()
    for name, size in _SIZES.items():
        data.splits[name] = TensorDataset(*data.splits[name][:size])
    return data


class Ends(pl.Callback):
    """Keeps the weights at the ends of the last epochs."""

    def __init__(self, most: int) -> None:
        self.states: list[State] = []
        self._most = most

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps the present weights."""
        self.states = [*self.states, _copied(pl_module)][-self._most :]
        print(f"epoch {trainer.current_epoch + 1}: {float(trainer.callback_metrics['train/accuracy']):.3f}", flush=True)


def trained(data: CIFAR10DataModule, epochs: int, seed: int) -> dict[str, Any]:
    """The late snapshots, and what the callbacks of Lightning made of the run."""
    pl.seed_everything(seed)
    model, ends = network(), Ends(_SNAPSHOTS + 1)
    swa = StochasticWeightAveraging(_RATE, swa_epoch_start=epochs - _SNAPSHOTS)
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[ends, swa, EMAWeightAveraging(decay=0.99)],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        limit_val_batches=0,
    )
    trainer.fit(model, datamodule=data)
    # SWA ends with one epoch more, without steps, for the statistics of its batch norm; then EMA copies its average.
    *snapshots, averaged = ends.states
    return {"snapshots": snapshots, "swa": averaged, "ema": _copied(model)}


def accuracy(state: State, split: TensorDataset) -> float:
    """Share of the images that are classified correctly."""
    model = network().eval()
    model.load_state_dict(state, strict=False)
    with torch.no_grad():
        right = [model(x).argmax(1) == y for x, y in zip(*(part.split(500) for part in split.tensors), strict=True)]
    return float(torch.cat(right).float().mean())


def main() -> None:
    """Trains once, averages, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder of CIFAR-10's raw files")
    parser.add_argument("--cache", type=Path, required=True, help="folder of unpacked images and trained weights")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = images(arguments.cache, arguments.source)
    file = arguments.cache / f"averages-{arguments.epochs}-{arguments.seed}.pt"
    if not file.exists():
        torch.save(trained(data, arguments.epochs, arguments.seed), file)
    run = torch.load(file)
    inputs, targets = data.splits["train"][:2048]
    surface = LossSurface(network(), list(zip(inputs.split(128), targets.split(128), strict=True)))
    ends = [accuracy(state, data.splits["val"]) for state in run["snapshots"]]
    points = [surface.point(state) for state in run["snapshots"]]

    def score(theta: Tensor) -> float:
        return -accuracy(surface.state(theta), data.splits["val"])

    found = average(surface, points, "greedy", score=score, scores=[-end for end in ends])
    best = max(range(len(ends)), key=ends.__getitem__)
    greedy = f"greedy average of {len(found.chosen.members)} of {len(points)}"
    models = {"best end": run["snapshots"][best], "last end": run["snapshots"][-1]}
    models |= {greedy: surface.state(found.theta), "uniform average": surface.state(found.uniform.theta)}
    models |= {"Lightning's SWA": run["swa"], "Lightning's EMA": run["ema"]}
    print("| | validation accuracy | test accuracy |\n| --- | --- | --- |")
    for name, state in models.items():
        print(f"| {name} | {' | '.join(f'{accuracy(state, data.splits[split]):.1%}' for split in _SIZES)} |")


def _copied(module: pl.LightningModule) -> State:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


if __name__ == "__main__":
    main()
