"""One small run with every callback that writes files, which can be killed at a named moment and resumed.

All of it happens in forks of a process that has only imported.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape.callbacks import LevelSetConnectivity, MergeTree, SnapshotRecorder, level_set, merge_tree
from lightning_landscape.finders import DynamicStringSampling
from lightning_landscape.storage.claims import LOCK
from lightning_landscape.storage.named_tensors import content_hash, module_state

EPOCHS = 4


@dataclass(frozen=True)
class Kill:
    """When a run is killed.

    Attributes:
        moment: ``"random"``, or a key of ``MOMENTS``.
        at: the CPU seconds that the run has taken, or the number of the call of that kind.
        pairs: of the run's ``LevelSetConnectivity``.
        figures: whether the run draws its figures.
    """

    moment: str
    at: float
    pairs: str
    figures: bool


class Net(pl.LightningModule):
    """Two layers with batch norm, over data in their order."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum, which a resumed run has to have again."""
        return torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9)


def rugged(module: Any, batch: list[Tensor]) -> Tensor:
    """A loss with hills between any two points, so that every check has to search."""
    loss = nn.functional.cross_entropy(module.net(batch[0]), batch[1])
    return loss + 0.3 * torch.cos(80 * module.net[0].weight.sum())


def fit(folder: Path, pairs: str) -> dict[str, Any]:
    """Trains from the latest checkpoint of the folder, if there is one, and tells what came of it."""
    finder = DynamicStringSampling(max_depth=2, max_bead_steps=6, shorten=0, samples=3)
    options: dict[str, Any] = {"finder": finder, "num_batches": 2, "overhead": None, "loss_fn": rugged}
    check = LevelSetConnectivity(pairs, dirpath=folder / "landscape", on_error="raise", **options)
    tree = MergeTree(dirpath=folder / "tree", max_points=3, on_error="raise", **options)
    recorder = SnapshotRecorder(folder / "snapshots", every_n_steps=3, on_error="raise")
    saved = ModelCheckpoint(folder / "checkpoints", "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        callbacks=[check, tree, recorder, saved],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    batches = DataLoader(TensorDataset(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long()), 16)
    # From the checkpoint of the last epoch Lightning calls nobody: a tree that is not made yet needs the one before.
    found = sorted((folder / "checkpoints").glob("*.ckpt"))[: EPOCHS - 1]
    module = Net()
    trainer.fit(module, batches, ckpt_path=found[-1] if found else None)
    assert tree.tree is not None
    return {
        "rows": [{key: value for key, value in row.items() if key != "seconds"} for row in check.rows],
        "weights": content_hash(module_state(module)),
        "tree": tree.tree.to_dict(),
        "snapshots": [[snapshot.name, snapshot.content_hash] for snapshot in recorder.snapshots],
        "folders": [str(each.folder.relative_to(folder)) for each in (check, tree, recorder) if each.folder],
    }


@dataclass(frozen=True)
class Moment:
    """A call in which a run can be killed.

    Attributes:
        owner: module or class of the function.
        name: of the function.
        when: ``"before"`` it does anything, ``"half"`` of its bytes later, or ``"after"`` it.
    """

    owner: Any
    name: str
    when: str


MOMENTS = {
    "fsync": Moment(os, "fsync", "before"),
    "rename": Moment(os, "replace", "before"),
    "renamed": Moment(os, "replace", "after"),
    "link": Moment(os, "link", "after"),
    "unlink": Moment(os, "unlink", "after"),
    "append": Moment(os, "write", "half"),
    "figure": Moment(Figure, "savefig", "after"),
    "checkpoint": Moment(pl.Trainer, "save_checkpoint", "before"),
    "checkpointed": Moment(pl.Trainer, "save_checkpoint", "after"),
}


def arm(kill: Kill | None, folder: Path) -> dict[str, int]:
    """Has this process kill itself at the moment; counts the calls of every kind."""
    calls = dict.fromkeys(MOMENTS, 0)

    def counts(key: str, args: Sequence[Any]) -> bool:
        """Whether a call is one of ours: a row that is appended, a file of the run that is removed."""
        if key == "append":
            return bytes(args[1]).startswith(b"{")
        return key != "unlink" or (folder in Path(args[0]).parents and Path(args[0]).name != LOCK)

    def armed(key: str, moment: Moment, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if not counts(key, args):
                return function(*args, **options)
            calls[key] += 1
            due = kill is not None and kill.moment == key and kill.at == calls[key]
            if due and moment.when == "half":
                function(args[0], args[1][: len(args[1]) // 2])
            if due and moment.when != "after":
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **options)
            if due:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for key, moment in MOMENTS.items():
        setattr(moment.owner, moment.name, armed(key, moment, getattr(moment.owner, moment.name)))
    return calls


def begin(folder: Path, pairs: str, figures: bool, kill: Kill | None) -> int:
    """Forks a run in a folder, which writes what came of it beside that, and gives its process id."""
    child = os.fork()
    if child:
        return child
    with open(folder.with_suffix(".log"), "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    torch.set_num_threads(1)
    if not figures:
        for name in ("profile_figure", "history_figure", "save_figure"):
            setattr(level_set, name, lambda *args: None)
        merge_tree.save_figure = lambda *args: None  # type: ignore[attr-defined]
    try:
        calls = arm(kill, folder)
        outcome = fit(folder, pairs) | {"calls": calls, "seconds": time.process_time()}
        folder.with_suffix(".json").write_text(json.dumps(outcome))
    finally:
        os._exit(0)
