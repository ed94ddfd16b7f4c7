"""E is the loss over what is trained on, and children and twins take the steps of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape.callbacks import ForkStability, LevelSetConnectivity, MergeTree
from lightning_landscape.finders import LinearPath
from tests.callbacks.streams import Shards

pytestmark = pytest.mark.usefixtures("blank_figures")


class Line(pl.LightningModule):
    """Notes in which training it took which batches and optimiser steps."""

    def __init__(self, notes: list[Any] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(1, 1)
        self.notes = notes

    def __deepcopy__(self, memo: dict[int, Any]) -> Line:
        copied = Line(self.notes)
        copied.load_state_dict(self.state_dict())
        return copied

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.notes is not None and torch.is_grad_enabled():
            self.notes.append(("batch", len(batch[0]), self.current_epoch))
        return (self.layer(batch[0]) - batch[1]).square().mean()

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        if self.notes is not None:
            self.notes.append("step")

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def examples(count: int = 32) -> TensorDataset:
    inputs = torch.linspace(-1, 3, count)[:, None]
    return TensorDataset(inputs, inputs.square())


def fit(folder: Path, module: pl.LightningModule, data: Any, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    ckpt_path = options.pop("ckpt_path", None)
    trainer = pl.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, callbacks=list(callbacks),
        enable_progress_bar=False, enable_model_summary=False,
        **{"max_epochs": 2, "enable_checkpointing": False} | options,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer


def loss_over(module: Any, indices: Any) -> float:
    inputs, targets = examples().tensors
    with torch.no_grad():
        return float((module.layer(inputs[indices]) - targets[indices]).square().mean())


@pytest.mark.parametrize(
    ("options", "loader", "trained"),
    [
        ({"limit_train_batches": 2}, {}, range(16)),
        ({"limit_train_batches": 0.25}, {}, range(8)),
        ({"overfit_batches": 1}, {"shuffle": True}, range(8)),
        ({"max_steps": 3}, {}, range(24)),
        ({"max_steps": 2, "accumulate_grad_batches": 2}, {"batch_size": 4}, range(16)),
        ({"limit_train_batches": 1}, {"sampler": [5, 9, 1, 2, 3, 4, 6, 7, 30, 31]}, [5, 9, 1, 2, 3, 4, 6, 7]),
        ({}, {"batch_sampler": [[0, 2], [4, 6], [8, 10]]}, [0, 2, 4, 6, 8, 10]),
        ({"limit_train_batches": 2}, {"batch_sampler": [[0, 2], [4, 6], [8, 10]]}, [0, 2, 4, 6]),
        ({}, {"shuffle": True}, range(32)),
    ],
)
def test_loss_is_over_what_is_trained_on(tmp_path: Path, options: Any, loader: Any, trained: Any) -> None:
    loader = loader if "batch_sampler" in loader else {"batch_size": 8} | loader
    check = LevelSetConnectivity("first", num_batches=99, every_n_steps=1, finder=LinearPath(samples=1),
                                 dirpath=tmp_path, on_error="raise")  # fmt: skip
    module = Line()
    fit(tmp_path, module, DataLoader(examples(), **loader), check, **options)
    assert check.rows[-1]["loss_b"] == pytest.approx(loss_over(module, list(trained)), rel=1e-5)


def test_shuffled_passes_are_as_large_as_the_epochs_of_the_run(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Looking(LevelSetConnectivity):
        def define(self, trainer: Any, pl_module: Any, state: Any) -> None:
            super().define(trainer, pl_module, state)
            assert self._surface is not None
            sizes.append(sum(len(batch[0]) for batch in self._surface.batches))

    data = DataLoader(examples(), 8, shuffle=True)
    fit(tmp_path, Line(), data, Looking(num_batches=99, dirpath=tmp_path), limit_train_batches=2)
    assert sizes == [16]


GROUPS = {
    "scheduler": ({}, lambda: [GradientAccumulationScheduler({0: 1, 1: 4})]),
    "last batch of an epoch": ({"accumulate_grad_batches": 3}, list),
    "two of four": ({"limit_train_batches": 2}, list),
}


@pytest.mark.parametrize("name", GROUPS)
def test_children_have_the_batches_and_steps_of_the_run(tmp_path: Path, name: str) -> None:
    options, others = GROUPS[name]
    notes: list[Any] = []
    fork = ForkStability(
        [0], num_batches=1, samples=1, error_fn=lambda m, b: m.layer(b[0]).sum() * 0, dirpath=tmp_path,
        loss_fn=lambda m, b: (m.layer(b[0]) - b[1]).square().mean(), on_error="raise",
    )  # fmt: skip
    # Four batches, the last of two examples.
    fit(tmp_path, Line(notes), DataLoader(examples(26), 8, shuffle=True), *others(), fork, **options)
    run, first, second = notes[: len(notes) // 3], notes[len(notes) // 3 : -len(notes) // 3], notes[-len(notes) // 3 :]
    kinds = [[note if note == "step" else (note[0], note[2]) for note in part] for part in (run, first, second)]
    assert "step" in run
    assert [sum(note != "step" for note in part) for part in kinds] == [4 if name == "two of four" else 8] * 3
    assert kinds[0] == kinds[1] == kinds[2]


@pytest.mark.parametrize("name", GROUPS)
def test_twin_is_a_plain_run_under_the_same_groups(tmp_path: Path, name: str) -> None:
    options, others = GROUPS[name]

    def draw(module: Any) -> None:
        nn.init.constant_(module.layer.weight, 0.3)
        nn.init.constant_(module.layer.bias, -0.2)

    plain = Line()
    draw(plain)
    fit(tmp_path, plain, DataLoader(examples(26), 8), *others(), **options)
    check = LevelSetConnectivity("twin", reinitialize=draw, dirpath=tmp_path, finder=LinearPath(samples=1))
    fit(tmp_path, Line(), DataLoader(examples(26), 8), *others(), check, **options)
    twin = check._pairing.module  # type: ignore[union-attr]
    assert torch.equal(twin.layer.weight, plain.layer.weight)
    assert torch.equal(twin.layer.bias, plain.layer.bias)


def test_checks_come_once_a_step_under_accumulation_and_at_the_end_of_its_batch(tmp_path: Path) -> None:
    check = LevelSetConnectivity("first", every_n_steps=2, dirpath=tmp_path, finder=LinearPath(samples=1))
    tree = MergeTree(every_n_steps=3, dirpath=tmp_path / "tree", finder=LinearPath(samples=1), overhead=0)
    data = DataLoader(examples(), 4)  # 8 batches, 3 steps an epoch
    fit(tmp_path, Line(), data, check, tree, accumulate_grad_batches=3, max_epochs=3)
    assert [(row["epoch"], row["step"]) for row in check.rows] == [(1, 4), (1, 6), (2, 8)]
    assert list(tree._snapshots) == [f"epoch={epoch:03d}-step={step:06d}" for epoch, step in ((0, 3), (1, 6), (2, 9))]


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_resume_in_the_middle_of_an_epoch_neither_repeats_nor_skips(tmp_path: Path, step: int) -> None:
    def callbacks() -> list[Any]:
        check = LevelSetConnectivity("lagged", every_n_steps=2, dirpath=tmp_path / "c", finder=LinearPath(samples=1))
        return [check, ModelCheckpoint(tmp_path / "ckpt", "{step}", save_top_k=-1, every_n_train_steps=1)]

    data = DataLoader(examples(), 8)
    whole, again = callbacks(), callbacks()
    fit(tmp_path, Line(), data, *whole, enable_checkpointing=True)
    path = tmp_path / "ckpt" / f"step={step}.ckpt"
    fit(tmp_path, Line(), data, *again, ckpt_path=path, enable_checkpointing=True)
    places = [(row["check"], row["step"]) for row in whole[0].rows]
    assert places == [(1, 4), (2, 6), (3, 8)]
    assert [(row["check"], row["step"]) for row in again[0].rows] == places


def test_rhythm_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="give every_n_epochs or every_n_steps"):
        LevelSetConnectivity(every_n_epochs=2, every_n_steps=3)
    with pytest.raises(ValueError, match="every_n_steps must be an integer from 1, got 0"):
        MergeTree(every_n_steps=0)


@pytest.mark.parametrize(
    ("rhythm", "options", "data", "message"),
    [
        ({"every_n_epochs": 5}, {"max_epochs": 9}, None, r"comes 1 times in 9 epochs; 2 are needed: .*epochs=4"),
        ({"every_n_steps": 30}, {"max_steps": 5}, None, r"comes 0 times in 5 steps; .* every_n_steps=2, or less"),
        ({}, {"max_steps": 6, "max_epochs": -1}, Shards, r"data are endless.*set every_n_steps=3, or less"),
        ({}, {"max_epochs": 1}, None, r"1 times in 1 epochs; 2 are needed: set every_n_steps=2, or less"),
    ],
)  # fmt: skip
def test_run_that_can_compare_nothing_says_so(
    tmp_path: Path, rhythm: Any, options: Any, data: Any, message: str
) -> None:
    loader = DataLoader(examples(), 8)
    module: Any = Line()
    if data is not None:
        loader = DataLoader(data(endless=True), 8)
        module.training_step = lambda batch, batch_idx: module.layer(batch[0].mean((1, 2, 3))[:, None]).square().mean()
    check = LevelSetConnectivity(dirpath=tmp_path, loss_fn=lambda m, b: m.layer.weight.square().sum(), **rhythm)
    with pytest.warns(UserWarning, match=f"LevelSetConnectivity will compare nothing in this run.*{message}"):
        fit(tmp_path, module, loader, check, **options)
    assert check.rows == []
