"""Runs of two processes with MergeTree and ForkStability, forks of one that has only imported."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from resumable import data
from torch import Tensor
from torch.utils.data import DataLoader
from two_ranks import DEADLINE, Unnormalised

from lightning_landscape.callbacks import ForkStability, MergeTree, fork, merge_tree
from lightning_landscape.finders import LinearPath
from lightning_landscape.storage.named_tensors import content_hash


def error_of(module: Any, batch: Any) -> Tensor:
    return (module.net(batch[0]).argmax(1) != batch[1]).double().mean()


def broken(*args: Any, **kwargs: Any) -> None:
    raise OSError("disk full")


# Every step sees all 64 examples. Whether anything is attached, how many processes, how many examples each has in a
# batch, whether the work on rank zero is broken, and on_error.
SCENARIOS: dict[str, tuple[bool, int, int, bool, str]] = {
    "none": (False, 2, 32, False, "warn"),
    "two ranks": (True, 2, 32, False, "raise"),
    "one rank": (True, 1, 64, False, "raise"),
    "fails": (True, 2, 32, True, "warn"),
    "fails and raises": (True, 2, 32, True, "raise"),
}


def fit(folder: Path, attached: bool, devices: int, batch_size: int, fails: bool, on_error: Any) -> dict[str, Any]:
    callbacks: list[Any] = []
    if attached:
        options = {"num_batches": 1, "batches": list(DataLoader(data().dataset, 64)), "on_error": on_error}
        callbacks = [
            MergeTree(finder=LinearPath(samples=2), dirpath=folder / "tree", every_n_snapshots=1, **options),
            ForkStability([0, 2], error_fn=error_of, samples=3, dirpath=folder / "fork", **options),
        ]
    if fails:
        merge_tree.search_heights = fork.train_child = broken  # type: ignore[assignment]
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=3,
        accelerator="cpu",
        devices=devices,
        strategy=DDPStrategy(process_group_backend="gloo") if devices > 1 else "auto",
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module, error = Unnormalised(), None
    torch.manual_seed(7)
    try:
        trainer.fit(module, DataLoader(data().dataset, batch_size))
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("landscape/")}
    return {
        "error": error,
        "metrics": {key: repr(value) for key, value in metrics.items() if not key.endswith("seconds")},
        "trees": callbacks[0].rows if callbacks else [],
        "forks": [row for row in callbacks[1].rows if row["reason"] is None] if callbacks else [],
        "weights": content_hash(dict(module.named_parameters())),
        "random_state": content_hash({"torch": torch.get_rng_state()}),
    }


def start(folder: Path, name: str, rank: int, port: int) -> int:
    """Forks one rank, and gives its process id."""
    child = os.fork()
    if child == 0:
        signal.alarm(DEADLINE)
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        result = fit(folder / name, *SCENARIOS[name])
        (folder / f"{name}-{rank}.json").write_text(json.dumps(result))
        os._exit(0)
    return child


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for module in (merge_tree, fork):
        module.save_figure = lambda *args: None  # type: ignore[attr-defined]
    for name, (_, devices, *_) in SCENARIOS.items():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for child in [start(folder, name, rank, port) for rank in range(devices)]:
            os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
