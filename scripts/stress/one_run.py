"""One small DDP run with a fault on one rank at one phase; its ranks are forks of a process that has only imported."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape.attach.meeting import Meeting
from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.connection import Connection
from lightning_landscape.finders import LinearPath

STEPS = 3  # of training in an epoch
SEARCH_SECONDS = 4.0  # times the timeout, of the search that a fault interrupts


@dataclass(frozen=True)
class Harm:
    """What goes wrong.

    Attributes:
        size: number of ranks.
        rank: the one that is harmed.
        phase: ``"setup"``, ``"before"`` a check, ``"joining"`` it while the others wait, in the ``"search"``, or at
            the ``"answer"``.
        fault: ``"kill"``, ``"stop"``, ``"sleep"``, ``"raise"``, or ``"leave"``: the rank has fewer batches.
        timeout: of the process group, in seconds.
    """

    size: int
    rank: int
    phase: str
    fault: str
    timeout: float


class Net(pl.LightningModule):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Saboteur(pl.Callback):
    """Does the harm; it stands before the callback under test."""

    def __init__(self, harm: Harm, folder: Path) -> None:
        self.harm = harm
        self.folder = folder

    def strike(self, trainer: pl.Trainer, phase: str) -> None:
        """Harms this process if it is the one, and this the phase."""
        if phase != self.harm.phase or trainer.global_rank != self.harm.rank:
            return
        if self.harm.fault == "leave":
            self.note()
            return
        if phase == "joining":
            time.sleep(1)  # the others wait by now
        self.note()
        commit(self.harm.fault)

    def note(self) -> None:
        """Writes down when it happened."""
        (self.folder / "struck").write_text(repr(time.time()))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before the ranks agree on a folder."""
        self.strike(trainer, "setup")

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """After the last step."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self.strike(trainer, "before")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Just before the check; a strike during it is prepared here."""
        self.strike(trainer, "joining")
        if self.harm.phase == "search" and trainer.global_rank == self.harm.rank != 0:
            threading.Timer(1.5, self.strike, (trainer, "search")).start()
        if self.harm.phase == "answer" and trainer.global_rank == self.harm.rank:
            moment = "answer" if self.harm.rank == 0 else "_look_at_zero"
            once = getattr(Meeting, moment)

            def harmed(meeting: Meeting, *args: Any) -> Any:
                self.strike(trainer, "answer")
                return once(meeting, *args)

            setattr(Meeting, moment, harmed)


class Search(LinearPath):
    """A search that takes long where it is to be interrupted."""

    saboteur: Saboteur
    trainer: pl.Trainer

    def connect(self, *args: Any, **kwargs: Any) -> Connection:
        """Waits, or is harmed, and then searches."""
        harm = self.saboteur.harm
        self.saboteur.strike(self.trainer, "search")
        if harm.phase == "search":
            time.sleep(SEARCH_SECONDS * harm.timeout)
        return super().connect(*args, **kwargs)


def commit(fault: str) -> None:
    """Harms this process."""
    if fault == "raise":
        raise RuntimeError("harmed on purpose")
    if fault == "sleep":
        time.sleep(600)
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[fault])


def fit(harm: Harm, folder: Path, rank: int) -> str:
    """Trains as one rank, and gives the error that ended it, or nothing."""
    torch.manual_seed(0)
    saboteur, search = Saboteur(harm, folder), Search()
    steps = STEPS - (harm.fault == "leave" and rank == harm.rank)
    inputs = torch.randn(4 * steps, 4)
    batches = DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), 4)
    callback = LevelSetConnectivity(
        "first", finder=search, dirpath=folder / "landscape", num_batches=1, on_error="raise"
    )
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=2,
        accelerator="cpu",
        devices=harm.size,
        strategy=DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=harm.timeout)),
        logger=False,
        callbacks=[saboteur, callback],
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    search.saboteur, search.trainer = saboteur, trainer
    try:
        trainer.fit(Net(), batches)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main(folder: Path, harm: Harm) -> None:
    """Forks the ranks, and writes when and how each ended; the harmed one is ended with the last of the others."""
    torch.set_num_threads(1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children: dict[int, int] = {}
    for rank in range(harm.size):
        child = os.fork()
        if child == 0:
            os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            error = fit(harm, folder, rank)
            (folder / f"end-{rank}.json").write_text(json.dumps({"error": error, "moment": time.time()}))
            atexit._run_exitfuncs()  # the process group is left there
            os._exit(0)
        children[child] = rank
    ended: list[int] = []
    deadline = time.time() + 60 + 6 * harm.timeout
    expected = {rank for rank in range(harm.size) if rank != harm.rank or harm.fault == "leave"}
    while time.time() < deadline and not expected <= set(ended):
        child, _ = os.waitpid(-1, os.WNOHANG)
        if child:
            ended.append(children.pop(child))
        else:
            time.sleep(0.05)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    struck = folder / "struck"
    outcome = {
        "struck": float(struck.read_text()) if struck.exists() else None,
        "expected": sorted(expected),
        "ended": ended,
        "ends": {path.stem[len("end-") :]: json.loads(path.read_text()) for path in folder.glob("end-*.json")},
    }
    (folder / "outcome.json").write_text(json.dumps(outcome))
