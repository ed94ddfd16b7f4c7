"""A second initialisation of the module that trains, in lock-step on the same batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from lightning_landscape.attach.copies import TrainedCopy, hyperparameters, require_no_closure, require_steady_groups
from lightning_landscape.attach.fresh_weights import require_fresh, reset_parameters
from lightning_landscape.callbacks.pairings.base import Pairing, Partner
from lightning_landscape.either_lightning import MisconfigurationException
from lightning_landscape.storage.snapshots import SnapshotStore, module_state
from lightning_landscape.surface.random_states import isolated_rng

Reinitialize = Callable[[pl.LightningModule], None]


class Twin(Pairing, word="twin"):
    """Trains a twin of the module: another initialisation, the same batches, the same schedule.

    At every optimiser step of the module the twin takes one too, with its own optimiser from
    ``configure_optimizers`` and the hyperparameters (learning rate, momentum) that the module's optimiser has
    at that moment, so that every kind of schedule applies to both alike. Gradients are averaged over ranks.
    Training the twin costs as much as training the module, and as much memory.

    The twin's weights and optimiser state are part of a checkpoint, because they must match it exactly.

    Args:
        reinitialize: gives a copy of the module another initialisation; ``None`` calls
            ``reset_parameters`` of every submodule that owns parameters, of the weights that weight norm, spectral
            norm and pruning compute too.
        seed: of the initialisation, and of the twin's own dropout and noise.
    """

    options: ClassVar[frozenset[str]] = frozenset({"reinitialize", "seed"})
    accompanied: ClassVar[bool] = True

    def __init__(self, reinitialize: Reinitialize | None = None, seed: int = 0) -> None:
        self._reinitialize = reinitialize
        self._seed = seed

    def check(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Refuses what no copy can follow.

        Raises:
            MisconfigurationException: for manual optimisation, losses that are scaled, and callbacks that add groups
                of parameters while the module trains.
        """
        if not module.automatic_optimization:
            raise MisconfigurationException("pairs='twin' cannot follow manual optimisation: use another pairing")
        if trainer.precision == "16-mixed":
            raise MisconfigurationException("pairs='twin' has no loss scaling for 16-mixed: use 'bf16-mixed' or 32")
        require_steady_groups(trainer, "pairs='twin'")

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, state: Mapping[str, Any] | None) -> None:
        """Makes the twin, another initialisation, or the one of a checkpoint.

        Raises:
            MisconfigurationException: for submodules that cannot be reset or still have the module's weights, modules
                that are lazy, optimisers that cannot be followed, and a checkpoint that was written without a twin.
        """
        if state is None and trainer.ckpt_path is not None:
            raise MisconfigurationException(
                "the checkpoint holds no twin, because this callback was not attached when it was written: start from "
                "the beginning, or compare with pairs='reference'"
            )
        for name, parameter in module.named_parameters():
            if is_lazy(parameter):
                raise MisconfigurationException(
                    f"pairs='twin' cannot draw {name}, whose shape is not known yet: run one batch through "
                    f"{type(module).__name__} before the fit"
                )
        self._trainer = trainer
        self._batches = 0
        self._groups: list[dict[str, Any]] = []
        self._pending: Any = None
        self._steps = trainer.global_step
        self._failed_ranks: Tensor | None = None
        self.failure = None

        def reinitialize(twin: pl.LightningModule) -> None:
            (self._reinitialize or reset_parameters)(twin)
            require_fresh(twin, module)

        # Scattered, for a module made under the same seed would otherwise draw the very same weights.
        with isolated_rng((self._seed * 2654435761 + 0x9E3779B9) % 2**32):
            self._twin = TrainedCopy(trainer, module, reinitialize)
            require_no_closure(self._twin.optimizer, "pairs='twin'")
        if state is not None:
            self._load(state)

    @property
    def module(self) -> pl.LightningModule:
        """The twin."""
        return self._twin.module

    def partner(self, store: SnapshotStore) -> Partner:
        """The twin's present weights, buffers included.

        Raises:
            RuntimeError: if a step of the twin failed, on any rank: it has stopped, and training goes on.
        """
        if self.failure is None and self._failed_ranks is not None and bool(self._failed_ranks):
            self.failure = RuntimeError("a step failed on another rank")
        if self.failure is not None:
            raise RuntimeError(f"the twin has stopped: {self.failure}") from self.failure
        return module_state(self.module)

    def needed(self) -> dict[str, str]:
        """No snapshot: the twin is in the memory."""
        return {}

    def companions(self) -> dict[str, nn.Module]:
        """The twin, whose weights are kept beside those of the module."""
        return {"twin": self.module}

    def keep(self, batch: Any) -> None:
        """Takes a copy of the batch before the module's step, which may change it in place."""
        try:
            self._pending = copy.deepcopy(batch) if self.failure is None else None
        except Exception as error:  # whatever a user's batch raises
            self.failure = error

    def follow(self, optimizer: Optimizer) -> None:
        """Takes over the hyperparameters with which the module is about to step."""
        self._groups = hyperparameters(optimizer)

    def step(self, batch_idx: int) -> None:
        """One forward and backward pass on the kept batch, and an optimiser step if the module took one.

        What goes wrong is kept in ``failure``: it ends the twin, not the training.
        """
        seed = (self._seed + 1 + self._batches * self._trainer.world_size + self._trainer.global_rank) % 2**32
        self._batches += 1
        with isolated_rng(seed), torch.enable_grad():
            try:
                if self.failure is None:
                    batch, self._pending = self._pending, None
                    self._twin.backward(batch, batch_idx, self._trainer.accumulate_grad_batches)
            except Exception as error:  # out of memory, or whatever a user's step raises
                self.failure = error
            if self._trainer.global_step > self._steps:
                self._steps = self._trainer.global_step
                self._average_gradients()
                try:
                    if self.failure is None:
                        self._twin.step(self._groups)
                except Exception as error:  # the same on every rank
                    self.failure = error

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

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser state and the count that seeds the noise."""
        return copy.deepcopy(
            {
                "module": dict(self.module.state_dict()),
                "optimizer": self._twin.optimizer.state_dict(),
                "batches": self._batches,
                "failure": None if self.failure is None else str(self.failure),
            }
        )

    def _load(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self._twin.optimizer.load_state_dict(state["optimizer"])
        self._batches = state["batches"]
        self.failure = None if state["failure"] is None else RuntimeError(state["failure"])
