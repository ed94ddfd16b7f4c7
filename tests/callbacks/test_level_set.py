"""What LevelSetConnectivity measures, writes, logs and refuses."""

from __future__ import annotations

import copy
import json
import math
import pickle
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from matplotlib.figure import Figure
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape import Connection, SnapshotStore, surface
from lightning_landscape.callbacks import LevelSetConnectivity, publishing
from lightning_landscape.callbacks.check_log import CheckLog
from lightning_landscape.cli import LandscapeCLI
from lightning_landscape.finders import DynamicStringSampling, LinearPath, PathFinder
from lightning_landscape.finders.base import Search
from lightning_landscape.finders.chain import Chain
from lightning_landscape.path import Reason
from lightning_landscape.snapshots import SnapshotError

METRICS = {
    f"landscape/{name}"
    for name in (
        "connected",
        "height",
        "barrier",
        "linear_barrier",
        "normalized_length",
        "num_beads",
        "gradient_steps",
        "seconds",
    )
}
BATCHES = 4  # per epoch


@pytest.fixture
def real_figures() -> None:
    """For tests of the figures themselves; elsewhere drawing would take most of the time."""


@pytest.fixture(autouse=True)
def _blank_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_figures" not in request.fixturenames:
        for name in ("profile_figure", "history_figure"):
            monkeypatch.setattr(publishing, name, lambda *args: Figure(figsize=(1, 1)))


def examples() -> TensorDataset:
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long())


class Net(LightningModule):
    def __init__(self, hidden: int = 6) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.layers(batch[0]), batch[1])

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.layers(batch[0])  # type: ignore[no-any-return]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.2)

    def train_dataloader(self) -> Any:
        return DataLoader(examples(), batch_size=64 // BATCHES, shuffle=True)


class Validated(Net):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.layers(batch[0]), batch[1]))

    test_step = validation_step

    def val_dataloader(self) -> Any:
        return DataLoader(examples(), batch_size=32)


class Ring(Net):
    """E(w) = (|w| - 1)^2: the level sets are rings, and the line from w to -w crosses a hill of height 1."""

    def __init__(self, w: tuple[float, float] = (1.1, 0.0)) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        self.w = nn.Parameter(torch.tensor(w))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return torch.square(self.w.norm() - 1)


def trainer_of(folder: Path, *callbacks: Callback, epochs: int = 3, **options: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return Trainer(callbacks=list(callbacks), **(defaults | options))


def attached(folder: Path, **options: Any) -> LevelSetConnectivity:
    return LevelSetConnectivity(**{"dirpath": folder / "landscape", "num_batches": 2, **options})


def other_weights(folder: Path, module: LightningModule) -> Path:
    torch.save({"state_dict": module.state_dict()}, folder / "other.ckpt")
    return folder / "other.ckpt"


def rows_on_disk(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "checks.jsonl").read_text().splitlines()]


class Failing(PathFinder):
    """A user's finder that raises at the given calls, and returns the straight line at others."""

    def __init__(self, *calls: int, **options: Any) -> None:
        super().__init__(**options)
        self.calls = 0
        self.bad = calls

    def connect(self, *args: Any, **options: Any) -> Connection:
        self.calls += 1
        if self.calls in self.bad:
            raise RuntimeError(f"call {self.calls} went wrong")
        return super().connect(*args, **options)

    def search(self, search: Search) -> tuple[Chain, Reason]:
        return Chain([search.line], search.line.length, self.samples), Reason.DEPTH


# Arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": "both"}, r"pairs must be one of lagged, first, reference, twin, got 'both'"),
        ({"pairs": "reference"}, r"pairs='reference' and reference=FILE go together"),
        ({"reference": "file.ckpt"}, r"pairs='reference' and reference=FILE go together, got 'lagged' and 'file.ckpt'"),
        ({"reinitialize": print}, r"reinitialize goes with pairs='twin', got pairs='lagged'"),
        ({"every_n_epochs": 0}, r"every_n_epochs must be an integer from 1, got 0"),
        ({"every_n_epochs": 1.5}, r"every_n_epochs must be an integer from 1, got 1.5"),
        ({"every_n_epochs": True}, r"every_n_epochs must be an integer from 1, got True"),
        ({"num_batches": -1}, r"num_batches must be an integer from 1, got -1"),
        ({"margin": -0.1}, r"margin must be a finite number of at least 0, got -0.1"),
        ({"margin": math.nan}, r"margin must be a finite number of at least 0, got nan"),
        ({"margin": math.inf}, r"margin must be a finite number of at least 0, got inf"),
        ({"overhead": -1}, r"overhead must be a finite number of at least 0, got -1"),
        ({"overhead": math.inf}, r"overhead must be a finite number of at least 0, got inf"),
        ({"max_seconds": -1}, r"max_seconds must be a finite number of at least 0, got -1"),
        ({"level": math.nan}, r"level is NaN"),
        ({"on_error": "ignore"}, r"on_error must be 'warn' or 'raise', got 'ignore'"),
        ({"seed": -1}, r"seed must lie in \[0, 2\*\*31\), got -1"),
        ({"seed": 2**31}, r"seed must lie in"),
        ({"name": ""}, r"name must be a plain file name"),
        ({"name": "a/b"}, r"name must be a plain file name .* got 'a/b'"),
        ({"name": "../up"}, r"name must be a plain file name"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LevelSetConnectivity(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"margin": None},
        {"finder": DynamicStringSampling},
        {"finder": "DynamicStringSampling"},
        {"batch_norm": "frozn"},
    ],
    ids=str,
)
def test_arguments_of_the_wrong_kind_are_refused(options: dict[str, Any]) -> None:
    (argument,) = options
    try:
        with pytest.raises(ValueError, match=f"{argument} must be"):
            LevelSetConnectivity(**options)
    finally:
        if "margin" in vars(DynamicStringSampling):
            delattr(DynamicStringSampling, "margin")


def test_finder_of_the_user_keeps_its_own_margin() -> None:
    finder = LinearPath(margin=0.5)
    callback = LevelSetConnectivity(finder=finder, margin=0.01)
    assert finder.margin == 0.5
    assert callback.finder is not finder
    assert callback.finder.margin == 0.01


def test_copies_and_pickles_before_use() -> None:
    callback = LevelSetConnectivity(pairs="first", every_n_epochs=3, finder=LinearPath(samples=5), name="x", seed=4)
    for clone in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert clone.state_key == callback.state_key
        assert (clone.pairs, clone.every_n_epochs, clone.name, clone.seed) == ("first", 3, "x", 4)
        assert clone.finder.samples == 5


@pytest.fixture
def _no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["landscape"])


@pytest.mark.usefixtures("_no_arguments")
def test_configured_from_yaml_by_class_path(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        """
        trainer:
          accelerator: cpu
          logger: false
          callbacks:
            - class_path: lightning_landscape.callbacks.LevelSetConnectivity
              init_args:
                pairs: first
                every_n_epochs: 5
                overhead: null
                margin: 0.1
                name: demo
                finder:
                  class_path: lightning_landscape.finders.DynamicStringSampling
                  init_args: {alpha: 0.9, split: midpoint, max_depth: 4}
        """
    )
    cli = LandscapeCLI(Net, run=False, args=["--config", str(config)], save_config_callback=None)
    (callback,) = [c for c in cli.trainer.callbacks if isinstance(c, LevelSetConnectivity)]  # type: ignore[attr-defined]
    assert (callback.pairs, callback.every_n_epochs, callback.overhead, callback.name) == ("first", 5, None, "demo")
    assert isinstance(callback.finder, DynamicStringSampling)
    assert (callback.finder.alpha, callback.finder.split, callback.finder.max_depth) == (0.9, "midpoint", 4)
    assert callback.finder.margin == 0.1


@pytest.mark.usefixtures("_no_arguments")
def test_wrong_value_in_yaml_is_refused_by_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--trainer.callbacks+=lightning_landscape.callbacks.LevelSetConnectivity", "--trainer.callbacks.pairs=both"]
    with pytest.raises(SystemExit):
        LandscapeCLI(Net, run=False, args=args, save_config_callback=None)
    assert "both" in capsys.readouterr().err


# When it checks


@pytest.mark.parametrize(
    ("pairs", "every_n_epochs", "epochs"),
    [
        ("lagged", 1, [1, 2, 3, 4]),
        ("lagged", 2, [3]),
        ("first", 2, [3]),
        ("first", 3, []),
        ("reference", 2, [1, 3]),
        ("twin", 2, [1, 3]),
        ("lagged", 9, []),
    ],
)
def test_epochs_of_checks(pairs: Any, every_n_epochs: int, epochs: list[int], tmp_path: Path) -> None:
    reference = other_weights(tmp_path, Net()) if pairs == "reference" else None
    callback = attached(tmp_path, pairs=pairs, every_n_epochs=every_n_epochs, reference=reference)
    trainer_of(tmp_path, callback, epochs=5).fit(Net())
    rows = callback.rows
    assert [row["epoch"] for row in rows] == epochs
    assert [row["step"] for row in rows] == [(epoch + 1) * BATCHES for epoch in epochs]
    assert {row["pair"] for row in rows} <= {pairs}
    assert [row["check"] for row in rows] == list(range(1, len(epochs) + 1))
    assert (tmp_path / "landscape" / "checks.jsonl").exists() == bool(epochs)
    snapshots = {snapshot.epoch for snapshot in SnapshotStore(tmp_path / "landscape" / "snapshots")}
    assert snapshots == {epoch for epoch in range(5) if (epoch + 1) % every_n_epochs == 0}


def test_partners_are_the_snapshots_they_are_said_to_be(tmp_path: Path) -> None:
    lagged, first = (attached(tmp_path, pairs=pairs, name=pairs, dirpath=None) for pairs in ("lagged", "first"))
    batches = list(DataLoader(examples(), batch_size=16))
    lagged.batches = first.batches = batches
    module = Net()
    trainer_of(tmp_path, lagged, first, epochs=4).fit(module)

    def loss(folder: Path, epoch: int) -> float:
        (snapshot,) = [found for found in SnapshotStore(folder / "snapshots") if found.epoch == epoch]
        module.load_state_dict(snapshot.state_dict())
        with torch.no_grad():
            return float(torch.stack([module.training_step(batch, 0) for batch in batches]).mean())

    for callback, partners in ((lagged, [0, 1, 2]), (first, [0, 0, 0])):
        folder = tmp_path / "landscape" / str(callback.name)
        assert folder == callback.folder
        for row, partner in zip(rows_on_disk(folder), partners, strict=True):
            assert row["loss_a"] == pytest.approx(loss(folder, partner), rel=1e-6)
            assert row["loss_b"] == pytest.approx(loss(folder, row["epoch"]), rel=1e-6)


def test_snapshots_hold_the_weights_of_their_epoch(tmp_path: Path) -> None:
    class Keeper(Callback):
        def __init__(self) -> None:
            self.weights: list[dict[str, Tensor]] = []

        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.weights.append(copy.deepcopy(pl_module.state_dict()))

    keeper = Keeper()
    trainer_of(tmp_path, keeper, attached(tmp_path)).fit(Net())
    snapshots = list(SnapshotStore(tmp_path / "landscape" / "snapshots"))
    assert [(s.epoch, s.step) for s in snapshots] == [(0, 4), (1, 8), (2, 12)]
    for snapshot, weights in zip(snapshots, keeper.weights, strict=True):
        module = Net()
        module.load_state_dict(snapshot.state_dict())
        assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


def test_twin_is_saved_beside_the_module(tmp_path: Path) -> None:
    trainer_of(tmp_path, attached(tmp_path, pairs="twin"), epochs=1).fit(Net())
    store = SnapshotStore(tmp_path / "landscape" / "snapshots")
    mine, twin = (store.load(name) for name in ("epoch=000-step=000004", "twin-epoch=000-step=000004"))
    assert mine.keys() == twin.keys()
    assert not any(torch.equal(mine[name], twin[name]) for name in mine)


def test_fast_dev_run_does_nothing(tmp_path: Path) -> None:
    callback = attached(tmp_path, pairs="twin")
    trainer_of(tmp_path, callback, fast_dev_run=True).fit(Validated())
    assert callback.rows == []
    assert callback.state_dict() == {}
    assert not (tmp_path / "landscape").exists()


@pytest.mark.parametrize("run", ["validate", "test", "predict"])
def test_other_loops_alone_do_nothing(run: str, tmp_path: Path) -> None:
    callback = attached(tmp_path)
    trainer = trainer_of(tmp_path, callback)
    getattr(trainer, run)(Validated(), DataLoader(examples(), batch_size=32))
    assert callback.rows == []
    assert callback.folder is None
    assert not any(name.startswith("landscape") for name in trainer.callback_metrics)
    assert not (tmp_path / "landscape").exists()


def test_sanity_check_triggers_nothing(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Watch(Callback):
        def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.append((list(callback.rows), list(tmp_path.rglob("*"))))

    callback = attached(tmp_path)
    trainer_of(tmp_path, callback, Watch(), num_sanity_val_steps=2).fit(Validated())
    assert seen == [([], [])]
    assert [row["epoch"] for row in callback.rows] == [1, 2]


def test_second_fit_goes_on(tmp_path: Path) -> None:
    callback = attached(tmp_path)
    trainer = trainer_of(tmp_path, callback)
    module = Net()
    trainer.fit(module)
    trainer.fit_loop.max_epochs = 5
    trainer.fit(module)
    assert [row["epoch"] for row in callback.rows] == [1, 2, 3, 4]
    assert rows_on_disk(tmp_path / "landscape") == callback.rows
    assert [row["check"] for row in callback.rows] == [1, 2, 3, 4]
    # The lagged pair spans the break.
    assert callback.rows[2]["loss_a"] == pytest.approx(callback.rows[1]["loss_b"], rel=1e-6)


def test_validating_an_earlier_checkpoint_between_two_fits_loses_no_row(tmp_path: Path) -> None:
    callback = attached(tmp_path)
    keep_all = ModelCheckpoint(dirpath=tmp_path, filename="{epoch}", save_top_k=-1)
    trainer = trainer_of(tmp_path, callback, keep_all)
    module = Validated()
    trainer.fit(module)
    trainer.validate(module, ckpt_path=tmp_path / "epoch=1.ckpt", verbose=False)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module)
    assert [row["epoch"] for row in callback.rows] == [1, 2, 3]


def test_new_run_in_the_same_folder_keeps_the_old_record(tmp_path: Path) -> None:
    for _ in range(3):
        trainer_of(tmp_path, attached(tmp_path), epochs=2).fit(Net())
    files = sorted(path.name for path in (tmp_path / "landscape").glob("checks*"))
    assert files == ["checks.1.jsonl", "checks.2.jsonl", "checks.jsonl"]
    assert all(len((tmp_path / "landscape" / name).read_text().splitlines()) == 1 for name in files)


def test_callback_used_by_a_second_trainer_starts_anew(tmp_path: Path) -> None:
    callback = attached(tmp_path)
    for _ in range(2):
        trainer_of(tmp_path, callback).fit(Net())
        assert [row["epoch"] for row in callback.rows] == [1, 2]
        assert [row["check"] for row in callback.rows] == [1, 2]


# Level and verdict


@pytest.mark.parametrize("margin", [0.0, 0.05, 2.0])
def test_level_follows_from_the_ends_and_the_margin(margin: float, tmp_path: Path) -> None:
    callback = attached(tmp_path, margin=margin, finder=LinearPath(margin=0.7))
    trainer_of(tmp_path, callback).fit(Net())
    for row in callback.rows:
        assert row["margin"] == margin
        highest = max(row["loss_a"], row["loss_b"])
        assert row["level"] == pytest.approx(highest + margin * abs(highest), rel=1e-12)
        assert (row["verdict"] == "connected") == (row["height"] <= row["level"])


class Negative(Ring):
    """E(w) = |w|^2 - 100, a loss below zero."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.w.square().sum() - 100


def test_margin_raises_the_level_of_a_negative_loss_too(tmp_path: Path) -> None:
    callback = attached(tmp_path, pairs="reference", reference=other_weights(tmp_path, Negative((-1.0, 0.0))))
    trainer_of(tmp_path, callback, epochs=1).fit(Negative())
    (row,) = callback.rows
    assert row["level"] == pytest.approx(-99 + 0.05 * 99)
    assert row["verdict"] == "connected"


def test_level_below_both_ends(tmp_path: Path) -> None:
    callback = attached(tmp_path, level=1e-6)
    trainer_of(tmp_path, callback, epochs=2).fit(Net())
    (row,) = callback.rows
    assert (row["verdict"], row["reason"], row["level"], row["gradient_steps"]) == ("not_found", "endpoint", 1e-6, 0)
    assert row["height"] >= max(row["loss_a"], row["loss_b"]) > 1e-6


def test_level_above_everything(tmp_path: Path) -> None:
    callback = attached(tmp_path, level=1e6)
    trainer_of(tmp_path, callback, epochs=2).fit(Net())
    (row,) = callback.rows
    assert (row["verdict"], row["reason"], row["num_beads"], row["gradient_steps"]) == ("connected", None, 0, 0)
    assert row["normalized_length"] == 1


@pytest.mark.parametrize(
    "weight",
    [
        # The loss is infinite, and so is the level that follows from it.
        1e20,
        math.nan,
        math.inf,
    ],
)
def test_diverged_training_is_a_row_of_its_own(weight: float, tmp_path: Path) -> None:
    class Diverging(Ring):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if self.current_epoch > 0:
                nn.init.constant_(self.w, weight)

    callback = attached(tmp_path)
    trainer = trainer_of(tmp_path, callback, epochs=3)
    trainer.fit(Diverging())
    assert trainer.global_step == 3 * BATCHES
    assert [(row["verdict"], row["reason"]) for row in callback.rows] == [("not_found", "diverged")] * 2
    assert [row["height"] for row in callback.rows] == [None, None]
    assert not math.isfinite(trainer.callback_metrics["landscape/height"])
    assert trainer.callback_metrics["landscape/connected"] == 0
    assert [Connection.from_dict(row).reason for row in callback.rows] == [Reason.DIVERGED] * 2


@pytest.mark.parametrize("overhead", [0.0, 0.25, 1.0, 20.0])
@pytest.mark.parametrize("every_n_epochs", [1, 3])
def test_overhead_limits_the_search(overhead: float, every_n_epochs: int, tmp_path: Path) -> None:
    reference = other_weights(tmp_path, Ring((-1.0, 0.0)))
    callback = attached(
        tmp_path,
        pairs="reference",
        reference=reference,
        overhead=overhead,
        level=0.05,
        every_n_epochs=every_n_epochs,
    )
    trainer_of(tmp_path, callback, epochs=6).fit(Ring())
    assert len(callback.rows) == 6 // every_n_epochs
    limit = overhead * BATCHES * every_n_epochs
    for row in callback.rows:
        assert row["gradient_steps"] <= limit
        assert row["linear_height"] > 0.9
        if limit <= 1:
            assert (row["verdict"], row["reason"]) == ("not_found", "budget")
    if overhead == 20:
        assert any(row["gradient_steps"] > 0 for row in callback.rows)


def test_without_limit_the_detour_is_found(tmp_path: Path) -> None:
    reference = other_weights(tmp_path, Ring((-1.0, 0.0)))
    callback = attached(tmp_path, pairs="reference", reference=reference, overhead=None, level=0.05)
    trainer_of(tmp_path, callback, epochs=1).fit(Ring())
    (row,) = callback.rows
    assert (row["verdict"], row["reason"]) == ("connected", None)
    assert row["linear_height"] > 0.9
    assert row["height"] <= 0.05
    assert row["num_beads"] >= 1
    assert 1.3 < row["normalized_length"] < math.pi / 2 * 1.25
    assert row["gradient_steps"] > 0


def test_work_is_counted_anew_after_each_check(tmp_path: Path) -> None:
    budgets: list[float | None] = []

    class Spy(Failing):
        def connect(self, *args: Any, **options: Any) -> Connection:
            budgets.append(options["budget"].work)
            assert options["budget"].max_seconds == 9.0
            return super().connect(*args, **options)

    callback = attached(tmp_path, overhead=0.5, every_n_epochs=2, max_seconds=9.0)
    callback.finder = Spy()
    trainer_of(tmp_path, callback, epochs=6).fit(Net())
    assert budgets == [0.5 * 2 * BATCHES] * 2


@pytest.mark.parametrize(("num_batches", "passes"), [(1, 1), (3, 3), (100, BATCHES)])
def test_number_of_probe_batches(num_batches: int, passes: int, tmp_path: Path) -> None:
    callback = attached(tmp_path, num_batches=num_batches, level=1e6)
    trainer_of(tmp_path, callback, epochs=2).fit(Net())
    (row,) = callback.rows
    assert row["gradient_steps"] == 0
    assert row["work"] == pytest.approx(row["loss_evaluations"] * passes / 3)


def test_same_seed_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Which of two equal ways a surface computes is timed, and they round differently.
    monkeypatch.setattr(surface, "vmap_wins", lambda loop, vmap: False)
    found = []
    for name in ("one", "two"):
        torch.manual_seed(0)
        callback = attached(tmp_path, dirpath=tmp_path / name, seed=3, margin=0.0, overhead=5.0)
        trainer_of(tmp_path, callback).fit(Net())
        found.append([{**row, "seconds": None} for row in callback.rows])
    assert found[0] == found[1]


# Errors during training


def test_failing_check_warns_and_training_goes_on(tmp_path: Path) -> None:
    callback = attached(tmp_path, finder=Failing(1))
    trainer = trainer_of(tmp_path, callback)
    with pytest.warns(UserWarning, match=r"check 1 of LevelSetConnectivity failed: RuntimeError: call 1 went wrong"):
        trainer.fit(Net())
    assert trainer.global_step == 3 * BATCHES
    failed, after = rows_on_disk(tmp_path / "landscape")
    assert (failed["verdict"], failed["reason"]) == ("not_found", "error")
    assert failed["message"] == "RuntimeError: call 1 went wrong"
    assert failed["height"] is None
    assert (after["check"], after["message"]) == (2, None)
    assert after["height"] > 0


def test_failing_check_is_logged_as_nan(tmp_path: Path) -> None:
    callback = attached(tmp_path, finder=Failing(1))
    trainer = trainer_of(tmp_path, callback, epochs=2)
    with pytest.warns(UserWarning, match="call 1 went wrong"):
        trainer.fit(Net())
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert values.keys() >= METRICS
    assert values["landscape/connected"] == 0
    assert math.isnan(values["landscape/height"])
    assert math.isnan(values["landscape/barrier"])


def test_failing_check_ends_the_run_if_asked(tmp_path: Path) -> None:
    callback = attached(tmp_path, finder=Failing(2), on_error="raise")
    trainer = trainer_of(tmp_path, callback, epochs=5)
    with pytest.raises(RuntimeError, match="call 2 went wrong"):
        trainer.fit(Net())
    assert trainer.global_step == 3 * BATCHES
    assert [row["check"] for row in rows_on_disk(tmp_path / "landscape")] == [1]


class FullDisk:
    def __init__(self, calls: set[int], work: Any) -> None:
        self.calls, self.work, self.count = calls, work, 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.count += 1
        if self.count in self.calls:
            raise OSError(28, "No space left on device")
        return self.work(*args, **options)


def test_full_disk_under_the_record_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = FullDisk({1}, CheckLog._write)
    monkeypatch.setattr(CheckLog, "_write", lambda log: write(log))
    trainer = trainer_of(tmp_path, attached(tmp_path))
    with pytest.warns(UserWarning, match=r"check 1 could not be published: OSError: .*No space left"):
        trainer.fit(Net())
    assert trainer.global_step == 3 * BATCHES
    assert [row["check"] for row in rows_on_disk(tmp_path / "landscape")] == [1, 2]


def test_record_that_can_never_be_written_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CheckLog, "append", FullDisk({1, 2}, None))
    callback = attached(tmp_path)
    trainer = trainer_of(tmp_path, callback)
    with pytest.warns(UserWarning, match="could not be published"):
        trainer.fit(Net())
    assert trainer.global_step == 3 * BATCHES
    assert trainer.callback_metrics["landscape/height"] > 0


def test_full_disk_ends_the_run_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CheckLog, "append", FullDisk({1}, None))
    with pytest.raises(OSError, match="No space left"):
        trainer_of(tmp_path, attached(tmp_path, on_error="raise")).fit(Net())


def test_full_disk_under_a_snapshot_fails_that_check_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = FullDisk({2}, SnapshotStore.save)
    monkeypatch.setattr(SnapshotStore, "save", lambda *args, **options: save(*args, **options))
    callback = attached(tmp_path)
    with pytest.warns(UserWarning, match="No space left"):
        trainer_of(tmp_path, callback, epochs=4).fit(Net())
    assert [(row["epoch"], row["reason"] == "error") for row in callback.rows] == [(1, True), (2, False), (3, False)]
    # The lagged pair skips the epoch that was never written.
    assert callback.rows[1]["loss_b"] == pytest.approx(callback.rows[2]["loss_a"], rel=1e-6)


def test_folder_that_cannot_be_made_only_warns(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    callback = attached(tmp_path, dirpath=tmp_path / "file" / "landscape")
    trainer = trainer_of(tmp_path, callback)
    with pytest.warns(UserWarning, match=r"failed: NotADirectoryError"):
        trainer.fit(Net())
    assert trainer.global_step == 3 * BATCHES
    assert {row["reason"] for row in callback.rows} == {"error"}


def test_altered_snapshot_is_an_error_row(tmp_path: Path) -> None:
    class Vandal(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            for file in tmp_path.rglob("epoch=000-*.safetensors"):
                file.write_bytes(file.read_bytes()[:-4])

    callback = attached(tmp_path, pairs="first")
    with pytest.warns(UserWarning, match="SnapshotError"):
        trainer_of(tmp_path, callback, Vandal()).fit(Net())
    assert [row["reason"] for row in callback.rows] == ["error", "error"]


# References


@pytest.mark.parametrize("kind", ["ckpt", "snapshot"])
def test_reference_files(kind: str, tmp_path: Path) -> None:
    other = Net()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    if kind == "ckpt":
        trainer = trainer_of(tmp_path, epochs=0)
        trainer.fit(other)
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        reference = tmp_path / "run.ckpt"
    else:
        reference = SnapshotStore(tmp_path / "store").save(other, step=0, epoch=0).path
    callback = attached(tmp_path, pairs="reference", reference=reference)
    module = Net()
    trainer_of(tmp_path, callback, epochs=2).fit(module)
    chord = torch.cat([(value - before[name]).flatten() for name, value in module.state_dict().items()]).norm()
    row = callback.rows[-1]
    assert row["length"] == pytest.approx(float(chord) * row["normalized_length"], rel=1e-5)
    assert [row["epoch"] for row in callback.rows] == [0, 1]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Net(hidden=7), r"parameter 'layers.0.weight' has shape \(7, 4\) where the module has \(6, 4\)"),
        (Ring(), r"4 parameters of the module are missing, among them \['layers.0.weight'"),
    ],
    ids=["shape", "names"],
)
def test_reference_of_another_architecture(other: LightningModule, message: str, tmp_path: Path) -> None:
    callback = attached(tmp_path, pairs="reference", reference=other_weights(tmp_path, other))
    with pytest.warns(UserWarning, match=message):
        trainer_of(tmp_path, callback, epochs=1).fit(Net())
    (row,) = callback.rows
    assert row["reason"] == "error"


def test_missing_reference_is_refused_before_the_first_step(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, attached(tmp_path, pairs="reference", reference=tmp_path / "none.ckpt"))
    with pytest.raises(SnapshotError, match=r"none.ckpt does not exist: pass a .safetensors file or a Lightning .ckpt"):
        trainer.fit(Net())
    assert trainer.global_step == 0


# Beside other callbacks


class Scripted(Failing):
    """Says what the barriers are."""

    def __init__(self, *barriers: float) -> None:
        super().__init__()
        self.barriers = barriers

    def connect(self, *args: Any, **options: Any) -> Connection:
        return replace(super().connect(*args, **options), barrier=self.barriers[self.calls - 1])


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, {}),
        ({"val_check_interval": 0.5}, {"save_on_train_epoch_end": True}),
        ({"check_val_every_n_epoch": 3}, {"save_on_train_epoch_end": True}),
    ],
    ids=["defaults", "validation twice an epoch", "validation every third epoch"],
)
def test_model_checkpoint_keeps_the_best_barrier(options: dict[str, Any], more: dict[str, Any], tmp_path: Path) -> None:
    callback = attached(tmp_path, every_n_epochs=2, finder=Scripted(0.5, -0.25, 0.125))
    best = ModelCheckpoint(dirpath=tmp_path / "best", filename="{epoch}", monitor="landscape/barrier", **more)
    seen: list[float] = []

    class Watch(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.append(float(trainer.callback_metrics["landscape/barrier"]))

    # Lightning moves checkpoint callbacks to the end of the list, wherever they stand.
    trainer = trainer_of(tmp_path, best, callback, Watch(), epochs=9, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*could not find the monitored key")
        trainer.fit(Validated())
    assert [row["epoch"] for row in callback.rows] == [3, 5, 7]
    assert all(map(math.isnan, seen[:3]))
    assert seen[3:] == [0.5, 0.5, -0.25, -0.25, 0.125, 0.125]
    assert best.best_model_score == -0.25
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["epoch=5.ckpt"]
    weights = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    (snapshot,) = [s for s in SnapshotStore(tmp_path / "landscape" / "snapshots") if s.epoch == 5]
    assert all(torch.equal(value, weights[name]) for name, value in snapshot.state_dict().items())


def test_model_checkpoint_that_saves_before_the_first_epoch_ends(tmp_path: Path) -> None:
    best = ModelCheckpoint(dirpath=tmp_path / "best", monitor="landscape/barrier")
    trainer = trainer_of(tmp_path, attached(tmp_path), best, val_check_interval=0.5)
    trainer.fit(Validated())
    assert trainer.global_step == 3 * BATCHES
    assert best.best_model_score is not None
    assert best.best_model_score.isfinite()


def test_early_stopping_waits_for_the_first_check(tmp_path: Path) -> None:
    callback = attached(tmp_path, every_n_epochs=2, overhead=0)
    stop = EarlyStopping("landscape/barrier", patience=100, check_finite=False, divergence_threshold=1e9)
    trainer = trainer_of(tmp_path, callback, stop, epochs=5)
    trainer.fit(Validated())
    assert trainer.current_epoch == 5
    assert stop.best_score.item() == pytest.approx(callback.rows[0]["barrier"])


def test_early_stopping_on_connected(tmp_path: Path) -> None:
    stop = EarlyStopping("landscape/connected", mode="max", stopping_threshold=0.5, patience=100, check_finite=False)
    callback = attached(tmp_path, level=1e6)
    trainer = trainer_of(tmp_path, callback, stop, epochs=20)
    trainer.fit(Net())
    assert trainer.current_epoch == 2
    assert [row["verdict"] for row in callback.rows] == ["connected"]


def test_names_keep_instances_apart(tmp_path: Path) -> None:
    pair = [
        attached(tmp_path, name=name, dirpath=None, pairs=pairs) for name, pairs in (("x", "lagged"), ("y", "first"))
    ]
    assert pair[0].state_key != pair[1].state_key
    trainer = trainer_of(tmp_path, *pair)
    trainer.fit(Net())
    for callback in pair:
        names = {name.replace("landscape/", f"landscape/{callback.name}/") for name in METRICS}
        assert names <= trainer.callback_metrics.keys()
        assert callback.folder == tmp_path / "landscape" / str(callback.name)
        assert rows_on_disk(callback.folder) == callback.rows
        assert float(trainer.callback_metrics[f"landscape/{callback.name}/height"]) == pytest.approx(
            callback.rows[-1]["height"]
        )
    assert not METRICS & trainer.callback_metrics.keys()


@pytest.mark.parametrize("name", [None, "x"])
def test_two_of_one_name_are_refused(name: str | None, tmp_path: Path) -> None:
    callbacks = [attached(tmp_path, name=name, pairs=pairs) for pairs in ("lagged", "first")]
    trainer = trainer_of(tmp_path, *callbacks)
    with pytest.raises(
        MisconfigurationException, match=r"two LevelSetConnectivity callbacks .* give each its own name="
    ):
        trainer.fit(Net())
    assert trainer.global_step == 0


def test_two_in_one_folder_are_refused(tmp_path: Path) -> None:
    callbacks = [attached(tmp_path, name=name, pairs=name) for name in ("lagged", "first")]
    with pytest.raises(MisconfigurationException, match="dirpath"):
        trainer_of(tmp_path, *callbacks).fit(Net())


# What it writes


def test_rows_are_plain_json_that_reads_back(tmp_path: Path) -> None:
    callback = attached(tmp_path)
    trainer_of(tmp_path, callback).fit(Net())
    lines = (tmp_path / "landscape" / "checks.jsonl").read_text().splitlines()
    assert len(lines) == 2
    for line, row in zip(lines, callback.rows, strict=True):
        assert not {"NaN", "Infinity"} & set(line.replace(",", " ").split())
        assert json.loads(line) == row
        connection = Connection.from_dict(json.loads(line))
        assert connection.to_dict() == {key: row[key] for key in connection.to_dict()}
        assert connection.profile.height == pytest.approx(connection.height)
        assert connection.profile.barrier == pytest.approx(connection.barrier)
        assert connection.linear_profile.height == pytest.approx(connection.linear_height)


@pytest.mark.usefixtures("real_figures")
def test_figures_are_drawn(tmp_path: Path) -> None:
    trainer_of(tmp_path, attached(tmp_path)).fit(Net())
    files = sorted((tmp_path / "landscape").glob("*.png"))
    assert [file.name for file in files] == ["history.png", "profile-0001.png", "profile-0002.png"]
    for file in files:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert min(pixels.shape[:2]) > 300
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert files[1].read_bytes() != files[2].read_bytes()


def test_summary_fits_a_terminal(tmp_path: Path) -> None:
    callback = attached(tmp_path, finder=Failing(2))
    for rows in (0, 3):
        if rows:
            with pytest.warns(UserWarning, match="went wrong"):
                trainer_of(tmp_path, callback, epochs=4).fit(Net())
        console = Console(width=80, record=True, file=(tmp_path / "terminal").open("w"))
        console.print(callback.summary())
        text = console.export_text()
        assert all(len(line) <= 80 for line in text.splitlines())
        assert "epoch" in text
        assert len(callback.rows) == rows
    assert "(error)" in text
    assert "landscape" in text


# Loggers


def test_csv_logger(tmp_path: Path) -> None:
    callback = attached(tmp_path, dirpath=None)
    logger = CSVLogger(tmp_path, name="run", version="v")
    trainer_of(tmp_path, callback, logger=logger, log_every_n_steps=1).fit(Validated())
    assert callback.folder == tmp_path / "run" / "v" / "landscape"
    lines = [line.split(",") for line in (tmp_path / "run" / "v" / "metrics.csv").read_text().splitlines()]
    table = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    checks = [row for row in table if row["landscape/check"]]
    assert [(float(row["landscape/check"]), int(row["step"])) for row in checks] == [(1, 8), (2, 12)]
    for row, check in zip(checks, callback.rows, strict=True):
        assert row.keys() >= METRICS
        assert float(row["landscape/height"]) == pytest.approx(check["height"])
        assert float(row["landscape/connected"]) == (check["verdict"] == "connected")
    assert sum(bool(row["landscape/height"]) for row in table) == 2


def test_tensorboard_logger(tmp_path: Path) -> None:
    callback = attached(tmp_path)
    logger = TensorBoardLogger(tmp_path, name="run", version="v")
    trainer_of(tmp_path, callback, logger=logger).fit(Net())
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0})
    events.Reload()
    assert METRICS | {"landscape/check"} <= set(events.Tags()["scalars"])
    assert [event.value for event in events.Scalars("landscape/check")] == [1, 2]
    heights = [(event.step, event.value) for event in events.Scalars("landscape/height")]
    assert heights == [(row["step"], pytest.approx(row["height"], rel=1e-6)) for row in callback.rows]
    assert {"landscape/profile", "landscape/history"} <= set(events.Tags()["images"])
    assert len(events.Images("landscape/profile")) == 2


def test_wandb_logger_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb
    from test_loggers import WandbFile  # type: ignore[import-not-found]  # tests/ is on pytest's path

    for kind in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{kind}_DIR", str(tmp_path / kind))
    callback = attached(tmp_path)
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    trainer_of(tmp_path, callback, logger=logger, log_every_n_steps=1).fit(Validated())
    wandb.finish()
    file = WandbFile(tmp_path)
    checks = [row for row in file.history if "landscape/check" in row]
    assert [row["landscape/check"] for row in checks] == [1, 2]
    for row, check in zip(checks, callback.rows, strict=True):
        assert row.keys() >= METRICS
        assert row["landscape/height"] == pytest.approx(check["height"])
    assert {(name, "landscape/check") for name in METRICS} <= set(file.step_metrics)
    table = file.table(checks[-1], "landscape/checks")
    assert len(table["data"]) == 2


def test_failing_logger_does_not_end_training(tmp_path: Path) -> None:
    class Broken(CSVLogger):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            if "landscape/check" in metrics:
                raise ConnectionError("service is down")
            super().log_metrics(metrics, step)

    callback = attached(tmp_path)
    trainer = trainer_of(tmp_path, callback, logger=Broken(tmp_path))
    with pytest.warns(UserWarning, match="could not be published: ConnectionError: service is down"):
        trainer.fit(Net())
    assert trainer.global_step == 3 * BATCHES
    assert len(rows_on_disk(tmp_path / "landscape")) == 2
