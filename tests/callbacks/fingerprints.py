"""All that a training leaves behind, to compare bit for bit."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger
from torch import Tensor
from torch.utils.data import DataLoader

from tests.callbacks.watched_cases import Case, images

OURS = ("AverageWhenConnected", "LevelSetConnectivity", "SnapshotRecorder")


class Memory(Logger):
    """Keeps what is logged, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[tuple[int | None, dict[str, float]]] = []

    name = version = "memory"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if others := {key: value for key, value in metrics.items() if not key.startswith("landscape/")}:
            self.logged.append((step, others))


@dataclass
class Fingerprint:
    """All that a run leaves behind and that nobody else may change."""

    weights: dict[str, Tensor]
    logged: list[Any]
    metrics: dict[str, Tensor]
    batches: list[str]
    random_states: list[Any]
    checkpoints: dict[str, Any]


def train(case: Case, folder: Path, *callbacks: pl.Callback) -> Fingerprint:
    pl.seed_everything(1, verbose=False)
    module, logger = case.module(), Memory()
    checkpoint = ModelCheckpoint(folder / "checkpoints", save_top_k=-1, filename="{epoch}-{step}")
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=3,
        accelerator="cpu",
        logger=logger,
        log_every_n_steps=1,
        callbacks=[*case.callbacks(), checkpoint, *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        **case.trainer,
    )
    if case.datamodule is None:
        train_data = DataLoader(case.dataset(), 8, shuffle=True, **case.loader)
        trainer.fit(module, train_data, DataLoader(images(), 16))
    else:
        trainer.fit(module, datamodule=case.datamodule())
    states = [torch.get_rng_state(), random.getstate(), np.random.get_state()]  # noqa: NPY002
    saved = {path.name: torch.load(path, weights_only=True) for path in (folder / "checkpoints").glob("epoch=*")}
    for content in saved.values():
        for key in [key for key in content["callbacks"] if key.startswith(OURS)]:
            assert callbacks
            del content["callbacks"][key]
        for state in content["callbacks"].values():
            state.pop("dirpath", None)  # of ModelCheckpoint, which each run has for itself
            for key in [key for key in state if key.endswith("_path") or key == "best_k_models"]:
                state[key] = str(state[key]).replace(str(folder), "")
    metrics = {key: value for key, value in trainer.callback_metrics.items() if not key.startswith("landscape/")}
    return Fingerprint(module.state_dict(), logger.logged, metrics, module.batches, states, saved)


def assert_same(ours: Any, plain: Any, where: str = "") -> None:
    """Equal in every bit, NaN too."""
    assert type(ours) is type(plain), where
    if isinstance(plain, Fingerprint):
        assert_same(vars(ours), vars(plain), where)
    elif isinstance(plain, dict):
        assert list(ours) == list(plain), where
        for key in plain:
            assert_same(ours[key], plain[key], f"{where}/{key}")
    elif isinstance(plain, list | tuple):
        assert len(ours) == len(plain), where
        for index, (mine, other) in enumerate(zip(ours, plain, strict=True)):
            assert_same(mine, other, f"{where}/{index}")
    elif isinstance(plain, Tensor | np.ndarray):
        mine, other = np.asarray(ours), np.asarray(plain)
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape), where
        assert mine.tobytes() == other.tobytes(), where
    else:
        assert ours == plain or (ours != ours and plain != plain), f"{where}: {ours!r} and {plain!r}"
