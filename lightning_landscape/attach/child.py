"""A child of a training run: the weights and optimiser of one moment, trained on in an order of its own."""

from __future__ import annotations

import bisect
import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_landscape.attach.copies import TrainedCopy, hyperparameters
from lightning_landscape.attach.probe import TrainingData
from lightning_landscape.either_lightning import MisconfigurationException
from lightning_landscape.surface.work import Progress


class Portion(NamedTuple):
    """The batches of a rank that one optimiser step of the run was made of.

    Attributes:
        batches: how many; the last step of an epoch may have fewer than the others.
        divisor: what their summed loss was divided by, ``accumulate_grad_batches`` of the moment.
        epoch: the epoch that they belong to.
    """

    batches: int
    divisor: int
    epoch: int


class Schedule:
    """The hyperparameters and the batches of each step of the run; only changes are kept."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._groups: list[list[dict[str, Any]]] = []
        self._portion_steps: list[int] = []
        self._portions: list[Portion] = []

    def note(self, step: int, optimizer: Optimizer, portion: Portion) -> None:
        """Takes note of the groups and batches with which the step from ``step`` to ``step + 1`` is about to be taken.

        A closure that is evaluated several times in one step (LBFGS) notes it several times, and the first counts.
        """
        groups = hyperparameters(optimizer)
        if not self._groups or groups != self._groups[-1]:
            self._steps.append(step)
            self._groups.append(copy.deepcopy(groups))
        if portion.batches and (not self._portions or portion != self._portions[-1]):
            self._portion_steps.append(step)
            self._portions.append(portion)

    def at(self, step: int) -> list[dict[str, Any]]:
        """The groups of a step since the first that was noted."""
        return copy.deepcopy(self._groups[max(0, bisect.bisect_right(self._steps, step) - 1)])

    def portion(self, step: int) -> Portion:
        """The batches of a step since the first that was noted.

        Raises:
            ValueError: if the checkpoint that the run went on from was written before batches were noted.
        """
        place = bisect.bisect_right(self._portion_steps, step) - 1
        if place < 0:
            raise ValueError(
                f"the checkpoint does not tell how many batches step {step} had: an older version of this package "
                "wrote it; fork again from the start"
            )
        return self._portions[place]

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {
            "steps": list(self._steps),
            "groups": copy.deepcopy(self._groups),
            "portion_steps": list(self._portion_steps),
            "portions": [list(portion) for portion in self._portions],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from :meth:`state_dict`."""
        self._steps, self._groups = list(state["steps"]), copy.deepcopy(list(state["groups"]))
        self._portion_steps = list(state.get("portion_steps", []))
        self._portions = [Portion(*numbers) for numbers in state.get("portions", [])]


def train_child(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    state: Mapping[str, Tensor],
    optimizer_state: Mapping[str, Any],
    in_eval: frozenset[str],
    schedule: Schedule,
    first: int,
    last: int,
    tell: Progress | None = None,
) -> dict[str, Tensor]:
    """Trains a copy of ``module`` from step ``first`` to step ``last``, on minibatches in a new random order.

    Order, dropout and augmentation come from the global random state: call it inside ``isolated_rng``. Each step has
    as many batches as that of the run, divided by the same number, and where the run begins an epoch, so does the
    child: a new pass over the data. One process does what all ranks of the run do, with world_size times the batches.
    Trainer, loggers, metrics and data of the run are only read.

    Args:
        trainer: the trainer whose fit is running.
        module: what trains; its weights, buffers and optimiser do not matter.
        state: weights and buffers to start from, as ``module.state_dict()``.
        optimizer_state: the optimiser's ``state_dict()`` to start from.
        in_eval: names of the submodules that were in eval mode.
        schedule: hyperparameters and batches of each step.
        first: step that the child starts from.
        last: step that it ends at.
        tell: hears of each step.

    Returns:
        The child's parameters and buffers.

    Raises:
        MisconfigurationException: if the optimiser of the copy has other groups of parameters than ``optimizer_state``.
    """

    def start(child: pl.LightningModule) -> None:
        child.load_state_dict(state, strict=False)
        for name, part in child.named_modules():
            part.training = name not in in_eval

    child = TrainedCopy(trainer, module, start)
    theirs, mine = (
        [len(group["params"]) for group in groups]
        for groups in (optimizer_state["param_groups"], child.optimizer.param_groups)
    )
    if theirs != mine:
        raise MisconfigurationException(
            f"at step {first} the optimiser had groups of {theirs} parameters, and configure_optimizers now gives "
            f"{mine}: the module or a callback adds groups or unfreezes parameters while it trains, which no child can "
            "follow. Give configure_optimizers all groups from the start, with a learning rate of 0 until they are to "
            "train"
        )
    child.optimizer.load_state_dict(copy.deepcopy(dict(optimizer_state)))
    data, ranks, epoch = TrainingData(trainer, whole=False), trainer.world_size, None
    batches: Iterator[tuple[int, Any]] = iter(())
    with torch.enable_grad():
        for step in range(first, last):
            portion = schedule.portion(step)
            if portion.epoch != epoch:
                epoch, batches = portion.epoch, _endless(data)
            child.place(epoch, step)
            for _ in range(portion.batches * ranks):
                index, batch = next(batches)
                child.backward(batch, index, portion.divisor * ranks)
            child.step(schedule.at(step))
            if tell is not None:
                tell(f"step {step + 1} of {last}", (step + 1 - first) / (last - first))
    return {name: tensor.detach() for name, tensor in child.module.state_dict().items()}


def _endless(data: TrainingData) -> Iterator[tuple[int, Any]]:
    while True:
        empty = True
        for pair in enumerate(data):
            empty = False
            yield pair
        if empty:
            raise ValueError("the training data yield no batch")
