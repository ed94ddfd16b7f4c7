"""A copy of the run's module that trains beside it, with an optimiser of its own."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BaseFinetuning
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_landscape.either_lightning import MisconfigurationException, both
from lightning_landscape.surface.detached import detached_copy, metrics_of

Groups = Sequence[Mapping[str, Any]]


class TrainedCopy:
    """A detached copy of the module, trained by its own ``training_step`` and ``configure_optimizers``.

    Trainer, loggers, metrics and data of the run are only read. Random numbers come from the global state: call it
    inside ``isolated_rng``.

    Args:
        trainer: the trainer whose fit is running.
        module: what trains.
        prepare: changes the copy before its optimiser is made: gives it the weights to start from.

    Attributes:
        module: the copy.
        optimizer: its optimiser.

    Raises:
        MisconfigurationException: for several optimisers, or none.
    """

    def __init__(
        self, trainer: pl.Trainer, module: pl.LightningModule, prepare: Callable[[pl.LightningModule], None]
    ) -> None:
        self._trainer = trainer
        self._stand_in: Any = QuietTrainer(trainer)
        self.module = cast(pl.LightningModule, detached_copy(module))
        for part in self.module.modules():
            if isinstance(part, both(pl.LightningModule)):
                part._trainer = self._stand_in  # type: ignore[assignment]
        prepare(self.module)
        self.optimizer = single_optimizer(self.module.configure_optimizers())
        self._takes_index = is_param_in_hook_signature(self.module.training_step, "batch_idx", min_args=2)
        self._metrics = metrics_of(self.module)

    def place(self, epoch: int, step: int) -> None:
        """Where the copy is in training, if not where the run is: a loss may depend on it."""
        self._stand_in.current_epoch, self._stand_in.global_step = epoch, step

    def backward(self, batch: Any, batch_idx: int, num_batches: int) -> None:
        """Adds the gradient of one of the ``num_batches`` batches whose mean loss the next step descends."""
        module = self.module
        with self._trainer.precision_plugin.train_step_context():
            output = module.training_step(batch, batch_idx) if self._takes_index else module.training_step(batch)
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if isinstance(loss, Tensor):
            (loss / num_batches).backward()
        for metric in self._metrics:
            metric.reset()  # some keep every batch that they have seen

    def step(self, groups: Groups) -> None:
        """An optimiser step with the hyperparameters of the run's own: its ``param_groups`` without the parameters.

        Raises:
            MisconfigurationException: if the run's optimiser has other groups, added during training.
        """
        mine = self.optimizer.param_groups
        if len(groups) != len(mine):
            raise MisconfigurationException(
                f"the module's optimiser has {len(groups)} parameter groups and its copy's {len(mine)}: a copy that "
                "trains beside the run cannot follow groups that are added during training"
            )
        for group, now in zip(mine, groups, strict=True):
            group.update(copy.deepcopy(dict(now)))
        self.module.configure_gradient_clipping(
            self.optimizer, self._trainer.gradient_clip_val, self._trainer.gradient_clip_algorithm
        )
        self.optimizer.step()
        self.optimizer.zero_grad()


def hyperparameters(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The ``param_groups`` of an optimiser without the parameters: learning rate, momentum, and the like."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def require_no_closure(optimizer: Optimizer, whose: str) -> None:
    """Refuses optimisers that evaluate the loss themselves, such as LBFGS; call it inside ``isolated_rng``.

    A step is tried on a copy of the optimiser whose parameters are single zeros.

    Args:
        optimizer: which is only read.
        whose: who would step with it, for the message.

    Raises:
        MisconfigurationException: if ``step()`` fails for want of a closure.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    memo: dict[int, Any] = {id(parameter): nn.Parameter(torch.zeros(1, 1)) for parameter in parameters}
    for stand_in in list(memo.values()):
        stand_in.grad = torch.zeros(1, 1)
    memo[id(optimizer.state)] = defaultdict(dict)
    try:
        copy.deepcopy(optimizer, memo).step()
    except Exception as error:  # whatever an optimiser says; what has nothing to do with a closure is no news
        if "closure" in str(error) or "'NoneType' object is not callable" in str(error):
            raise MisconfigurationException(
                f"{whose} steps on gradients of one batch, and {type(optimizer).__name__}.step needs a closure that "
                "evaluates the loss anew: train with another optimiser, such as SGD or Adam, or leave it out"
            ) from error


def require_steady_groups(trainer: pl.Trainer, whose: str) -> None:
    """Refuses callbacks that unfreeze parameters while the module trains, BackboneFinetuning and its kin.

    Raises:
        MisconfigurationException: saying what to do.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # declared nowhere by Lightning
        if isinstance(callback, both(BaseFinetuning)):
            raise MisconfigurationException(
                f"{whose} cannot follow {type(callback).__name__}, which adds groups of parameters to the optimiser "
                "while the module trains: give configure_optimizers all groups from the start, with a learning rate of "
                "0 until they are to train, or leave one of the two out"
            )


class QuietTrainer:
    """The trainer as a copy sees it: all there to read; loggers drop what they get, and what is set stays here."""

    def __init__(self, trainer: pl.Trainer) -> None:
        self.logger = DummyLogger()
        self.loggers = [self.logger]
        self._real = trainer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


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
            "a copy that trains beside the run needs configure_optimizers to return one optimizer, got "
            f"{type(configured).__name__}"
        )
    return configured
