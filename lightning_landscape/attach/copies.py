"""A child of a training run: the weights and optimiser of one moment, trained on in an order of its own."""

from __future__ import annotations

import bisect
import copy
from collections.abc import Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_landscape.attach.probe import TrainingData
from lightning_landscape.surface.detached import detached_copy, metrics_of


class Schedule:
    """The hyperparameters that the run's optimiser had at each step; only their changes are kept."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._groups: list[list[dict[str, Any]]] = []

    def note(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Takes note of the groups with which the step from ``step`` to ``step + 1`` is about to be taken."""
        groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        if not self._groups or groups != self._groups[-1]:
            self._steps.append(step)
            self._groups.append(copy.deepcopy(groups))

    def at(self, step: int) -> list[dict[str, Any]]:
        """The groups of a step since the first that was noted."""
        return copy.deepcopy(self._groups[max(0, bisect.bisect_right(self._steps, step) - 1)])

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"steps": list(self._steps), "groups": copy.deepcopy(self._groups)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from :meth:`state_dict`."""
        self._steps, self._groups = list(state["steps"]), copy.deepcopy(list(state["groups"]))


def train_child(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    state: Mapping[str, Tensor],
    optimizer_state: Mapping[str, Any],
    in_eval: frozenset[str],
    schedule: Schedule,
    first: int,
    last: int,
) -> dict[str, Tensor]:
    """Trains a copy of ``module`` from step ``first`` to step ``last``, on minibatches in a new random order.

    Order, dropout and augmentation come from the global random state: call it inside ``isolated_rng``. One
    process does what all ranks of the run do: a step averages the gradients of world_size x
    accumulate_grad_batches batches. Trainer, loggers, metrics and data of the run are only read.

    Args:
        trainer: the trainer whose fit is running.
        module: what trains; its weights, buffers and optimiser do not matter.
        state: weights and buffers to start from, as ``module.state_dict()``.
        optimizer_state: the optimiser's ``state_dict()`` to start from.
        in_eval: names of the submodules that were in eval mode.
        schedule: hyperparameters at each step.
        first: step that the child starts from.
        last: step that it ends at.

    Returns:
        The child's parameters and buffers.
    """
    child = cast(pl.LightningModule, detached_copy(module))
    child.load_state_dict(state, strict=False)
    for name, part in child.named_modules():
        part.training = name not in in_eval
        if isinstance(part, pl.LightningModule):
            part._trainer = QuietTrainer(trainer)  # type: ignore[assignment]
    optimizer = single_optimizer(child.configure_optimizers())
    optimizer.load_state_dict(copy.deepcopy(dict(optimizer_state)))
    indexed = is_param_in_hook_signature(child.training_step, "batch_idx", min_args=2)
    batches_per_step = trainer.accumulate_grad_batches * trainer.world_size
    batches = _endless(TrainingData(trainer))
    metrics = metrics_of(child)
    with torch.enable_grad():
        for step in range(first, last):
            for group, now in zip(optimizer.param_groups, schedule.at(step), strict=True):
                group.update(now)
            for _ in range(batches_per_step):
                index, batch = next(batches)
                with trainer.precision_plugin.train_step_context():
                    output = child.training_step(batch, index) if indexed else child.training_step(batch)
                loss = output.get("loss") if isinstance(output, Mapping) else output
                if isinstance(loss, Tensor):
                    (loss / batches_per_step).backward()
                for metric in metrics:
                    metric.reset()  # some keep every batch that they have seen
            child.configure_gradient_clipping(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
            optimizer.step()
            optimizer.zero_grad()
    return {name: tensor.detach() for name, tensor in child.state_dict().items()}


def _endless(data: TrainingData) -> Any:
    while True:
        empty = True
        for pair in enumerate(data):
            empty = False
            yield pair
        if empty:
            raise ValueError("the training data yield no batch")


class QuietTrainer:
    """The trainer as the twin sees it: all there to read; loggers drop what they get, and what is set stays here."""

    def __init__(self, trainer: pl.Trainer) -> None:
        self.logger = DummyLogger()
        self.loggers = [self.logger]
        self._real = trainer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def reset_parameters(module: nn.Module) -> None:
    """Calls ``reset_parameters`` of every submodule that owns trainable parameters; frozen ones keep their values.

    This is the initialisation of the layers, not one that the module's own ``__init__`` may give them afterwards.

    Raises:
        MisconfigurationException: naming the submodules that have no such method.
    """
    stubborn = []
    frozen = {p: p.detach().clone() for p in module.parameters() if not p.requires_grad}
    # Children first: what owns them may set what their own initialisation does not.
    for name, child in reversed(list(module.named_modules())):
        if any(parameter.requires_grad for parameter in child.parameters(recurse=False)):
            reset = getattr(child, "reset_parameters", None) or getattr(child, "_reset_parameters", None)
            if callable(reset):
                reset()
            else:
                stubborn.append(f"{name or 'the module itself'} ({type(child).__name__})")
    with torch.no_grad():
        for parameter, value in frozen.items():
            parameter.copy_(value)
    if stubborn:
        raise MisconfigurationException(
            f"pairs='twin' cannot re-initialise {', '.join(stubborn[:5])}: these own parameters and have no "
            "reset_parameters(). Add one, or pass reinitialize=lambda module: ..., which draws new weights in place"
        )


def single_optimizer(configured: Any) -> Optimizer:
    """The one optimizer that ``configure_optimizers`` returned, in whichever of Lightning's forms.

    Raises:
        MisconfigurationException: for several, or none.
    """
    if isinstance(configured, Mapping):
        configured = configured.get("optimizer")
    if isinstance(configured, list | tuple) and configured and isinstance(configured[0], list | tuple):
        configured = configured[0]  # ([optimizers], [schedulers])
    if isinstance(configured, list | tuple) and len(configured) == 1:
        return single_optimizer(configured[0])
    if not isinstance(configured, Optimizer):
        raise MisconfigurationException(
            f"pairs='twin' needs configure_optimizers to return one optimizer, got {type(configured).__name__}"
        )
    return configured
