"""Training is the same, bit for bit, with our callbacks attached and without them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint, WeightAveraging
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from lightning_landscape.callbacks import LevelSetConnectivity, SnapshotRecorder, level_set
from lightning_landscape.finders import DynamicStringSampling

SEARCH = {"num_batches": 2, "overhead": None, "margin": 0.0}
OURS = ("LevelSetConnectivity", "SnapshotRecorder")


class Classifier(pl.LightningModule):
    """A small CNN with dropout and batch norm; the step's hash of its batch is what the data order is judged by."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(16, 3)
        )
        self.batches: list[str] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.saw(batch)
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    def saw(self, batch: list[Tensor]) -> None:
        self.batches.append(hashlib.sha256(b"".join(part.numpy().tobytes() for part in batch)).hexdigest())


class Measured(Classifier):
    """Logs torchmetrics, one of which keeps all that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = MulticlassAccuracy(3)
        self.auroc = MulticlassAUROC(3)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.saw(batch)
        logits = self.net(batch[0])
        self.accuracy(logits, batch[1])
        self.auroc.update(logits.detach(), batch[1])
        self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)
        self.log("auroc", self.auroc, on_epoch=True)
        return nn.functional.cross_entropy(logits, batch[1])


class Scheduled(Classifier):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, self.trainer.estimated_stepping_batches)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Overwriting(Classifier):
    """Changes its batch in place."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.saw(batch)
        batch[0].mul_(0.5).add_(torch.randn_like(batch[0]) if self.training else 0.0)
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])


class Gan(Classifier):
    """Two optimisers, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Linear(5, 16)
        self.critic = nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.2), nn.LeakyReLU(), nn.Linear(8, 1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.saw(batch)
        images = batch[0].flatten(1)
        for index, optimizer in enumerate(self.optimizers()):
            self.toggle_optimizer(optimizer)
            fake = self.critic(self.generator(torch.randn(len(images), 5)))
            loss = -fake.mean() if index == 0 else fake.mean() - self.critic(images).mean()
            self.log(f"loss_{index}", loss)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in (self.generator, self.critic)]


class Augmented(Dataset[Any]):
    """Draws its noise from a generator of its own."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.inner = images()

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        image, label = self.inner[index]
        return image + torch.from_numpy(self.rng.normal(size=image.shape).astype(np.float32)), label


class Jitter:
    """A collate function with a state."""

    def __init__(self) -> None:
        self.rng = random.Random(0)

    def __call__(self, items: list[Any]) -> list[Tensor]:
        inputs, labels = default_collate(items)
        return [inputs * self.rng.random(), labels]


class Collating(pl.LightningDataModule):
    """Collates by a method of its own, as many do, and so reaches the trainer from there."""

    def __init__(self) -> None:
        super().__init__()
        self.jitter = Jitter()

    def collate(self, items: list[Any]) -> list[Tensor]:
        assert self.trainer is not None
        return self.jitter(items)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(images(), 8, shuffle=True, collate_fn=self.collate)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(images(), 16)


def images() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(32, 1, 4, 4, generator=generator)
    return TensorDataset(inputs, inputs.flatten(1)[:, :3].argmax(1))


def critic_loss(module: Any, batch: list[Tensor]) -> Tensor:
    fake = module.generator(torch.linspace(-1, 1, 5 * len(batch[0])).reshape(-1, 5))
    return nn.functional.softplus(module.critic(fake)).mean()


@dataclass
class Case:
    """One kind of training: a module, its data and what the trainer is told."""

    module: Callable[[], Any] = Classifier
    dataset: Callable[[], Dataset[Any]] = images
    loader: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: Callable[[], list[pl.Callback]] = list
    datamodule: Callable[[], pl.LightningDataModule] | None = None
    loss_fn: Any = None
    pairs: tuple[str, ...] = ("lagged", "first", "reference", "twin")


CASES = {
    "digits": Case(),
    "torchmetrics": Case(Measured),
    "gan": Case(Gan, loss_fn=critic_loss, pairs=("lagged", "first", "reference")),
    "accumulation": Case(trainer={"accumulate_grad_batches": 3}),
    "two workers": Case(loader={"num_workers": 2}),
    "persistent workers": Case(dataset=Augmented, loader={"num_workers": 1, "persistent_workers": True}),
    "ema": Case(callbacks=lambda: [EMAWeightAveraging(decay=0.8)]),
    "averaging": Case(callbacks=lambda: [WeightAveraging()]),
    "compiled": Case(lambda: torch.compile(Classifier(), backend="eager")),
    "bf16": Case(trainer={"precision": "bf16-mixed"}),
    "own generator": Case(dataset=Augmented),
    "own generator in collate": Case(datamodule=Collating),
    "batch changed in place": Case(Overwriting, loss_fn=lambda m, b: nn.functional.cross_entropy(m.net(b[0]), b[1])),
    "schedule": Case(Scheduled, trainer={"gradient_clip_val": 0.1}),
    "limits": Case(trainer={"limit_train_batches": 3, "val_check_interval": 2}),
    "clipping by value": Case(trainer={"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
}
SLOW = ("compiled", "two workers", "averaging", "clipping by value")


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
    saved = {path.name: torch.load(path, weights_only=True) for path in (folder / "checkpoints").iterdir()}
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


def checks(case: Case, folder: Path, pairs: str, **options: Any) -> LevelSetConnectivity:
    finder = DynamicStringSampling(max_depth=2, max_bead_steps=3, shorten=1, samples=3)
    reference = next((folder.parent / "plain" / "checkpoints").iterdir()) if pairs == "reference" else None
    return LevelSetConnectivity(
        pairs, finder=finder, reference=reference, loss_fn=case.loss_fn, name=pairs, dirpath=folder / pairs,
        on_error="raise", **SEARCH | options
    )  # fmt: skip


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest; the first test has the figures."""
    for name in ("profile_figure", "history_figure", "save_figure"):
        monkeypatch.setattr(level_set, name, lambda *args: None)


@pytest.mark.parametrize("pairs", ["lagged", "first", "reference", "twin"])
def test_each_pairing_leaves_training_as_it_was(tmp_path: Path, pairs: str) -> None:
    case = CASES["digits"]
    plain = train(case, tmp_path / "plain")
    callback = checks(case, tmp_path / "ours", pairs, every_n_epochs=2 if pairs in ("reference", "twin") else 1)
    assert_same(train(case, tmp_path / "ours", callback), plain)
    assert callback.rows
    assert all(row["reason"] != "error" for row in callback.rows)
    assert pairs != "twin" or sum(row["gradient_steps"] for row in callback.rows) > 0
    assert len(plain.batches) == 12
    assert len(set(plain.batches)) == 12


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CASES])
def test_all_callbacks_together_leave_training_as_it_was(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    plain = train(case, tmp_path / "plain")
    ours = [checks(case, tmp_path / "ours", pairs) for pairs in case.pairs]
    recorders = [
        SnapshotRecorder(tmp_path / "ours", every_n_steps=2),
        SnapshotRecorder(tmp_path / "ours", every_n_epochs=1),
        SnapshotRecorder(tmp_path / "ours", monitor="val_loss", thresholds=[100.0]),
    ]
    assert_same(train(case, tmp_path / "ours", *ours, *recorders), plain)
    assert [len(callback.rows) for callback in ours] == [{"lagged": 2, "first": 2}.get(p, 3) for p in case.pairs]
    assert all(row["work"] > 0 for callback in ours for row in callback.rows)
    assert all(recorder.snapshots for recorder in recorders[:2])


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("pairs", ["lagged", "twin"])
def test_failing_check_leaves_training_as_it_was(tmp_path: Path, pairs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["torchmetrics"]
    plain = train(case, tmp_path / "plain")
    callback = checks(case, tmp_path / "ours", pairs)
    callback.on_error = "warn"

    def connect(surface: Any, *args: Any, **kwargs: Any) -> None:
        surface.losses(surface.point()[None])
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        raise RuntimeError("no path today")

    monkeypatch.setattr(callback.finder, "connect", connect)
    with pytest.warns(UserWarning, match="check 1 of LevelSetConnectivity failed: RuntimeError: no path today"):
        assert_same(train(case, tmp_path / "ours", callback), plain)
    assert [row["reason"] for row in callback.rows] == ["error"] * len(callback.rows)
    assert len(callback.rows) > 1


@pytest.mark.usefixtures("without_figures")
def test_check_that_ends_the_run_leaves_random_states_as_they_were(tmp_path: Path, monkeypatch) -> None:
    callback = checks(CASES["digits"], tmp_path, "lagged")
    states: list[Tensor] = []

    def connect(*args: Any, **kwargs: Any) -> None:
        torch.rand(3)
        raise RuntimeError("no path today")

    class Before(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            states.append(torch.get_rng_state())

    monkeypatch.setattr(callback.finder, "connect", connect)
    with pytest.raises(RuntimeError, match="no path today"):
        train(CASES["digits"], tmp_path, Before(), callback)
    assert len(states) == 2
    assert torch.equal(states[1], torch.get_rng_state())


def test_fingerprint_notices_one_number_drawn(tmp_path: Path) -> None:
    class Draws(pl.Callback):
        def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            np.random.rand()  # noqa: NPY002

    plain = train(CASES["digits"], tmp_path / "plain")
    with pytest.raises(AssertionError, match="random_states/2"):
        assert_same(train(CASES["digits"], tmp_path / "ours", Draws()), plain)
