"""Batches drawn anew at every step of every epoch, each from a seed of its own."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch.utils.data import Dataset, DistributedSampler

from lightning_landscape.sparse_coding.batch import SparseCodingBatch
from lightning_landscape.sparse_coding.signals import Draw


def stream(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """A generator that depends on nothing else; streams of other purposes and numbers are independent of it.

    Example:
        >>> torch.equal(torch.rand(2, generator=stream(0, "a")), torch.rand(2, generator=stream(0, "b")))
        False
    """
    entropy = np.random.SeedSequence((seed, zlib.crc32(purpose.encode()), number))
    return torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0]))


class FreshBatches(Dataset[SparseCodingBatch]):
    """Item i is batch number i, drawn from ``(seed, i)``; the items below ``len`` make the first epoch.

    A map and no stream, so that a check that needs batches of its own reads the same data without disturbing a run.

    Args:
        draw: yields signals and codes.
        batch_size: signals in a batch.
        steps_per_epoch: batches in an epoch.
        seed: random seed of all batches.
    """

    def __init__(self, draw: Draw, batch_size: int, steps_per_epoch: int, seed: int) -> None:
        self.draw = draw
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed

    def __getitem__(self, index: int) -> SparseCodingBatch:
        return SparseCodingBatch(*self.draw(self.batch_size, stream(self.seed, "train", index)))

    def __len__(self) -> int:
        return self.steps_per_epoch


class FreshSampler(DistributedSampler[int]):
    """The numbers of the batches of an epoch, which no other epoch and no other device has.

    It is a ``DistributedSampler`` so that Lightning keeps it when it trains on several devices; where
    ``steps_per_epoch`` is no multiple of their number, an epoch is that much longer.

    Args:
        dataset: the batches, of which an epoch has as many as ``len`` says.
        ranks: number of devices.
        rank: number of this process, from 0.
        done: how many batches this device has trained on so far; an iterator begins with the next. By default those of
            the epochs before the one that ``set_epoch`` names. Lightning names it too late for the first iterator of
            a resumed run, whose checkpoint may have been written before an epoch ended.

    Example:
        >>> data = FreshBatches(lambda count, generator: (torch.zeros(count, 1), None), 2, steps_per_epoch=3, seed=0)
        >>> sampler = FreshSampler(data, ranks=2, rank=1)
        >>> sampler.set_epoch(1)
        >>> list(sampler)
        [5, 7]
    """

    def __init__(self, dataset: Dataset[Any], ranks: int, rank: int, done: Callable[[], int] | None = None) -> None:
        super().__init__(dataset, num_replicas=ranks, rank=rank, shuffle=False)
        self.done = done

    @classmethod
    def of_trainer(cls, dataset: Dataset[Any], trainer: Trainer | None) -> FreshSampler:
        """The batches that ``trainer`` has yet to train on, wherever in an epoch it stands; ``None``: all, one device.

        What was done is counted by the trainer and kept in its checkpoints.
        """
        if trainer is None:
            return cls(dataset, ranks=1, rank=0)
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total  # declared wider than it is
        return cls(dataset, trainer.world_size, trainer.global_rank, done=lambda: progress.processed)

    def __iter__(self) -> Iterator[int]:
        done = self.epoch * self.num_samples if self.done is None else self.done()
        first = done * self.num_replicas
        return iter(range(first + self.rank, first + self.total_size, self.num_replicas))
