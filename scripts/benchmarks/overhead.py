"""The share of a run's CPU time that checks take at the defaults, run and run side by side.

Three runs, each with and without ``LevelSetConnectivity()``: LeNet on MNIST, ResNet-20 on a part of CIFAR-10, and the
LSTM on a part of Penn Treebank. The CPU time is that of the process and its children, from the call of ``fit`` to its
end, after one epoch that warms the machine up. Seconds that the callback spends in figures and files are in it.

    python -m scripts.benchmarks.overhead --data FOLDER --out docs/results/overhead.md
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl

from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.datamodules import CIFAR10DataModule, MNISTDataModule, PennTreebankDataModule
from lightning_landscape.models import ImageClassifier, LSTMLanguageModel

GOAL = 0.30  # of training's CPU time


class Case(NamedTuple):
    """A run: what is trained on what, for how long."""

    name: str
    model: Callable[[], pl.LightningModule]
    data: Callable[[Path], pl.LightningDataModule]
    epochs: int
    batches: int  # an epoch


CASES = (
    Case(
        "LeNet, MNIST",
        lambda: ImageClassifier(architecture="lenet"),
        lambda folder: MNISTDataModule(source=folder, batch_size=128),
        epochs=8,
        batches=400,
    ),
    Case(
        "ResNet-20, CIFAR-10",
        lambda: ImageClassifier(architecture="resnet20", in_channels=3, image_size=32, normalization="batch"),
        lambda folder: CIFAR10DataModule(source=folder, batch_size=64),
        epochs=5,
        batches=100,
    ),
    Case(
        "LSTM, Penn Treebank",
        LSTMLanguageModel,
        lambda folder: PennTreebankDataModule(source=folder, batch_size=20, bptt=20),
        epochs=5,
        batches=100,
    ),
)


def cpu_seconds() -> float:
    """CPU time of this process and its children so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def fit(case: Case, data: Path, folder: Path, *callbacks: pl.Callback) -> float:
    """CPU seconds of a fit."""
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=case.epochs,
        limit_train_batches=case.batches,
        limit_val_batches=0,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model, module = case.model(), case.data(data)
    start = cpu_seconds()
    trainer.fit(model, module)
    return cpu_seconds() - start


def measured(case: Case, data: Path) -> dict[str, Any]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        fit(case._replace(epochs=1, batches=min(20, case.batches)), data, Path(folder))
        bare = fit(case, data, Path(folder))
        callback = LevelSetConnectivity(dirpath=Path(folder) / "landscape", on_error="raise")
        watched = fit(case, data, Path(folder), callback)
    rows = callback.rows
    return {
        "run": case.name,
        "batches": case.epochs * case.batches,
        "CPU s without": f"{bare:.0f}",
        "CPU s with": f"{watched:.0f}",
        "share": f"{watched / bare - 1:.2f}",
        "checks": len(rows),
        "connected": sum(row["verdict"] == "connected" for row in rows),
        "undecided: budget spent": sum(row["reason"] == "budget" for row in rows),
        "`landscape/overhead`": f"{rows[-1]['overhead']:.2f}" if rows else "none",
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measures, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the three data sets")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    args = parser.parse_args()
    rows = []
    for case in (case for case in CASES if args.only in case.name):
        rows.append(measured(case, args.data))
        print(rows[-1], flush=True)
    args.out.write_text(f"{HEAD}\n{table(rows)}\n")


HEAD = f"""# What checks cost a run

`LevelSetConnectivity()` at its defaults (`overhead=0.25`, 8 batches define E, a check at the end of every epoch) beside
the same run without it, on CPUs. *Share* is how much more CPU time the run with it takes, figures and snapshots
included; at most {GOAL} is the goal. `landscape/overhead` counts training steps of work. Made by
`python -m scripts.benchmarks.overhead`.
"""

if __name__ == "__main__":
    main()
