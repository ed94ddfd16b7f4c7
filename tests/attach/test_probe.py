"""Batches for a check: read without moving anything of the run's own."""

from __future__ import annotations

import functools
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler, TensorDataset

from lightning_landscape.attach.probe import TrainingData, UnreadableTwice, private_copy
from lightning_landscape.surface.random_states import isolated_rng


def trainer_over(loader: Any, module: pl.LightningModule | None = None) -> pl.Trainer:
    """As much of a trainer as a reader of its data needs, in the middle of a fit."""
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    module = module or pl.LightningModule()
    trainer.strategy.connect(module)
    module.trainer = trainer
    trainer._data_connector.attach_data(module, train_dataloaders=loader)
    trainer.fit_loop._combined_loader = SimpleNamespace(iterables=loader)
    return trainer


class Noisy(Dataset[Tensor]):
    """Counts its reads and draws noise from generators of its own."""

    def __init__(self, size: int = 10) -> None:
        self.values = torch.arange(float(size))
        self.names = [str(index) for index in range(5000)]
        self.reads = 0
        self.numpy, self.python = np.random.default_rng(0), random.Random(0)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Tensor:
        self.reads += 1
        return self.values[index] + self.numpy.integers(2) * 100 + self.python.randrange(2) * 1000


def numbers(batches: list[Tensor]) -> list[float]:
    return sorted(float(value) % 100 for batch in batches for value in batch)


def test_each_pass_reads_all_once_and_moves_nothing() -> None:
    dataset = Noisy(12)
    states = str(dataset.numpy.bit_generator.state), dataset.python.getstate()
    with isolated_rng(3):
        data = TrainingData(trainer_over(DataLoader(dataset, 4, num_workers=2, persistent_workers=True)))
        first, second = list(data), list(data)
    assert numbers(first) == numbers(second) == [float(index) for index in range(12)]
    assert [len(batch) for batch in first] == [4, 4, 4]
    assert not torch.equal(torch.cat(first) % 100, torch.cat(second) % 100)  # in another order
    assert dataset.reads == 0
    assert (str(dataset.numpy.bit_generator.state), dataset.python.getstate()) == states


def test_order_comes_from_the_global_random_state_alone() -> None:
    data = TrainingData(trainer_over(DataLoader(Noisy(), 3)))
    passes = []
    for seed in (0, 0, 1):
        with isolated_rng(seed):
            passes.append(torch.cat(list(data)))
    assert torch.equal(passes[0], passes[1])
    assert not torch.equal(passes[0], passes[2])


@pytest.mark.parametrize(
    ("size", "batch_size", "count", "expected"),
    [(10, 4, 2, [4, 4]), (10, 4, 99, [4, 4]), (10, 3, 1, [3]), (3, 4, 2, [3]), (1, 1, 2, [1]), (1, 32, 8, [1])],
)
def test_batches_are_whole_unless_there_is_none(size: int, batch_size: int, count: int, expected: list[int]) -> None:
    data = TrainingData(trainer_over(DataLoader(Noisy(size), batch_size)))
    assert [len(batch) for batch in data.take(count)] == expected


def test_whole_batches_of_a_data_set_pass_as_they_are() -> None:
    class Whole(Noisy):
        def __getitem__(self, index: int) -> Tensor:
            return torch.full((2, 2), float(index))

    (batch,) = TrainingData(trainer_over(DataLoader(Whole(1), batch_size=None))).take(5)
    assert torch.equal(batch, torch.zeros(2, 2))


def test_batch_sampler_gives_its_size() -> None:
    dataset = Noisy(6)
    loader = DataLoader(dataset, batch_sampler=BatchSampler(SequentialSampler(dataset), 2, drop_last=False))
    assert [len(batch) for batch in TrainingData(trainer_over(loader))] == [2, 2, 2]


def test_batches_pass_through_the_hooks_of_the_module() -> None:
    class Doubling(pl.LightningModule):
        def on_before_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> Tensor:
            return batch * 2

        def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> Tensor:
            return batch + 1

    (batch,) = TrainingData(trainer_over(DataLoader(TensorDataset(torch.ones(3)), 3, collate_fn=stack), Doubling()))
    assert batch.tolist() == [3.0, 3.0, 3.0]


def stack(items: list[tuple[Tensor]]) -> Tensor:
    return torch.stack([item for (item,) in items])


class Jitter:
    """A collate function with a state, and a way back to its trainer as a data module has."""

    def __init__(self, trainer: Any = None) -> None:
        self.rng = random.Random(0)
        self.trainer = trainer
        self.table = np.zeros(3)

    def collate(self, scale: float, items: list[Tensor]) -> Tensor:
        assert self.trainer is not None
        return torch.stack(items) * scale * self.rng.random()


def test_collate_function_keeps_its_state() -> None:
    jitter = Jitter()
    trainer = trainer_over(DataLoader(Noisy(), 2, collate_fn=functools.partial(jitter.collate, 2.0)))
    jitter.trainer = trainer
    state = jitter.rng.getstate()
    list(TrainingData(trainer))
    assert jitter.rng.getstate() == state


def test_copy_shares_data_and_trainer_and_nothing_else() -> None:
    trainer: Any = SimpleNamespace(lock=iter([]))
    dataset, jitter = Noisy(), Jitter(trainer)
    copied, method = private_copy((dataset, jitter.collate), trainer)
    assert copied.values is dataset.values
    assert copied.names is dataset.names
    assert copied.numpy is not dataset.numpy
    assert method.__self__ is not jitter
    assert method.__self__.trainer is trainer
    assert method.__self__.table is jitter.table
    assert method.__self__.rng.random() == random.Random(0).random()


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Any:
        return iter([torch.zeros(1)])


class Locked(Noisy):
    def __init__(self) -> None:
        super().__init__()
        self.file = (value for value in range(3))


class Sizeless:
    def __iter__(self) -> Any:
        return iter([[0]])


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ({"a": DataLoader(Noisy())}, "come from dict, not from one DataLoader"),
        (DataLoader(Endless()), "Endless is an IterableDataset, which a second reader would disturb"),
        (DataLoader(Locked()), r"cannot be copied \(TypeError: cannot pickle 'generator' object\)"),
        (DataLoader(Noisy(), batch_sampler=Sizeless()), "DataLoader has no length"),
    ],
)
def test_data_that_cannot_be_read_twice_are_refused(loader: Any, message: str) -> None:
    with pytest.raises(UnreadableTwice, match=message):
        TrainingData(trainer_over(loader))
