"""A second initialisation of the module that trains, in lock-step on the same batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_landscape.attach.copies import QuietTrainer, reset_parameters, single_optimizer
from lightning_landscape.attach.rng import isolated_rng
from lightning_landscape.callbacks.pairings.base import Pairing, Partner
from lightning_landscape.storage.snapshots import SnapshotStore
from lightning_landscape.surface.detached import detached_copy, metrics_of

Reinitialize = Callable[[pl.LightningModule], None]


class Twin(Pairing):
    """Trains a twin of the module: another initialisation, the same batches, the same schedule.

    At every optimiser step of the module the twin takes one too, with its own optimiser from
    ``configure_optimizers`` and the hyperparameters (learning rate, momentum) that the module's optimiser has
    at that moment, so that every kind of schedule applies to both alike. Gradients are averaged over ranks.
    Training the twin costs as much as training the module, and as much memory.

    The twin's weights and optimiser state are part of a checkpoint, because they must match it exactly.

    Args:
        trainer: the trainer, whose fit begins.
        module: the module that trains.
        reinitialize: gives a copy of the module another initialisation; ``None`` calls
            ``reset_parameters`` of every submodule that owns parameters.
        seed: of the initialisation, and of the twin's own dropout and noise.

    Raises:
        MisconfigurationException: for submodules that cannot be reset, and optimisers that cannot be followed.
    """

    def __init__(
        self, trainer: pl.Trainer, module: pl.LightningModule, reinitialize: Reinitialize | None, seed: int
    ) -> None:
        self._trainer = trainer
        self._seed = seed
        self._batches = 0
        self._groups: list[dict[str, Any]] | None = None
        self._pending: Any = None
        self._steps = trainer.global_step
        self.failure: Exception | None = None
        self._failed_ranks: Tensor | None = None
        self.module = cast(pl.LightningModule, detached_copy(module))
        for child in self.module.modules():
            if isinstance(child, pl.LightningModule):
                child._trainer = QuietTrainer(trainer)  # type: ignore[assignment]
        self._takes_index = is_param_in_hook_signature(self.module.training_step, "batch_idx", min_args=2)
        # Scattered, for a module made under the same seed would otherwise draw the very same weights.
        with isolated_rng((seed * 2654435761 + 0x9E3779B9) % 2**32):
            (reinitialize or reset_parameters)(self.module)
            self._require_difference(module)
            self._optimizer = single_optimizer(self.module.configure_optimizers())

    def partner(self, store: SnapshotStore) -> Partner:
        """The twin's present parameters.

        Raises:
            RuntimeError: if a step of the twin failed, on any rank: it has stopped, and training goes on.
        """
        if self.failure is None and self._failed_ranks is not None and bool(self._failed_ranks):
            self.failure = RuntimeError("a step failed on another rank")
        if self.failure is not None:
            raise RuntimeError(f"the twin has stopped: {self.failure}") from self.failure
        return dict(self.module.named_parameters())

    def _require_difference(self, module: nn.Module) -> None:
        mine = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        theirs = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True)):
            raise MisconfigurationException(
                "the twin has the very weights of the module: pass reinitialize=lambda module: ... that draws new ones"
            )

    def keep(self, batch: Any) -> None:
        """Takes a copy of the batch before the module's step, which may change it in place."""
        try:
            self._pending = copy.deepcopy(batch) if self.failure is None else None
        except Exception as error:  # whatever a user's batch raises
            self.failure = error

    def follow(self, optimizer: Optimizer) -> None:
        """Takes over the hyperparameters with which the module is about to step."""
        self._groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]

    def step(self, batch_idx: int) -> None:
        """One forward and backward pass on the kept batch, and an optimiser step if the module took one.

        What goes wrong is kept in ``failure``: it ends the twin, not the training.
        """
        seed = (self._seed + 1 + self._batches * self._trainer.world_size + self._trainer.global_rank) % 2**32
        self._batches += 1
        with isolated_rng(seed), torch.enable_grad():
            try:
                if self.failure is None:
                    self._backward(batch_idx)
            except Exception as error:  # out of memory, or whatever a user's step raises
                self.failure = error
            if self._trainer.global_step > self._steps:
                self._steps = self._trainer.global_step
                self._average_gradients()
                try:
                    if self.failure is None:
                        self._optimizer_step()
                except Exception as error:  # the same on every rank
                    self.failure = error

    def _backward(self, batch_idx: int) -> None:
        batch, self._pending = self._pending, None
        module = self.module
        with self._trainer.precision_plugin.train_step_context():
            output = module.training_step(batch, batch_idx) if self._takes_index else module.training_step(batch)
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if isinstance(loss, Tensor):
            (loss / self._trainer.accumulate_grad_batches).backward()
        for metric in metrics_of(module):
            metric.reset()  # some keep every batch that they have seen

    def _average_gradients(self) -> None:
        """Every rank joins for every parameter, used by its batch or not, and also when its twin has failed."""
        size = self._trainer.world_size
        if size == 1:
            return
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        failed = torch.tensor(float(self.failure is not None), device=parameters[0].device)
        dist.all_reduce(failed)
        self._failed_ranks = failed  # read at the next check: reading it here would wait for the device
        for parameter in parameters:
            grad = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            dist.all_reduce(grad)
            parameter.grad = grad / size

    def _optimizer_step(self) -> None:
        groups = self._groups or []
        if len(groups) != len(self._optimizer.param_groups):
            raise MisconfigurationException(
                f"the module's optimiser has {len(groups)} parameter groups and its twin's "
                f"{len(self._optimizer.param_groups)}: pairs='twin' cannot follow groups added during training"
            )
        for mine, theirs in zip(self._optimizer.param_groups, groups, strict=True):
            mine.update(copy.deepcopy(theirs))
        self.module.configure_gradient_clipping(
            self._optimizer, self._trainer.gradient_clip_val, self._trainer.gradient_clip_algorithm
        )
        self._optimizer.step()
        self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser state and the count that seeds the noise."""
        return copy.deepcopy(
            {
                "module": dict(self.module.state_dict()),
                "optimizer": self._optimizer.state_dict(),
                "batches": self._batches,
                "failure": None if self.failure is None else str(self.failure),
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from :meth:`state_dict`."""
        self.module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._batches = state["batches"]
        self.failure = None if state["failure"] is None else RuntimeError(state["failure"])
