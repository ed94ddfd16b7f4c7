"""Batches of a run's training data for a check, read without touching the run's own loader or data set."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MethodType
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset

from lightning_landscape.either_lightning import MisconfigurationException, both
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.objective import LossFunction
from lightning_landscape.surface.random_states import isolated_rng

T = TypeVar("T")
_LARGE = 1000  # containers of more items hold data rather than state, and are shared by a copy


class UnreadableTwice(MisconfigurationException):
    """The training data cannot be read beside the run: a second reader would disturb it."""


class TrainingData:
    """Fresh minibatches of what a run trains on, in random order.

    A pass holds the examples of one epoch of the run, of all its ranks: those that the sampler or batch sampler
    chooses and the limits of the trainer let through (``limit_train_batches``, ``overfit_batches``, ``drop_last``,
    ``max_steps`` below one epoch). Without shuffling these are the first; under a random sampler they are drawn anew at
    each pass, as the run does at each epoch. Data of loaders that ``reload_dataloaders_every_n_epochs`` makes later
    are not seen.

    The order comes from the global random state: read it inside ``isolated_rng``. Each pass reads a private
    copy of data set, sampler and collate function in this process: neither the loader that trains, nor its
    workers, nor a random state inside the three (an augmentation's generator, say) moves. Arrays and long lists
    are shared with the original, not copied. Batches pass through the transfer hooks of the module, as in
    training. What a copy cannot reach is shared: a generator that is a global variable or held by a lambda.

    Args:
        trainer: a trainer whose fit has begun.
        whole: leave out a last batch of fewer examples, where there is a whole one; else only if the loader does.

    Raises:
        UnreadableTwice: where the data cannot be read a second time from the loader: several loaders, a stream, a
            loader without a length or with an iterator of its own, a data set that cannot be copied.
    """

    def __init__(self, trainer: pl.Trainer, whole: bool = True) -> None:
        loader = trainer.train_dataloader
        if not isinstance(loader, DataLoader):
            raise UnreadableTwice(f"the training data come from {type(loader).__name__}, not from one DataLoader")
        if isinstance(loader.dataset, IterableDataset):
            raise UnreadableTwice(
                f"{type(loader.dataset).__name__} is an IterableDataset, which a second reader would disturb"
            )
        kind = type(loader)
        own = kind.__iter__ is not DataLoader.__iter__ or kind._get_iterator is not DataLoader._get_iterator
        # A loader may say that whoever measures a loss is to read its data set itself, without what it adds.
        if own and not getattr(loader, "measured_by_dataset", False):
            raise UnreadableTwice(f"{kind.__name__} iterates in a way of its own, which a second reader would miss")
        try:
            batches = len(loader)
        except TypeError as error:
            raise UnreadableTwice(f"{kind.__name__} has no length ({error})") from error
        self._limit = int(min(batches, trainer.num_training_batches))
        if trainer.max_steps > 0:
            self._limit = min(self._limit, trainer.max_steps * accumulations(trainer)[0])
        self._trainer = trainer
        self._whole = whole
        self._drop_last = loader.drop_last
        self._batch_size = loader.batch_size  # None for a data set that yields whole batches, and under batch samplers
        sampler: Any = loader.sampler
        self._grouped = False
        if loader.batch_sampler is not None and self._batch_size is None:
            plain = type(loader.batch_sampler).__iter__ is BatchSampler.__iter__
            self._grouped = not plain
            if plain:
                self._batch_size, self._drop_last = loader.batch_sampler.batch_size, loader.batch_sampler.drop_last  # type: ignore[attr-defined]
                sampler = loader.batch_sampler.sampler  # type: ignore[attr-defined]
            else:
                sampler = loader.batch_sampler
        self._source = private_copy((loader.dataset, sampler, loader.collate_fn), trainer)

    def __iter__(self) -> Iterator[Any]:
        dataset, sampler, collate = private_copy(self._source, self._trainer)
        chosen = self._epoch(sampler)
        order: Any = [chosen[place] for place in torch.randperm(len(chosen)).tolist()]
        loader: DataLoader[Any]
        if self._grouped:
            loader = DataLoader(dataset, batch_sampler=order, collate_fn=collate)
        else:
            size = self._batch_size
            drop_last = size is not None and (len(order) >= size if self._whole else self._drop_last)
            loader = DataLoader(dataset, batch_size=size, sampler=order, collate_fn=collate, drop_last=drop_last)
        for batch in loader:
            yield self._transferred(batch)

    def take(self, count: int) -> list[Any]:
        """The first ``count`` batches of a pass, or all that there are."""
        return [batch for _, batch in zip(range(count), self, strict=False)]

    def _epoch(self, sampler: Any) -> list[Any]:
        """The examples, or groups of them, that the run takes from the sampler in some epoch, on all of its ranks."""
        count = self._limit * (self._batch_size or 1)
        inner = getattr(sampler, "sampler", sampler) if self._grouped else sampler
        epoch = int(torch.randint(2**16, ()))
        ranks = inner.num_replicas if isinstance(inner, DistributedSampler) else 1
        chosen: list[Any] = []
        for rank in range(ranks):
            # Ranks that draw from the global random state share one seed in the run, and their shares part.
            with isolated_rng(epoch):
                if isinstance(inner, DistributedSampler):
                    inner.rank = rank
                for part in (sampler, inner):
                    if hasattr(part, "set_epoch"):
                        part.set_epoch(epoch)
                    if isinstance(getattr(part, "generator", None), torch.Generator):
                        part.generator = None  # its copy would draw the same at each pass
                chosen += itertools.islice(iter(sampler), count)
        return chosen

    def _transferred(self, batch: Any) -> Any:
        batch = self._trainer.precision_plugin.convert_input(batch)
        batch = self._trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
        return self._trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def accumulations(trainer: pl.Trainer) -> list[int]:
    """How many batches make an optimiser step, in the order of the epochs: several numbers under a schedule of it."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # declared nowhere by Lightning
        if isinstance(callback, both(GradientAccumulationScheduler)):
            return [callback.scheduling[epoch] for epoch in callback.epochs]
    return [trainer.accumulate_grad_batches]


def run_surface(
    module: pl.LightningModule,
    batches: Sequence[Any],
    training: Iterable[Any] | None,
    loss_fn: LossFunction | None,
    **options: Any,
) -> LossSurface:
    """The loss surface of a run: E over ``batches``, computed in the precision of the trainer.

    Draws from the global random state: call it inside ``isolated_rng``.

    Args:
        module: what trains; its trainer is only read.
        batches: what E is the mean over.
        training: what searches train on; ``None`` for the same.
        loss_fn: ``loss_fn(module, batch)`` returns the mean loss; ``None``: the module's ``training_step``.
        **options: further arguments of :class:`~lightning_landscape.surface.LossSurface`.

    Raises:
        MisconfigurationException: where no surface can be defined, with what to do.
    """
    try:
        context = module.trainer.precision_plugin.train_step_context
        return LossSurface(module, batches, loss_fn, training, step_context=context, **options)
    except ValueError as error:
        raise MisconfigurationException(f"the loss surface of this run cannot be defined: {error}") from error


def attended_surface(module: pl.LightningModule, *arguments: Any, **options: Any) -> LossSurface:
    """:func:`run_surface` of a module that will change while the surface is used.

    Raises:
        MisconfigurationException: also where no two moments would have the same codebook, or the like.
    """
    surface = run_surface(module, *arguments, **options)
    names = surface.unknown
    if names:
        raise MisconfigurationException(
            f"the buffers {names[:3]} change while the module trains and cannot be estimated at a point by itself, so "
            f"that two moments would differ in them: pass buffers={names} to measure all models with the present ones"
        )
    return surface


def require_comparable(surface: LossSurface, partner: Mapping[str, Tensor], name: str) -> None:
    """Compares E of a model with the loss that it has by itself, before the first step.

    Raises:
        ValueError: beginning with the name of the model, if it has to be refused.
    """
    try:
        surface.point(partner)
    except ValueError as error:
        raise ValueError(f"{name} cannot be compared: {error}") from error


def private_copy(source: T, trainer: pl.Trainer) -> T:
    """A copy of what yields batches with its own state, sharing arrays, long containers and the trainer.

    Raises:
        UnreadableTwice: if something in it cannot be copied, such as an open file.
    """
    memo = {id(value): value for value in _data(source, {id(trainer)})} | {id(trainer): trainer}
    try:
        return copy.deepcopy(source, memo)
    except Exception as error:  # whatever the user's classes raise
        raise UnreadableTwice(
            f"the training data cannot be copied ({type(error).__name__}: {error}), and reading your own would "
            "disturb the run"
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
