"""Streams and several loaders: batches are recorded as they pass, and training does not notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_landscape.callbacks import ForkStability, LevelSetConnectivity, MergeTree
from lightning_landscape.finders import DynamicStringSampling, LinearPath
from tests.callbacks.fingerprints import assert_same, train
from tests.callbacks.streams import STREAMS, Shards
from tests.callbacks.watched_cases import Case, Classifier, images

pytestmark = pytest.mark.usefixtures("blank_figures")
EACH = {"lagged": {"every_n_steps": 3}, "first": {}, "reference": {"every_n_steps": 5}, "twin": {"every_n_epochs": 2}}


class Served(pl.LightningDataModule):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def train_dataloader(self) -> Any:
        return STREAMS[self.name][1]()

    def val_dataloader(self) -> Any:
        return DataLoader(images(), 16)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n == "workers" else ()) for n in STREAMS])
def test_all_pairings_leave_training_as_it_was(tmp_path: Path, name: str) -> None:
    settings = {"limit_train_batches": 4} if name == "once" else {}
    case = Case(STREAMS[name][0], datamodule=lambda: Served(name), trainer=settings)
    plain = train(case, tmp_path / "plain")
    reference = next((tmp_path / "plain" / "checkpoints").iterdir())
    finder = DynamicStringSampling(max_depth=2, max_bead_steps=3, shorten=1, samples=3)
    common: dict[str, Any] = {"finder": finder, "num_batches": 2, "margin": 0.0, "on_error": "raise"}
    checks = [
        LevelSetConnectivity(
            pairs, name=pairs, dirpath=tmp_path / pairs, reference=reference if pairs == "reference" else None,
            **common, **rhythm,
        )
        for pairs, rhythm in EACH.items()
    ]  # fmt: skip
    tree = MergeTree(dirpath=tmp_path / "tree", every_n_steps=7, **common)
    ours = train(case, tmp_path / "ours", *checks, tree)
    for content in ours.checkpoints.values():
        for key in [key for key in content["callbacks"] if key.startswith("MergeTree")]:
            del content["callbacks"][key]
    ours.metrics = {key: value for key, value in ours.metrics.items() if not key.startswith("landscape/")}
    assert_same(ours, plain)
    for callback in [*checks, tree]:
        assert callback.rows
        assert {row["data"] for row in callback.rows} == {"recorded"}


def fit(folder: Path, module: pl.LightningModule, data: Any, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    ckpt_path = options.pop("ckpt_path", None)
    trainer = pl.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, callbacks=list(callbacks),
        enable_progress_bar=False, enable_model_summary=False, **{"max_epochs": 3, **options},
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer


def test_loss_is_that_of_the_first_batches_before_the_step_changed_them(tmp_path: Path) -> None:
    class Overwriting(Classifier):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = super().training_step([batch[0].clone(), batch[1]], batch_idx)
            batch[0].fill_(9)
            return loss

    torch.manual_seed(0)
    module = Overwriting()
    check = LevelSetConnectivity("first", num_batches=2, finder=LinearPath(samples=1), dirpath=tmp_path / "c",
                                 batch_norm="frozen", every_n_steps=6, on_error="raise",
                                 loss_fn=lambda m, b: torch.nn.functional.cross_entropy(m.net(b[0]), b[1]))  # fmt: skip
    fit(tmp_path, module, DataLoader(Shards(), 8), check, enable_checkpointing=False)
    first = [batch for _, batch in zip(range(2), DataLoader(Shards(), 8), strict=False)]
    module.eval()
    losses = [torch.nn.functional.cross_entropy(module.net(x), y) for x, y in first]
    assert [row["step"] for row in check.rows] == [12]
    assert check.rows[-1]["loss_b"] == pytest.approx(float(sum(losses)) / 2, rel=1e-5)


def test_resumed_run_has_the_same_loss(tmp_path: Path) -> None:
    def callbacks() -> list[Any]:
        check = LevelSetConnectivity(
            "first",
            num_batches=3,
            finder=LinearPath(samples=1),
            dirpath=tmp_path / "c",
            on_error="raise",
            keep="all",  # it goes back to checkpoints before the latest
        )
        return [check, ModelCheckpoint(tmp_path / "ckpt", "{step}", save_top_k=-1, every_n_train_steps=2)]

    whole = callbacks()
    fit(tmp_path, Classifier(), DataLoader(Shards(), 8), *whole)
    for step in (2, 6):  # before the probe was complete, and after it
        again = callbacks()
        fit(tmp_path, Classifier(), DataLoader(Shards(), 8), *again, ckpt_path=tmp_path / "ckpt" / f"step={step}.ckpt")
        assert len(again[0]._recorded.probe) == 3
        for mine, theirs in zip(again[0]._recorded.probe[:step], whole[0]._recorded.probe, strict=False):
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_comparison_before_enough_batches_have_passed_says_so(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"finder": LinearPath(samples=1), "dirpath": tmp_path, "every_n_steps": 2}
    check = LevelSetConnectivity("first", num_batches=50, **settings)
    with pytest.warns(UserWarning, match=r"mean over 4 recorded batches, not num_batches=50"):
        fit(tmp_path, Classifier(), DataLoader(Shards(), 8), check, enable_checkpointing=False)
    assert len(check.rows) == 5
    assert all(row["reason"] is None for row in check.rows)


def test_module_whose_loss_needs_the_trainer_is_refused_before_a_step(tmp_path: Path) -> None:
    class NeedsTrainer(Classifier):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * self.trainer.estimated_stepping_batches

    module = NeedsTrainer()
    before = [parameter.clone() for parameter in module.parameters()]
    with pytest.raises(MisconfigurationException, match="pass loss_fn="):
        fit(tmp_path, module, DataLoader(Shards(), 8), LevelSetConnectivity(dirpath=tmp_path), max_steps=4)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_tree_refuses_a_foreign_reference_before_a_step(tmp_path: Path) -> None:
    torch.save({"state_dict": torch.nn.Linear(2, 1).state_dict()}, tmp_path / "other.ckpt")
    tree = MergeTree(references=[tmp_path / "other.ckpt"], dirpath=tmp_path / "tree")
    with pytest.raises(ValueError, match="net"):
        fit(tmp_path, Classifier(), DataLoader(Shards(), 8), tree)


@pytest.mark.parametrize("batches", [None, [(torch.zeros(4, 1, 4, 4), torch.zeros(4).long())]])
def test_children_cannot_read_a_stream_again(tmp_path: Path, batches: Any) -> None:
    with pytest.raises(MisconfigurationException, match=r"Shards is an IterableDataset.*leave ForkStability out"):
        fit(tmp_path, Classifier(), DataLoader(Shards(), 8), ForkStability(batches=batches, dirpath=tmp_path))


def test_rows_say_where_batches_come_from(tmp_path: Path) -> None:
    batches = [tuple(images()[:8])]
    for data, given, expected in (
        (DataLoader(images(), 8), None, "loader"),
        (DataLoader(images(), 8), batches, "given"),
        (DataLoader(Shards(), 8), batches, "given"),
    ):
        check = LevelSetConnectivity(finder=LinearPath(samples=1), batches=given, dirpath=tmp_path, on_error="raise")
        fit(tmp_path, Classifier(), data, check, enable_checkpointing=False)
        assert {row["data"] for row in check.rows} == {expected}
