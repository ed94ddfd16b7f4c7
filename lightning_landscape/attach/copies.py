"""A copy of the run's module that trains beside it, with an optimiser of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
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
        self.module = cast(pl.LightningModule, detached_copy(module))
        for part in self.module.modules():
            if isinstance(part, both(pl.LightningModule)):
                part._trainer = QuietTrainer(trainer)  # type: ignore[assignment]
        prepare(self.module)
        self.optimizer = single_optimizer(self.module.configure_optimizers())
        self._takes_index = is_param_in_hook_signature(self.module.training_step, "batch_idx", min_args=2)
        self._metrics = metrics_of(self.module)

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
