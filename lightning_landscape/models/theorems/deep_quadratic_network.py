"""Networks of several layers of squares, whose outputs are forms of degree 2^(K-1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lightning_landscape.models.theorems.squared_error import SquaredErrorModule, require_counts


class DeepQuadraticNetwork(SquaredErrorModule):
    """``f(x) = W_K h_{K-1}`` with ``h_k = (W_k h_{k-1})^2``, the square of each unit, and ``h_0 = x``.

    ``W_k`` has the shape (n_k, n_{k-1}); there are no biases. Each unit of layer k is a form of degree 2^k in x. A
    batch is ``(x, y)``: floats (N, n_0) and (N, n_K). The loss is ``(1/N) sum_i ||f(x_i) - y_i||^2``.

    Args:
        num_inputs: n_0, coordinates of x.
        hidden: the hidden widths n_1, ..., n_{K-1}, at least one.
        num_outputs: n_K, coordinates of y.
        learning_rate: step size of Adam, positive.

    Attributes:
        widths: (n_0, ..., n_K).

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> import torch
        >>> network = DeepQuadraticNetwork(num_inputs=2, hidden=[6, 10])
        >>> x = torch.randn(5, 2)
        >>> torch.allclose(network(2 * x), 2**4 * network(x), atol=1e-4)
        True
    """

    def __init__(
        self,
        num_inputs: int = 2,
        hidden: Sequence[int] = (6, 10),
        num_outputs: int = 1,
        learning_rate: float = 1e-2,
    ) -> None:
        super().__init__(num_inputs, num_outputs, learning_rate)
        hidden = list(hidden)
        if not hidden:
            raise ValueError("hidden must name at least one width: without a hidden layer there is nothing to square")
        require_counts(**{f"hidden[{index}]": width for index, width in enumerate(hidden)})
        self.save_hyperparameters()
        self.widths = (num_inputs, *hidden, num_outputs)
        self.layers = nn.ModuleList(nn.Linear(n, m, bias=False) for n, m in pairwise(self.widths))

    def forward(self, x: Tensor) -> Tensor:
        """Predictions (N, num_outputs) at x (N, num_inputs)."""
        *hidden, readout = self.layers
        for layer in hidden:
            x = layer(x).square()
        prediction: Tensor = readout(x)
        return prediction
