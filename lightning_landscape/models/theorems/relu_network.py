"""The plain ReLU network of the theorems."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lightning_landscape.models.theorems.squared_error import SquaredErrorModule, require_counts


class ReLUNetwork(SquaredErrorModule):
    """``f(x) = W_K rho(W_{K-1} ... rho(W_1 x))`` with ``rho(z) = max(0, z)``, without biases.

    ``W_k`` has the shape (n_k, n_{k-1}). A batch is ``(x, y)``: floats (N, n_0) and (N, n_K). The loss is
    ``(1/N) sum_i ||f(x_i) - y_i||^2``.

    Args:
        widths: (n_0, ..., n_K): inputs, hidden widths, outputs.
        learning_rate: step size of Adam, positive.

    Raises:
        ValueError: if there is no hidden layer, or an argument is out of its range.

    Example:
        >>> [tuple(weight.shape) for weight in ReLUNetwork([2, 3, 1]).parameters()]
        [(3, 2), (1, 3)]
    """

    def __init__(self, widths: Sequence[int] = (2, 3, 2), learning_rate: float = 1e-2) -> None:
        widths = tuple(widths)
        if len(widths) < 3:
            raise ValueError(f"widths must name inputs, at least one hidden layer and outputs, got {widths}")
        require_counts(**{f"widths[{index}]": width for index, width in enumerate(widths)})
        super().__init__(widths[0], widths[-1], learning_rate)
        self.save_hyperparameters()
        self.widths = widths
        layers = [layer for n, m in pairwise(widths) for layer in (nn.Linear(n, m, bias=False), nn.ReLU())]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Predictions (N, n_K) at x (N, n_0)."""
        prediction: Tensor = self.layers(x)
        return prediction
