"""A module and its loss as one function of a flat parameter vector and a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from lightning_fabric.utilities.apply_func import move_data_to_device
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map_only
from torchmetrics import Metric

from lightning_landscape.either_lightning import both
from lightning_landscape.storage.named_tensors import clean_name
from lightning_landscape.surface.batch_norm import BatchNormMode, Norms
from lightning_landscape.surface.detached import detached_copy, metrics_of
from lightning_landscape.surface.names import buffer_places, join, modules_in_eval
from lightning_landscape.surface.noise import CommonNoise
from lightning_landscape.surface.running import RunningBuffers
from lightning_landscape.surface.spectral import SpectralNorms
from lightning_landscape.surface.untouched import Untouched

LossFunction = Callable[[Any, Any], Any]
StepContext = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Settings:
    """How the loss of a module is computed, whatever its weights.

    Attributes:
        batch_norm: where normalisation layers take their statistics from: ``"recalibrate"`` averages over all
            batches anew for each point, ``"frozen"`` keeps those that are stored, ``"batch"`` uses those of each batch.
        device: where to compute; ``None`` for the device of the parameters.
        seed: of the random numbers that the loss draws, the same at every point.
        step_context: makes the context that a loss runs in, that of a trainer's precision say.
        shared: patterns of the names of buffers, frozen parameters and plain attributes that every point takes from
            the module.
    """

    batch_norm: BatchNormMode = "recalibrate"
    device: torch.device | str | None = None
    seed: int = 0
    step_context: StepContext = nullcontext
    shared: Sequence[str] = ()


class Objective(nn.Module):
    """The mean loss of a batch as the forward of a module, so that ``functional_call`` can reach it.

    Args:
        module: the module, which is copied.
        loss_fn: ``(module, batch) -> scalar mean loss``; ``None`` for the module's own ``training_step``.
        settings: how the loss is computed.

    Raises:
        ValueError: for a module with no loss, or without trainable, initialised, real parameters.
    """

    def __init__(
        self,
        module: nn.Module,
        loss_fn: LossFunction | None,
        settings: Settings,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.module = detached_copy(module)
        self.loss_fn = loss_fn
        first = self._require_parameters()[0]
        self.device = torch.device(settings.device) if settings.device is not None else first.device
        self.module.to(self.device).eval()
        for child in self.module.modules():
            if isinstance(child, nn.RNNBase):
                # cuDNN runs an RNN's backward pass in train mode alone; its dropout stays off.
                child.dropout = 0.0
                child.train()
        in_eval = modules_in_eval(module)
        self.norms = Norms(self.module, in_eval, settings.batch_norm)
        self.spectral = SpectralNorms(self.module)
        self.metrics = metrics_of(self.module)
        self.shared = self._shared_buffers()
        known = self.norms.names | self.spectral.names | self.shared | self._metric_buffers()
        self.running = RunningBuffers(self.module, known, in_eval)
        self.noise = CommonNoise(self.module, settings.seed)
        self.untouched = Untouched()
        self.needs_grad = False  # to evaluate the loss, because it holds derivatives
        # Looked up after the move, which may have replaced the tensors.
        self.coordinates = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        self.wide = torch.float32 if self.device.type == "mps" else torch.float64
        self.sizes = [parameter.numel() for parameter in self.coordinates.values()]
        self.dtype = torch.float32
        for parameter in self.coordinates.values():
            self.dtype = torch.promote_types(self.dtype, parameter.dtype)
        self._stored = [
            (child, key, buffer, buffer.clone())
            for child in self.module.modules()
            for key, buffer in child._buffers.items()
            if buffer is not None
        ]
        self._names = {clean_name(name): name for name in module.state_dict()}  # of a compiled module, as it has them
        self._arguments: tuple[int, ...] = ()
        if loss_fn is None:
            step = self._require_training_step()
            self._arguments = (0,) if is_param_in_hook_signature(step, "batch_idx", min_args=2) else ()

    @property
    def estimate_passes(self) -> int:
        """Passes over the batches that come before each evaluation."""
        return max(self.running.passes, int(self.norms.needs_estimate))

    def adopt(self, other: Objective) -> None:
        """Takes over what evaluations have shown of ``other``, over a copy of the same module."""
        self.running.adopt(other.running)
        self.noise.drawn, self.needs_grad = other.noise.drawn, other.needs_grad
        if self.loss_fn is other.loss_fn:
            self.untouched.changed = other.untouched.changed

    @property
    def estimates(self) -> bool:
        """Whether buffers are taken anew at each point."""
        return bool(self.estimate_passes or self.spectral.names)

    def _require_parameters(self) -> list[nn.Parameter]:
        name = type(self.module).__name__
        for key, parameter in self.module.named_parameters():
            if is_lazy(parameter):
                raise ValueError(f"parameter {key!r} is not initialised: run one batch through {name} first")
            if parameter.requires_grad and parameter.is_complex():
                raise ValueError(f"parameter {key!r} is complex: store its real and imaginary parts as parameters")
        trainable = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        if not trainable:
            raise ValueError(f"{name} has no trainable parameter: a loss surface needs at least one")
        return trainable

    def _require_training_step(self) -> Callable[..., Any]:
        name = type(self.module).__name__
        advice = "pass loss_fn=lambda module, batch: <scalar mean loss>"
        if not isinstance(self.module, both(LightningModule)):
            raise ValueError(f"{name} is no LightningModule and so brings no loss of its own: {advice}")
        if not self.module.automatic_optimization:
            raise ValueError(f"{name} optimises manually, so that its training_step is not one loss: {advice}")
        return self.module.training_step

    def forward(self, batch: Any) -> Tensor:
        """Scalar loss of ``batch``."""
        given = self.untouched.give(batch)
        with self.settings.step_context():
            if self.loss_fn is not None:
                output = self.loss_fn(self.module, given)
            else:
                output = self.module.training_step(given, *self._arguments)  # type: ignore[operator]
        self.untouched.look(given)
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            source = "training_step" if self.loss_fn is None else "loss_fn"
            raise ValueError(f"{source} must return a scalar tensor (or a dict with one under 'loss'), got {found}")
        return loss if loss.ndim == 0 else loss.reshape(())

    def to_device(self, batch: Any) -> Any:
        """The batch on the objective's device, moved as the module itself moves batches."""
        # Batches that were loaded in inference mode (trainer.validate) cannot be saved for a backward pass.
        batch = tree_map_only(Tensor, lambda tensor: tensor.clone() if tensor.is_inference() else tensor, batch)
        if isinstance(self.module, both(LightningModule)):
            return self.module.transfer_batch_to_device(batch, self.device, 0)
        return move_data_to_device(batch, self.device)

    def resident(self, batches: Iterable[Any], name: str) -> Iterable[Any]:
        """The batches on the device if they are a list, and as they are if they can be read again and again.

        Raises:
            ValueError: for an iterator, naming the argument.
        """
        if iter(batches) is batches:
            raise ValueError(f"{name} is an iterator and can be read only once: pass list({name}) or a DataLoader")
        return [self.to_device(batch) for batch in batches] if isinstance(batches, list | tuple) else batches

    def flatten(self, state: Mapping[str, Tensor]) -> Tensor:
        """The coordinates (P,) held by named tensors, a state of the module (:func:`matched_state`)."""
        return torch.cat([state[name].detach().to(self.device, self.dtype).reshape(-1) for name in self.coordinates])

    def install(self, theta: Tensor) -> None:
        """Writes theta (P,) into the module and puts its buffers back to where they were."""
        with torch.no_grad():
            for parameter, chunk in zip(self.coordinates.values(), theta.split(self.sizes), strict=True):
                parameter.copy_(chunk.view_as(parameter))
            for owner, key, buffer, saved in self._stored:
                if buffer.shape == saved.shape:
                    buffer.copy_(saved)
                    owner._buffers[key] = buffer
                else:  # a forward pass has resized it, as an observer of quantisation-aware training does
                    owner._buffers[key] = saved.clone()
            self.spectral.refresh()

    @property
    def stored_buffers(self) -> dict[str, Tensor]:
        """The buffers of the module that was handed in, under all their names."""
        stored = {(owner, key): saved for owner, key, _, saved in self._stored}
        return {name: stored[owner, key] for name, owner, key in buffer_places(self.module) if (owner, key) in stored}

    def write_buffers(self, values: Mapping[str, Tensor]) -> None:
        """Writes named buffers into the module, until the next :meth:`install`."""
        for name, owner, key in buffer_places(self.module):
            if name in values:
                owner._buffers[key] = values[name].to(self.device, copy=True)

    def buffers_of(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What ``state`` holds of the module's buffers, torchmetrics left out."""
        metrics = self._metric_buffers()
        names = (name for name, _, _ in buffer_places(self.module))
        return {name: state[name] for name in names if name in state and name not in metrics}

    @property
    def frozen(self) -> dict[str, nn.Parameter]:
        """The parameters that are no coordinates."""
        return {name: parameter for name, parameter in self.module.named_parameters() if not parameter.requires_grad}

    @contextmanager
    def frozen_as(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Lets frozen parameters have other values than the module's own."""
        frozen = self.frozen
        with torch.no_grad():
            kept = {name: frozen[name].clone() for name in values}
            for name, value in values.items():
                frozen[name].copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in kept.items():
                    frozen[name].copy_(value)

    @contextmanager
    def started_from(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Lets estimates start from other buffers than the module's own."""
        stored = self._stored
        other = {(owner, key): values[name] for name, owner, key in buffer_places(self.module) if name in values}
        self._stored = [
            (owner, key, buffer, other[owner, key].to(buffer) if (owner, key) in other else saved)
            for owner, key, buffer, saved in stored
        ]
        try:
            yield
        finally:
            self._stored = stored

    def stacked(self, thetas: Tensor) -> dict[str, Tensor]:
        """Points (K, P) as named stacks of parameters, for ``functional_call`` under vmap."""
        chunks = thetas.split(self.sizes, dim=1)
        return {
            f"module.{name}": chunk.reshape(len(thetas), *parameter.shape).to(parameter.dtype)
            for (name, parameter), chunk in zip(self.coordinates.items(), chunks, strict=True)
        }

    def state(self) -> dict[str, Tensor]:
        """The module's ``state_dict()`` as it is now, copied, every name of a tied tensor with a tensor of its own."""
        entries: dict[str, Any] = self.module.state_dict()
        return {
            self._names.get(name, name): value.detach().clone() if isinstance(value, Tensor) else value
            for name, value in entries.items()
        }

    def reset_metrics(self) -> None:
        """Empties torchmetrics that a step has fed, whose states would grow without end."""
        for metric in self.metrics:
            if metric.update_called:  # a reset costs as much as a small network's forward pass
                metric.reset()

    def _shared_buffers(self) -> set[str]:
        names = [name for name, _, _ in buffer_places(self.module)]
        others = {join(prefix, key) for prefix, child in self.module.named_modules() for key in vars(child)}
        shared: set[str] = set()
        for pattern in self.settings.shared:
            found = {name for name in others.union(names, self.frozen) if fnmatchcase(name, pattern)}
            if not found:
                raise ValueError(f"buffers={pattern!r} names no buffer of the module, which has {names}")
            shared |= found
        return shared

    def _metric_buffers(self) -> set[str]:
        return {
            join(prefix, key)
            for prefix, child in self.module.named_modules(remove_duplicate=False)
            if isinstance(child, Metric)
            for key, _ in child.named_buffers()
        }


class Moved:
    """Batches that are read anew in each pass, on the device of an objective.

    Args:
        batches: what is read.
        objective: whose device.
    """

    def __init__(self, batches: Iterable[Any], objective: Objective) -> None:
        self._batches = batches
        self._objective = objective

    def __iter__(self) -> Iterator[Any]:
        return map(self._objective.to_device, self._batches)
