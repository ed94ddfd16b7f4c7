"""A module and its loss as one function of a flat parameter vector and a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning_fabric.utilities.apply_func import move_data_to_device
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map_only

from lightning_landscape.either_lightning import both
from lightning_landscape.surface.batch_norm import BatchNormMode, BatchNorms
from lightning_landscape.surface.detached import detached_copy, metrics_of

LossFunction = Callable[[Any, Any], Any]


class Objective(nn.Module):
    """The mean loss of a batch as the forward of a module, so that ``functional_call`` can reach it.

    Args:
        module: the module, which is copied.
        loss_fn: ``(module, batch) -> scalar mean loss``; ``None`` for the module's own ``training_step``.
        batch_norm: where batch norm takes its statistics from: ``"recalibrate"`` averages over all batches anew for
            each point, ``"frozen"`` keeps those that are stored, ``"batch"`` uses those of each batch.
        device: where to compute; ``None`` for the device of the parameters.

    Raises:
        ValueError: for a module with no loss, or without trainable, initialised, real parameters.
    """

    def __init__(
        self,
        module: nn.Module,
        loss_fn: LossFunction | None,
        batch_norm: BatchNormMode,
        device: torch.device | str | None,
    ) -> None:
        super().__init__()
        self.module = detached_copy(module)
        self.loss_fn = loss_fn
        first = self._require_parameters()[0]
        self.device = torch.device(device) if device is not None else first.device
        self.module.to(self.device).eval()
        for child in self.module.modules():
            if isinstance(child, nn.RNNBase):
                # cuDNN runs an RNN's backward pass in train mode alone; its dropout stays off.
                child.dropout = 0.0
                child.train()
        self.norms = BatchNorms(self.module, module, batch_norm)
        self.metrics = metrics_of(self.module)
        # Looked up after the move, which may have replaced the tensors.
        self.coordinates = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        self.sizes = [parameter.numel() for parameter in self.coordinates.values()]
        self.dtype = torch.float32
        for parameter in self.coordinates.values():
            self.dtype = torch.promote_types(self.dtype, parameter.dtype)
        self._buffers_now = list(self.module.buffers())
        self._buffers_saved = [buffer.clone() for buffer in self._buffers_now]
        self._arguments: tuple[int, ...] = ()
        if loss_fn is None:
            step = self._require_training_step()
            self._arguments = (0,) if is_param_in_hook_signature(step, "batch_idx", min_args=2) else ()

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
        if self.loss_fn is not None:
            output = self.loss_fn(self.module, batch)
        else:
            output = self.module.training_step(batch, *self._arguments)  # type: ignore[operator]
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

    def flatten(self, state: Mapping[str, Tensor]) -> Tensor:
        """The coordinates (P,) held by named tensors.

        Raises:
            ValueError: if a parameter is missing or has another shape.
        """
        missing = [name for name in self.coordinates if name not in state]
        if missing:
            raise ValueError(f"{len(missing)} parameters of the module are missing, among them {missing[:3]}")
        for name, parameter in self.coordinates.items():
            if state[name].shape != parameter.shape:
                raise ValueError(
                    f"parameter {name!r} has shape {tuple(state[name].shape)} where the module has "
                    f"{tuple(parameter.shape)}: the two are of different architectures"
                )
        return torch.cat([state[name].detach().to(self.device, self.dtype).reshape(-1) for name in self.coordinates])

    def install(self, theta: Tensor) -> None:
        """Writes theta (P,) into the module and puts its buffers back to where they were."""
        with torch.no_grad():
            for parameter, chunk in zip(self.coordinates.values(), theta.split(self.sizes), strict=True):
                parameter.copy_(chunk.view_as(parameter))
            for buffer, saved in zip(self._buffers_now, self._buffers_saved, strict=True):
                buffer.copy_(saved)

    def stacked(self, thetas: Tensor) -> dict[str, Tensor]:
        """Points (K, P) as named stacks of parameters, for ``functional_call`` under vmap."""
        chunks = thetas.split(self.sizes, dim=1)
        return {
            f"module.{name}": chunk.reshape(len(thetas), *parameter.shape).to(parameter.dtype)
            for (name, parameter), chunk in zip(self.coordinates.items(), chunks, strict=True)
        }

    def reset_metrics(self) -> None:
        """Empties torchmetrics that a step has fed, whose states would grow without end."""
        for metric in self.metrics:
            if metric.update_called:  # a reset costs as much as a small network's forward pass
                metric.reset()
