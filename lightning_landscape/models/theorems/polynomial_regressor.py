"""The small sigmoid network that fits a polynomial in Freeman & Bruna (2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

Batch = tuple[Tensor, Tensor]


class PolynomialRegressor(LightningModule):
    """Fits a function of one variable by the mean absolute error, ``mean_i |f(x_i) - y_i|``.

    ``f`` is a fully connected network, 1-4-4-1 by default, with logistic sigmoids after the hidden layers. A
    batch is ``(x, y)``, floats (N, 1) each; ``forward`` maps x to predictions (N, 1). Logged are ``train/loss``
    at every step, and per epoch ``val/loss`` and ``test/loss``, over all examples.

    The two set-ups of the paper differ in more than the polynomial. Read from its published scripts
    (QUADRATICS.py, CUBICS.py), both train by Adam with rate 0.001 on the mean absolute error, from weights
    uniform on [-1, 1] and biases standard normal:

    =========  =====  ==================  ==========
    task       bias   sigmoid at the end  parameters
    =========  =====  ==================  ==========
    quadratic  no     yes                 24
    cubic      yes    no                  33
    =========  =====  ==================  ==========

    Args:
        hidden: widths of the hidden layers.
        bias: add biases to all layers.
        output_sigmoid: put the output through a sigmoid too, which then lies in (0, 1).
        learning_rate: step size of Adam, positive.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> quadratic = PolynomialRegressor(bias=False, output_sigmoid=True)
        >>> cubic = PolynomialRegressor(bias=True, output_sigmoid=False)
        >>> [sum(p.numel() for p in net.parameters()) for net in (quadratic, cubic)]
        [24, 33]
    """

    def __init__(
        self,
        hidden: Sequence[int] = (4, 4),
        bias: bool = False,
        output_sigmoid: bool = True,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        if isinstance(hidden, str) or not hidden or not all(isinstance(width, int) and width >= 1 for width in hidden):
            raise ValueError(f"hidden must be integers of at least 1, such as [4, 4], got {hidden!r}")
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, got {learning_rate!r}")
        hidden = list(hidden)
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        layers: list[nn.Module] = []
        for inputs, outputs in zip([1, *hidden], [*hidden, 1], strict=True):
            layers += [_Dense(inputs, outputs, bias), nn.Sigmoid()]
        self.network = nn.Sequential(*(layers if output_sigmoid else layers[:-1]))

    def forward(self, x: Tensor) -> Tensor:
        """Predictions (N, 1) at x (N, 1)."""
        prediction: Tensor = self.network(x)
        return prediction

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean absolute error of a batch."""
        loss = self._evaluate(batch)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the error on a batch of the validation split."""
        self.log("val/loss", self._evaluate(batch), prog_bar=True, sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the error on a batch of the test split."""
        self.log("test/loss", self._evaluate(batch), sync_dist=True)

    def configure_optimizers(self) -> Optimizer:
        """Adam over all parameters."""
        return Adam(self.parameters(), self.learning_rate)

    def _evaluate(self, batch: Batch) -> Tensor:
        x, y = batch
        if x.shape != y.shape or x.shape[1:] != (1,):
            raise ValueError(f"a batch holds x and y of shape (N, 1) each, got {tuple(x.shape)} and {tuple(y.shape)}")
        return nn.functional.l1_loss(self(x), y)


class _Dense(nn.Linear):
    """A linear layer with the initialisation of the published scripts."""

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, -1.0, 1.0)
        if self.bias is not None:
            nn.init.normal_(self.bias)
