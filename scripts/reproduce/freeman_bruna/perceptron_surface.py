"""The loss surface of a small sigmoid network, many points at once by batched matrix products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_landscape import LossSurface
from lightning_landscape.models import PolynomialRegressor

_CHUNK = 1024  # points at once


class PerceptronSurface(LossSurface):
    """The mean absolute error of a :class:`PolynomialRegressor`, as :class:`LossSurface` computes it.

    Networks of a few weights spend their time in the calls: here one call serves a whole stack of them.

    Args:
        module: the regressor.
        batch: inputs and targets, each (N, 1), which are both probe and training set.
    """

    def __init__(self, module: PolynomialRegressor, batch: tuple[Tensor, Tensor]) -> None:
        super().__init__(module, [batch], vectorize=False)
        self._inputs, self._targets = (column.reshape(1, 1, -1) for column in batch)
        self._layers = [layer for layer in module.network if isinstance(layer, nn.Linear)]
        self._final_sigmoid = isinstance(module.network[-1], nn.Sigmoid)

    def losses(self, thetas: Tensor) -> Tensor:
        """E at each row of ``thetas`` (K, P): float64, shape (K,)."""
        if not hasattr(self, "_layers"):  # while the base class looks at the module
            return super().losses(thetas)
        thetas = self._points(thetas, 2)
        self.work.forward_passes += len(thetas)
        self.work.loss_evaluations += len(thetas)
        with torch.no_grad():
            return torch.cat([self._errors(part).double() for part in thetas.split(_CHUNK)])

    def gradients(self, thetas: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
        """Losses (K,) and gradients (K, P), always on the one batch there is."""
        thetas = self._points(thetas, 2).requires_grad_()
        self.work.gradient_steps += len(thetas)
        with torch.enable_grad():
            errors = self._errors(thetas)
            (gradients,) = torch.autograd.grad(errors.sum(), thetas)
        return errors.detach(), gradients

    def _errors(self, thetas: Tensor) -> Tensor:
        values, place = self._inputs, 0
        for layer in self._layers:
            size = layer.weight.numel()
            weight = thetas[:, place : place + size].reshape(-1, *layer.weight.shape)
            place += size
            # The first product, of one input, is an outer one: broadcast it, bmm would be slower.
            values = weight * values if layer.in_features == 1 else torch.bmm(weight, values)
            if layer.bias is not None:
                values = values + thetas[:, place : place + layer.out_features, None]
                place += layer.out_features
            if layer is not self._layers[-1] or self._final_sigmoid:
                values = values.sigmoid()
        return (values - self._targets).abs().mean((1, 2))
