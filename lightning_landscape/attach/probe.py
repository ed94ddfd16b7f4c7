"""Batches of a run's training data for a check, read without touching the run's own loader or data set."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MethodType
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, RandomSampler, SequentialSampler, Subset

from lightning_landscape.either_lightning import MisconfigurationException
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.batch_norm import BatchNormMode
from lightning_landscape.surface.objective import LossFunction

T = TypeVar("T")
_LARGE = 1000  # containers of more items hold data rather than state, and are shared by a copy
_ADVICE = "pass batches=[...], a list of batches as your training_step takes them"


class TrainingData:
    """Fresh minibatches of a run's training data, in random order.

    The order comes from the global random state: read it inside ``isolated_rng``. Each pass reads a private
    copy of data set, sampler and collate function in this process: neither the loader that trains, nor its
    workers, nor a random state inside the three (an augmentation's generator, say) moves. Arrays and long lists
    are shared with the original, not copied. Batches pass through the transfer hooks of the module, as in
    training. What a copy cannot reach is shared: a generator that is a global variable or held by a lambda.

    Args:
        trainer: a trainer whose fit has begun.

    Raises:
        MisconfigurationException: where the data cannot be read a second time from the loader: several
            loaders, an iterable data set, a batch sampler without a size, a data set that cannot be copied.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        loader = trainer.train_dataloader
        if not isinstance(loader, DataLoader):
            raise MisconfigurationException(
                f"the training data come from {type(loader).__name__}, not from one DataLoader: {_ADVICE}"
            )
        if isinstance(loader.dataset, IterableDataset):
            raise MisconfigurationException(
                f"{type(loader.dataset).__name__} is an IterableDataset, which a second reader would disturb: {_ADVICE}"
            )
        self._trainer = trainer
        # A sampler that chooses or weighs examples is part of the loss that is trained; an order is not.
        order = isinstance(loader.sampler, RandomSampler | SequentialSampler) or (
            isinstance(loader.sampler, DistributedSampler) and loader.sampler.dataset is loader.dataset
        )
        sampler = None if order else loader.sampler
        dataset = loader.dataset
        if trainer.overfit_batches and loader.batch_size:  # type: ignore[attr-defined]  # trained on are the first alone
            seen = min(len(dataset), int(trainer.num_training_batches) * loader.batch_size)  # type: ignore[arg-type]
            dataset, sampler = Subset(dataset, range(seen)), None
        self._source = private_copy((dataset, sampler, loader.collate_fn), trainer)
        # None for a data set that yields whole batches.
        self._batch_size = loader.batch_size
        if self._batch_size is None and loader.batch_sampler is not None:
            self._batch_size = getattr(loader.batch_sampler, "batch_size", None)
            if not isinstance(self._batch_size, int):
                raise MisconfigurationException(f"{type(loader.batch_sampler).__name__} has no batch_size: {_ADVICE}")

    def __iter__(self) -> Iterator[Any]:
        dataset, sampler, collate = private_copy(self._source, self._trainer)
        count = len(dataset if sampler is None else sampler)  # type: ignore[arg-type]
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=self._batch_size,
            shuffle=sampler is None,
            sampler=sampler,
            collate_fn=collate,
            # Batches of one size, where there is a whole one.
            drop_last=self._batch_size is not None and count >= self._batch_size,
        )
        for batch in loader:
            yield self._transferred(batch)

    def take(self, count: int) -> list[Any]:
        """The first ``count`` batches of a pass, or all that there are."""
        return [batch for _, batch in zip(range(count), self, strict=False)]

    def _transferred(self, batch: Any) -> Any:
        batch = self._trainer.precision_plugin.convert_input(batch)
        batch = self._trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
        return self._trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def probe_surface(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    batches: Sequence[Any] | None,
    num_batches: int,
    loss_fn: LossFunction | None,
    batch_norm: BatchNormMode,
    vectorize: bool | None = None,
) -> LossSurface:
    """The loss surface of a run: E over ``batches``, or over ``num_batches`` drawn from the training data.

    Draws from the global random state: call it inside ``isolated_rng``.

    Raises:
        MisconfigurationException: where no surface can be defined, with what to do.
    """
    training = None
    if batches is None:
        training = TrainingData(trainer)
        batches = training.take(num_batches)
    try:
        return LossSurface(module, batches, loss_fn, training, batch_norm, vectorize=vectorize)
    except ValueError as error:
        raise MisconfigurationException(f"the loss surface of this run cannot be defined: {error}") from error


def private_copy(source: T, trainer: pl.Trainer) -> T:
    """A copy of what yields batches with its own state, sharing arrays, long containers and the trainer.

    Raises:
        MisconfigurationException: if something in it cannot be copied, such as an open file.
    """
    memo = {id(value): value for value in _data(source, {id(trainer)})} | {id(trainer): trainer}
    try:
        return copy.deepcopy(source, memo)
    except Exception as error:  # whatever the user's classes raise
        raise MisconfigurationException(
            f"the training data cannot be copied ({type(error).__name__}: {error}), and reading your own would "
            f"disturb the run: {_ADVICE}"
        ) from error


def _data(value: Any, seen: set[int]) -> Iterator[Any]:
    """The arrays and long containers reachable from ``value``."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor | np.ndarray) or (isinstance(value, list | tuple | dict) and len(value) > _LARGE):
        yield value
        return
    inner: Iterable[Any]
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    elif isinstance(value, MethodType):
        inner = [value.__self__]
    elif isinstance(value, functools.partial):
        inner = [value.func, *value.args, *value.keywords.values()]
    else:
        inner = getattr(value, "__dict__", {}).values()
    for item in inner:
        yield from _data(item, seen)
