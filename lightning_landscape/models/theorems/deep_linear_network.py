"""Deep linear networks, the simplest ones with a loss that is not convex."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lightning_landscape.models.theorems.squared_error import SquaredErrorModule, require_counts


class DeepLinearNetwork(SquaredErrorModule):
    """``f(x) = W_K ... W_1 x``, trained on ``(1/N) sum_i ||f(x_i) - y_i||^2 + ridge sum_k ||W_k||^2``.

    ``W_k`` has the shape (n_k, n_{k-1}), where n_0 is the number of inputs and n_K that of outputs; there are
    no biases. A batch is ``(x, y)``: floats (N, n_0) and (N, n_K).

    Args:
        num_inputs: n_0.
        num_outputs: n_K.
        hidden: the hidden widths n_1, ..., n_{K-1}; an empty list is plain linear regression.
        ridge: weight of the squared Frobenius norms, at least 0.
        learning_rate: step size of Adam, positive.

    Attributes:
        widths: (n_0, ..., n_K).

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> import torch
        >>> network = DeepLinearNetwork(num_inputs=3, num_outputs=2, hidden=[4, 5])
        >>> network.widths, network(torch.zeros(7, 3)).shape
        ((3, 4, 5, 2), torch.Size([7, 2]))
    """

    def __init__(
        self,
        num_inputs: int = 6,
        num_outputs: int = 4,
        hidden: Sequence[int] = (5, 5),
        ridge: float = 0.0,
        learning_rate: float = 1e-2,
    ) -> None:
        super().__init__(num_inputs, num_outputs, learning_rate)
        hidden = list(hidden)
        require_counts(**{f"hidden[{index}]": width for index, width in enumerate(hidden)})
        if not 0 <= ridge < math.inf:
            raise ValueError(f"ridge must be finite and at least 0, got {ridge!r}")
        self.save_hyperparameters()
        self.ridge = ridge
        self.widths = (num_inputs, *hidden, num_outputs)
        self.layers = nn.Sequential(*(nn.Linear(n, m, bias=False) for n, m in pairwise(self.widths)))

    def forward(self, x: Tensor) -> Tensor:
        """Predictions (N, num_outputs) at x (N, num_inputs)."""
        prediction: Tensor = self.layers(x)
        return prediction

    def penalty(self) -> Tensor | float:
        """``ridge sum_k ||W_k||^2``."""
        if not self.ridge:
            return 0.0
        return self.ridge * sum(weight.square().sum() for weight in self.parameters())
