"""Two-layer networks with a polynomial activation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_landscape.models.theorems.squared_error import SquaredErrorModule, require_counts


class PolynomialNetwork(SquaredErrorModule):
    """``f(x) = U rho(W x)`` with ``rho(z) = c_0 z^d + c_1 z^(d-1) + ... + c_d``, applied to each hidden unit.

    W has the shape (hidden_units, num_inputs) and U the shape (num_outputs, hidden_units); there are no
    biases. A batch is ``(x, y)``: floats (N, num_inputs) and (N, num_outputs). The loss is
    ``(1/N) sum_i ||f(x_i) - y_i||^2``.

    Args:
        num_inputs: coordinates of x.
        hidden_units: M, the number of hidden units.
        num_outputs: coordinates of y.
        coefficients: coefficients of the polynomial, that of the highest power first, as ``numpy.polyval`` takes them.
        learning_rate: step size of Adam, positive.

    Raises:
        ValueError: if an argument is out of its range, or all coefficients are 0.

    Example:
        >>> network = PolynomialNetwork(num_inputs=2, hidden_units=5, coefficients=[1.0, 0.0, 3.0])
        >>> network.activation(torch.tensor([0.0, 2.0]))
        tensor([3., 7.])
    """

    def __init__(
        self,
        num_inputs: int = 3,
        hidden_units: int = 24,
        num_outputs: int = 1,
        coefficients: Sequence[float] = (1.0, 0.5, 0.0),
        learning_rate: float = 1e-2,
    ) -> None:
        super().__init__(num_inputs, num_outputs, learning_rate)
        require_counts(hidden_units=hidden_units)
        coefficients = [float(value) for value in coefficients]
        if not any(coefficients) or not all(map(math.isfinite, coefficients)):
            raise ValueError(f"coefficients must be finite numbers, not all of them 0, got {coefficients!r}")
        self.save_hyperparameters()
        self.coefficients = tuple(coefficients)
        self.hidden_units = hidden_units
        self.hidden = nn.Linear(num_inputs, hidden_units, bias=False)
        self.readout = nn.Linear(hidden_units, num_outputs, bias=False)

    def activation(self, z: Tensor) -> Tensor:
        """rho, element by element, by Horner's rule."""
        value = torch.zeros_like(z)
        for coefficient in self.coefficients:
            value = value * z + coefficient
        return value

    def forward(self, x: Tensor) -> Tensor:
        """Predictions (N, num_outputs) at x (N, num_inputs)."""
        prediction: Tensor = self.readout(self.activation(self.hidden(x)))
        return prediction
