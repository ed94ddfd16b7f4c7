"""Statistics of normalisation layers on a loss surface: they are no coordinates, yet every theta needs its own."""

from __future__ import annotations

from collections.abc import Set
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from lightning_landscape.surface.names import join

BatchNormMode = Literal["recalibrate", "frozen", "batch"]


class _LocalBatchNorm(_BatchNorm):
    """What a SyncBatchNorm becomes: its collectives would wait for ranks that compute something else."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


class Norms:
    """The batch and instance norm layers with running statistics, switched together between their three jobs.

    Args:
        module: the detached copy that is evaluated; its layers are changed in place.
        in_eval: names of the layers that keep their statistics, because their owner froze them.
        mode: ``"recalibrate"``: the statistics of a point are averages over all batches, taken anew for each point;
            ``"frozen"``: they stay as they are; ``"batch"``: each batch is normalised by its own.

    Attributes:
        layers: the layers by name.
        names: the buffers of the layers.
    """

    def __init__(self, module: nn.Module, in_eval: Set[str], mode: BatchNormMode) -> None:
        self.mode = mode
        self.layers: dict[str, _NormBase] = {}
        for name, layer in module.named_modules():
            if isinstance(layer, _NormBase) and layer.running_mean is not None and name not in in_eval:
                if isinstance(layer, nn.SyncBatchNorm):
                    layer.__class__ = _LocalBatchNorm  # type: ignore[assignment]
                self.layers[name] = layer
        self.names = {join(name, key) for name, layer in self.layers.items() for key in layer._buffers}

    @property
    def needs_estimate(self) -> bool:
        """Whether a pass over the batches has to come before each evaluation."""
        return self.mode == "recalibrate" and bool(self.layers)

    def estimate(self, count: int) -> None:
        """Prepares for the ``count``-th batch of a pass that builds the cumulative average."""
        if count == 1:
            self._reset()
        for layer in self.layers.values():
            layer.train()
            layer.track_running_stats = True
            layer.momentum = 1 / count  # a number of ours, because momentum=None would read a device counter

    def evaluate(self) -> None:
        """Prepares for an evaluation of E."""
        self._use_statistics(of_batch=self.mode == "batch")

    def step(self) -> None:
        """Prepares for a gradient on one batch, normalised as in training unless frozen."""
        self._use_statistics(of_batch=self.mode != "frozen")

    def stacked(self, count: int) -> dict[str, Tensor]:
        """``count`` copies of the running statistics by name, for a stack of points under vmap."""
        if self.needs_estimate:
            self._reset()
        return {
            join(name, key): buffer.expand(count, *buffer.shape).clone()
            for name, layer in self.layers.items()
            for key, buffer in layer.named_buffers(recurse=False)
        }

    def _reset(self) -> None:
        # A NaN left by a point that diverged would outlive its weight of 0 in the next average.
        for layer in self.layers.values():
            layer.reset_running_stats()

    def _use_statistics(self, of_batch: bool) -> None:
        for layer in self.layers.values():
            layer.train(of_batch)
            layer.track_running_stats = not of_batch  # False: batch statistics without touching the buffers
