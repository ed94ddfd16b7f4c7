"""Runs of two processes each, all of them forks of one that has only imported; each rank writes down what it saw."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from resumable import Net, data, rugged, without_figures
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.finders import DynamicStringSampling, LinearPath, PathFinder
from lightning_landscape.storage.named_tensors import content_hash, module_state
from lightning_landscape.storage.rows import NumberedRows

DEADLINE = 100  # seconds after which a rank counts as waiting for ever


class Recorder(pl.Callback):
    """Notes what was logged, epoch by epoch."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics.items()
        self.logged.append({key: float(value) for key, value in metrics if key.startswith("landscape/")})


class Failing(LinearPath):
    """A finder that draws random numbers and raises."""

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        torch.rand(5)
        raise RuntimeError("no path today")


class Slow(LinearPath):
    """A finder that outlasts the timeout of the run's process group."""

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        time.sleep(6)
        return super().connect(*args, **kwargs)


class Unnormalised(Net):
    """Without batch norm two ranks of half the batch size compute what one computes."""

    def __init__(self) -> None:
        super().__init__()
        self.net[1] = nn.Identity()


class Shares(IterableDataset[Any]):
    """A stream of which each rank reads its own half."""

    def __iter__(self) -> Iterator[Any]:
        examples = data().dataset
        rank = dist.get_rank() if dist.is_initialized() else 0
        return (examples[place] for place in range(rank, 64, 2))


def fail(*args: Any, **kwargs: Any) -> None:
    raise OSError("disk full")


def search() -> PathFinder:
    return DynamicStringSampling(max_depth=2, max_bead_steps=6, shorten=0, samples=3)


@dataclass
class Scenario:
    """One run: what is attached to it, and how it is made to go wrong."""

    pairs: str | None = "lagged"
    finder: Any = search
    options: dict[str, Any] = field(default_factory=dict)
    module: Any = Net
    devices: int = 2
    batch_size: int = 16
    trainer: dict[str, Any] = field(default_factory=dict)
    timeout: int = 60
    start: Any = None
    stream: bool = False


# What is drawn as a probe depends on the batches of the ranks.
PROBE = [next(iter(DataLoader(data().dataset, 32)))]
ACCUMULATING = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.3}
LINEAR = {
    "pairs": "twin",
    "finder": LinearPath,
    "module": Unnormalised,
    "trainer": ACCUMULATING,
    "options": {"batches": PROBE},
}
SCENARIOS = {
    "none": Scenario(pairs=None),
    "lagged": Scenario(),
    "twin": Scenario(pairs="twin"),
    "one rank": Scenario(**LINEAR, devices=1, batch_size=32),
    "two ranks": Scenario(**LINEAR),
    "check fails": Scenario(finder=Failing),
    "check fails and raises": Scenario(finder=Failing, options={"on_error": "raise"}),
    "start fails": Scenario(start=fail),
    "stream alone": Scenario(pairs=None, stream=True),
    "stream": Scenario(stream=True),
    "slow check": Scenario(finder=Slow, timeout=3, trainer={"max_epochs": 2}),
}


def fit(folder: Path, scenario: Scenario) -> dict[str, Any]:
    recorder, callbacks = Recorder(), []
    if scenario.start is not None:
        NumberedRows.start = scenario.start  # type: ignore[method-assign]
    if scenario.pairs is not None:
        options = {"dirpath": folder, "num_batches": 2, "overhead": None, "loss_fn": rugged} | scenario.options
        callbacks = [LevelSetConnectivity(scenario.pairs, finder=scenario.finder(), **options)]
    timeout = timedelta(seconds=scenario.timeout)
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=scenario.devices,
        strategy=DDPStrategy(process_group_backend="gloo", timeout=timeout) if scenario.devices > 1 else "auto",
        logger=False,
        callbacks=[recorder, *callbacks],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 3} | scenario.trainer,
    )
    module, error = scenario.module(), None
    torch.manual_seed(7)
    try:
        trainer.fit(module, DataLoader(Shares() if scenario.stream else data().dataset, scenario.batch_size))
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    twin = getattr(callbacks[0]._pairing, "module", None) if callbacks else None
    return {
        "error": error,
        "logged": recorder.logged,
        "rows": callbacks[0].rows if callbacks else [],
        "weights": content_hash(dict(module.named_parameters())),
        "twin": None if twin is None else {k: v.tolist() for k, v in module_state(twin).items()},
        "random_state": content_hash({"torch": torch.get_rng_state()}),
    }


def start(folder: Path, name: str, rank: int, port: int) -> int:
    """Forks one rank, and gives its process id."""
    child = os.fork()
    if child == 0:
        signal.alarm(DEADLINE)
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        result = fit(folder / name, SCENARIOS[name])
        (folder / f"{name}-{rank}.json").write_text(json.dumps(result))
        os._exit(0)
    return child


def main(folder: Path, *names: str) -> None:
    torch.set_num_threads(1)
    without_figures()
    for name in names or SCENARIOS:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = [start(folder, name, rank, port) for rank in range(SCENARIOS[name].devices)]
        statuses = [os.waitpid(child, 0)[1] for child in children]
        print(f"{name}: {statuses}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
