"""Three hundred checks of one run: do memory, descriptors and threads stay, and is nothing written twice?

``python -m scripts.stress.many_checks`` prints a table.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape.callbacks import LevelSetConnectivity, SnapshotRecorder
from lightning_landscape.callbacks.keeping import Keep
from lightning_landscape.finders import LinearPath
from lightning_landscape.storage import snapshots
from scripts.stress.killed_run import Net, without_figures

PAGE = resource.getpagesize()


class Gauge(pl.Callback):
    """Looks at the process and the disk after each epoch, which has a check.

    Attributes:
        readings: what there was, by the name of the quantity.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.readings: dict[str, list[float]] = {
            name: [] for name in ("memory, MiB", "descriptors", "threads", "snapshots on the disk")
        }

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After the check: callbacks are called in their order."""
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20
        files = {path.stat().st_ino for path in self.folder.rglob("*.safetensors")}
        threads = len(os.listdir("/proc/self/task"))
        descriptors = len(os.listdir("/proc/self/fd"))
        for readings, value in zip(self.readings.values(), (resident, descriptors, threads, len(files)), strict=True):
            readings.append(value)


class Written:
    """Bytes that the storage room writes, by what they are, while it is entered."""

    def __init__(self) -> None:
        self.rows = self.weights = 0

    def __enter__(self) -> Written:
        self._write, self._save = os.write, vars(snapshots)["write_safetensors"]

        def write(handle: int, data: Any) -> int:
            count = self._write(handle, data)
            self.rows += count if bytes(data[:1]) == b"{" else 0
            return count

        def save(path: Path, *args: Any) -> None:
            self._save(path, *args)
            self.weights += path.stat().st_size

        os.write = write
        vars(snapshots)["write_safetensors"] = save
        return self

    def __exit__(self, *error: object) -> None:
        os.write = self._write
        vars(snapshots)["write_safetensors"] = self._save


def measure(checks: int, folder: Path, keep: Keep = "needed") -> dict[str, Any]:
    """Makes so many checks in a folder.

    Returns:
        ``readings`` of the :class:`Gauge`, and ``rows`` and ``weights``: bytes written and bytes kept, of the weights
        those of all moments that a callback recorded, kept or not.
    """
    gauge = Gauge(folder)
    callback = LevelSetConnectivity(
        finder=LinearPath(samples=1),
        overhead=None,
        num_batches=1,
        dirpath=folder / "landscape",
        keep=keep,
        on_error="raise",
    )
    recorder = SnapshotRecorder(folder / "snapshots", every_n_epochs=1, keep=1, on_error="raise")
    inputs = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=checks + 1,
        accelerator="cpu",
        logger=False,
        callbacks=[callback, recorder, gauge],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with Written() as written:
        trainer.fit(Net(), DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), 16))
    size = next(path.stat().st_size for path in folder.rglob("*.safetensors"))
    return {
        "readings": gauge.readings,
        "checks": len(callback.rows),
        "rows": (written.rows, (folder / "landscape" / "checks.jsonl").stat().st_size),
        "weights": (written.weights, (checks + 1) * size),
    }


def table(measured: Mapping[str, Any], early: int) -> str:
    """What there was after an early check and after the last, in Markdown."""
    lines = [f"| | after {early} checks | after {measured['checks']} | most |", "| --- | ---: | ---: | ---: |"]
    for name, readings in measured["readings"].items():
        lines.append(f"| {name} | {readings[early]:.0f} | {readings[-1]:.0f} | {max(readings):.0f} |")
    lines += ["", "| bytes | written | kept, or of all moments | ratio |", "| --- | ---: | ---: | ---: |"]
    for name in ("rows", "weights"):
        written, kept = measured[name]
        lines.append(f"| {name} | {written} | {kept} | {written / kept:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description="Memory, descriptors, threads and bytes over many checks of one run.")
    parser.add_argument("--checks", type=int, default=300)
    parser.add_argument("--early", type=int, default=30, help="number of the check that the last one is compared with")
    parser.add_argument("--no-figures", action="store_true", help="draw none: drawing takes longer than all the rest")
    args = parser.parse_args()
    if args.no_figures:
        without_figures()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(table(measure(args.checks, Path(folder)), args.early))


if __name__ == "__main__":
    main()
