"""Modules, trainers, loggers and callbacks of the package ``lightning``, as those of pytorch_lightning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning_fabric.utilities.exceptions as fabric
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import wandb
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_landscape import LossSurface, read_reference
from lightning_landscape.attach.strategies import require_replicated_weights
from lightning_landscape.callbacks import (
    AccelerationCertificate,
    ForkStability,
    LevelSetConnectivity,
    MergeTree,
    SnapshotRecorder,
)
from lightning_landscape.either_lightning import MisconfigurationException, alike, both
from lightning_landscape.finders import DynamicStringSampling
from lightning_landscape.report.loggers import report
from lightning_landscape.sparse_coding import LassoProblem, SparseCodingBatch, reference_optimum
from tests.callbacks.fingerprints import assert_same
from tests.callbacks.resumable import data
from tests.report.wandb_file import WandbFile

L = pytest.importorskip("lightning.pytorch", reason="the package lightning is not installed: pip install lightning")

REPOSITORY = Path(__file__).parents[2]
FAST: dict[str, Any] = {"num_batches": 2, "on_error": "raise"}


class Net(L.LightningModule):  # type: ignore[misc, name-defined]
    """Dropout and batch norm, so that a random number or a statistic out of place shows."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Coder(L.LightningModule):  # type: ignore[misc, name-defined]
    """A sparse coding network of one factorised layer."""

    def __init__(self) -> None:
        super().__init__()
        dictionary = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
        self.problem = LassoProblem(dictionary / dictionary.norm(dim=0), 0.1)
        layer = nn.Module()
        layer.A, layer.S = torch.eye(6), nn.Parameter(torch.full((6,), self.problem.lipschitz))  # type: ignore[assignment]
        self.layers = nn.ModuleList([layer])

    def iterates(self, x: Tensor) -> list[Tensor]:
        z = x.new_zeros(len(x), 6)
        return [z, nn.functional.softshrink(z - self.problem.gradient(x, z) / self.layers[0].S, 0.01)]

    def training_step(self, batch: SparseCodingBatch, batch_idx: int) -> Tensor:
        loss = self.problem.objective(batch.x, self.iterates(batch.x)[-1]).mean()
        self.log("loss", loss, batch_size=8)
        return loss

    def validation_step(self, batch: SparseCodingBatch, batch_idx: int) -> None:
        """Looked at by the callback."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def signals(module: Coder) -> DataLoader[Any]:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    batch = SparseCodingBatch(x, solution=reference_optimum(module.problem, x)[0])
    return DataLoader([batch], batch_size=None)


class Memory(L.loggers.Logger):  # type: ignore[misc, name-defined]
    """Keeps what is logged, in order, but for our own numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[Any] = []

    name = version = "memory"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        others = {key: value for key, value in metrics.items() if not key.startswith(("landscape", "certificate"))}
        if others.keys() - {"epoch"}:
            self.logged.append((step, others))


def fit(folder: Path, *callbacks: Any, module: Any = None, loaders: Any = None, **options: Any) -> Any:
    ckpt_path = options.pop("ckpt_path", None)
    settings = {"logger": False, "enable_checkpointing": False, "max_epochs": 3, "enable_progress_bar": False}
    L.seed_everything(3, verbose=False)
    trainer = L.Trainer(
        default_root_dir=folder, accelerator="cpu", callbacks=list(callbacks), log_every_n_steps=1,
        enable_model_summary=False, **settings | options,
    )  # fmt: skip
    loaders = loaders or (DataLoader(data().dataset, 16, shuffle=True), data())
    trainer.fit(module or Net(), *loaders, ckpt_path=ckpt_path)
    return trainer


def left(folder: Path, *callbacks: Any, **options: Any) -> dict[str, Any]:
    """What a run leaves behind: weights, logged numbers, random states."""
    logger = Memory()
    trainer = fit(folder, *callbacks, logger=logger, **options)
    states = [torch.get_rng_state(), np.random.get_state()]  # noqa: NPY002
    return {"weights": trainer.model.state_dict(), "logged": logger.logged, "random states": states}


def finder() -> DynamicStringSampling:
    return DynamicStringSampling(max_depth=1, max_bead_steps=3, shorten=0, samples=3)


def ours(kind: str, folder: Path) -> Any:
    if kind == "tree":
        return MergeTree(finder=finder(), dirpath=folder, every_n_snapshots=1, **FAST)
    if kind == "fork":
        return ForkStability([0, 4], dirpath=folder, samples=3, **FAST)
    if kind == "recorder":
        return SnapshotRecorder(folder, every_n_epochs=1, monitor="val_loss", thresholds=[100.0])
    reference = folder.parent / "reference.ckpt"
    torch.save({"state_dict": Net().state_dict()}, reference)
    return LevelSetConnectivity(
        kind, finder=finder(), dirpath=folder, reference=reference if kind == "reference" else None, **FAST
    )


@pytest.mark.parametrize("kind", ["lagged", "first", "reference", "twin", "tree", "fork", "recorder"])
@pytest.mark.usefixtures("blank_figures")
def test_each_callback_works_and_leaves_training_as_it_was(tmp_path: Path, kind: str) -> None:
    options = {"accumulate_grad_batches": 2} if kind in ("twin", "fork") else {}
    callback = ours(kind, tmp_path / "ours")
    assert_same(left(tmp_path, callback, **options), left(tmp_path, **options))
    assert len(callback.snapshots if kind == "recorder" else callback.rows) >= 2


def test_certificate_works_and_leaves_training_as_it_was(tmp_path: Path) -> None:
    def run(*callbacks: Any) -> tuple[dict[str, Any], Any]:
        module = Coder()
        loaders = (signals(module), signals(module))
        return left(tmp_path, *callbacks, module=module, loaders=loaders), module.trainer.callback_metrics

    watched, metrics = run(AccelerationCertificate())
    assert_same(watched, run()[0])
    assert metrics["certificate/layer_1/valid"] in (0.0, 1.0)
    assert 0 <= metrics["certificate/design_holds_0"] <= 1


@pytest.mark.usefixtures("blank_figures")
def test_beside_callbacks_of_lightning_that_change_training_or_read_our_numbers(tmp_path: Path) -> None:
    def beside() -> list[Any]:
        return [
            L.callbacks.GradientAccumulationScheduler({0: 1, 1: 2}),
            L.callbacks.StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=2),
        ]

    best = L.callbacks.ModelCheckpoint(tmp_path, monitor="landscape/barrier", save_last=True)
    stop = L.callbacks.EarlyStopping("landscape/barrier", check_finite=False, check_on_train_epoch_end=True)
    callback = ours("lagged", tmp_path / "ours")
    watched = left(tmp_path, callback, *beside(), best, stop, enable_checkpointing=True)
    assert_same(watched, left(tmp_path, *beside()))
    assert best.best_model_path
    assert stop.best_score.isfinite()


@pytest.mark.usefixtures("blank_figures")
def test_a_resumed_run_goes_on_and_its_checkpoint_is_a_reference(tmp_path: Path) -> None:
    checkpoint = L.callbacks.ModelCheckpoint(tmp_path, filename="end")
    fit(tmp_path, ours("first", tmp_path / "ours"), checkpoint, enable_checkpointing=True)
    end = tmp_path / "end.ckpt"
    callback = ours("first", tmp_path / "ours")
    fit(tmp_path, callback, ckpt_path=end, max_epochs=5)
    assert [row["epoch"] for row in callback.rows] == [1, 2, 3, 4]
    surface = LossSurface(Net(), list(data()))
    assert surface.point(read_reference(end)).isfinite().all()


@pytest.mark.usefixtures("blank_figures")
def test_wandb_and_tensorboard_of_lightning_get_numbers_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for kind in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{kind}_DIR", str(tmp_path / kind))
    board = L.loggers.TensorBoardLogger(tmp_path)
    service = L.loggers.WandbLogger(save_dir=tmp_path, offline=True)
    fit(tmp_path, ours("lagged", tmp_path / "ours"), logger=[board, service])
    wandb.finish()
    (last,) = [row for row in WandbFile(tmp_path).history if row.get("landscape/check") == 2]
    assert {"landscape/barrier", "landscape/checks.path", "landscape/profile.path", "landscape/history.path"} <= set(
        last
    )
    written = events.EventAccumulator(board.log_dir)
    written.Reload()
    assert {"landscape/profile", "landscape/history"} <= set(written.Tags()["images"])
    assert "landscape/barrier" in written.Tags()["scalars"]


@pytest.mark.parametrize("name", ["WandbLogger", "TensorBoardLogger", "MLFlowLogger", "CSVLogger", "CometLogger"])
def test_a_logger_gets_what_its_twin_gets(name: str) -> None:
    assert report.dispatch(getattr(L.loggers, name)) is report.dispatch(getattr(pl.loggers, name))


@pytest.mark.parametrize("name", ["FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"])
def test_sharded_weights_are_refused(name: str) -> None:
    kind = getattr(L.strategies, name)
    trainer: Any = SimpleNamespace(strategy=kind.__new__(kind))
    with pytest.raises(MisconfigurationException, match=f"needs the whole weights in every process, and {name}"):
        require_replicated_weights(trainer, "MergeTree")


def test_refusals_are_caught_under_either_name() -> None:
    twin = sys.modules["lightning.fabric.utilities.exceptions"].MisconfigurationException
    assert issubclass(MisconfigurationException, fabric.MisconfigurationException)
    assert issubclass(MisconfigurationException, twin)
    assert both(fabric.MisconfigurationException) == (fabric.MisconfigurationException, twin)
    assert alike(pl.Trainer, Net()) is L.Trainer  # type: ignore[arg-type]
    assert alike(pl.Trainer, pl.LightningModule()) is pl.Trainer


@pytest.mark.slow
def test_two_processes_of_lightning_do_what_two_of_pytorch_lightning_do(tmp_path: Path) -> None:
    """The runs of ``two_ranks.py`` once more, their imports translated."""
    names = ("none", "lagged", "twin", "check fails")
    results = {}
    for package in ("pytorch_lightning", "lightning.pytorch"):
        folder = tmp_path / package
        folder.mkdir()
        for file in ("two_ranks.py", "resumable.py"):
            text = (REPOSITORY / "tests" / "callbacks" / file).read_text()
            (folder / file).write_text(text.replace("pytorch_lightning", package))
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(folder / "two_ranks.py"), str(folder), *names]
        subprocess.run(command, env=environment, timeout=400, check=True)
        for name in names:
            ranks = [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]
            results[package, name] = [
                {key: rank[key] for key in ("error", "weights", "twin", "random_state")}
                | {"heights": [row["height"] for row in rank["rows"]]}
                for rank in ranks
            ]
            assert ranks[0]["weights"] == results[package, "none"][0]["weights"]
    assert len(results["lightning.pytorch", "lagged"][0]["heights"]) == 2
    for name in names:
        assert str(results["lightning.pytorch", name]) == str(results["pytorch_lightning", name])
