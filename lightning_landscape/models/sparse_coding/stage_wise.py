"""Trains an unrolled network layer by layer, each stage at a lower rate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import chain

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningModule
from torch.optim import Optimizer

from lightning_landscape.models.sparse_coding.unrolled_sparse_coder import UnrolledSparseCoder
from lightning_landscape.models.theorems.squared_error import require_counts


class StageWise(Callback):
    """The schedule behind the published curves: layers one after another, rates that fall (Chen et al. 2018).

    For k = 1, ..., K the training loss is that of z_k. First layer k is trained alone, then all layers up to k, once
    for each further rate. It begins from the parameters of layer k - 1, and each stage with a
    fresh state of the optimiser. The rate of a stage takes the place of what the module's own scheduler
    has made of it, and the last stage goes on until the training ends.

    ``val/loss`` is that of the whole network, whose later layers are untrained until their stage: keep the weights of
    the end, or of the best epoch of the last stages. Several processes need
    ``DDPStrategy(find_unused_parameters=True)``, because later layers have no gradient.

    Args:
        epochs: epochs of a stage.
        rates: learning rates of the stages of a layer, as multiples of the module's ``learning_rate``.

    Raises:
        ValueError: if ``epochs`` is no integer from 1, or ``rates`` is empty or holds a number that is not positive.
        MisconfigurationException: in a fit, if the module is no UnrolledSparseCoder. A warning says so if
            ``max_epochs`` ends before the last layer has been trained.

    Example:
        >>> StageWise(epochs=2).needed_epochs(depth=16)
        96
    """

    def __init__(self, epochs: int = 1, rates: Sequence[float] = (1.0, 0.2, 0.02)) -> None:
        require_counts(epochs=epochs)
        if not rates or not all(0 < rate < math.inf for rate in rates):
            raise ValueError(f"rates must be positive and finite, one or more, got {rates!r}")
        self.epochs = epochs
        self.rates = tuple(rates)

    def needed_epochs(self, depth: int) -> int:
        """The epochs that ``depth`` layers take."""
        return self.epochs * len(self.rates) * depth

    def stage(self, epoch: int, depth: int) -> tuple[int, int]:
        """The number of the layer that an epoch trains, from 1, and the number of its rate, from 0."""
        layer, rate = divmod(min(epoch // self.epochs, len(self.rates) * depth - 1), len(self.rates))
        return layer + 1, rate

    def on_fit_start(self, _: object, pl_module: LightningModule) -> None:
        """Refuse other modules, and warn of too few epochs."""
        if not isinstance(pl_module, UnrolledSparseCoder):
            raise MisconfigurationException(f"StageWise trains an UnrolledSparseCoder, got {type(pl_module).__name__}")
        needed, most = self.needed_epochs(pl_module.depth), pl_module.trainer.max_epochs
        if most is not None and 0 <= most < needed and not pl_module.trainer.fast_dev_run:  # type: ignore[attr-defined]
            warnings.warn(
                f"StageWise needs max_epochs={needed} for {pl_module.depth} layers of {len(self.rates)} stages of "
                f"{self.epochs} epochs, got {most}: the last layers will not be trained",
                stacklevel=2,
            )

    def on_train_epoch_start(self, _: object, pl_module: LightningModule) -> None:
        """Enter the stage of the epoch."""
        assert isinstance(pl_module, UnrolledSparseCoder)
        layer, rate = self.stage(pl_module.trainer.current_epoch, pl_module.depth)
        pl_module.trained_depth = layer
        begins = pl_module.trainer.current_epoch % self.epochs == 0
        if begins and pl_module.trainer.current_epoch < self.needed_epochs(pl_module.depth):
            if rate == 0 and layer > 1:
                _take_over(pl_module, layer)
            for optimizer in pl_module.trainer.optimizers:
                optimizer.state.clear()
        for group in chain.from_iterable(optimizer.param_groups for optimizer in pl_module.trainer.optimizers):
            group["lr"] = pl_module.learning_rate * self.rates[rate]

    def on_before_optimizer_step(self, _: object, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Leave all other layers as they are while a layer is trained alone."""
        assert isinstance(pl_module, UnrolledSparseCoder)
        layer, rate = self.stage(pl_module.trainer.current_epoch, pl_module.depth)
        if rate > 0:
            return
        own = {id(parameter) for parameter in pl_module.layers[layer - 1].parameters()}
        for parameter in pl_module.parameters():
            if id(parameter) not in own:
                parameter.grad = None

    def on_fit_end(self, _: object, pl_module: LightningModule) -> None:
        """Leave a module that trains as a whole again."""
        assert isinstance(pl_module, UnrolledSparseCoder)
        pl_module.trained_depth = pl_module.depth


@torch.no_grad()
def _take_over(network: UnrolledSparseCoder, layer: int) -> None:
    """Give layer number ``layer`` the parameters of the one before."""
    before = dict(network.layers[layer - 2].named_parameters())
    for name, parameter in network.layers[layer - 1].named_parameters():
        parameter.copy_(before[name])
