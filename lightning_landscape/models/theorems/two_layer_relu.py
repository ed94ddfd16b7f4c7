"""The two-layer ReLU network whose level sets become connected as it widens."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_landscape.models.theorems.squared_error import SquaredErrorModule, require_counts


class TwoLayerReLU(SquaredErrorModule):
    """``f(x) = sum_j v_j max(0, u_j . x)`` with ``u_j = w_j / max(1, ||w_j||)``, and an l1 penalty on the v_j.

    Trained on ``(1/N) sum_i ||f(x_i) - y_i||^2 + l1 sum_ij |V_ij|``, where V holds the v_j as columns. The u_j
    lie in the unit ball, so that the penalty cannot be evaded by large inner weights; a minimum has unit rows.
    There are no biases: append a coordinate that is always 1. A batch is ``(x, y)``: floats (N, num_inputs)
    and (N, num_outputs).

    Args:
        num_inputs: coordinates of x.
        hidden_units: m, the number of hidden units.
        num_outputs: coordinates of y.
        l1: weight of the penalty, at least 0.
        learning_rate: step size of Adam, positive.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> network = TwoLayerReLU(num_inputs=2, hidden_units=5)
        >>> x = torch.randn(7, 2)
        >>> torch.allclose(network(3 * x), 3 * network(x), atol=1e-5)
        True
    """

    def __init__(
        self,
        num_inputs: int = 2,
        hidden_units: int = 64,
        num_outputs: int = 1,
        l1: float = 1e-3,
        learning_rate: float = 1e-2,
    ) -> None:
        super().__init__(num_inputs, num_outputs, learning_rate)
        require_counts(hidden_units=hidden_units)
        if not 0 <= l1 < math.inf:
            raise ValueError(f"l1 must be finite and at least 0, got {l1!r}")
        self.save_hyperparameters()
        self.l1 = l1
        self.hidden_units = hidden_units
        self.hidden = nn.Linear(num_inputs, hidden_units, bias=False)
        self.readout = nn.Linear(hidden_units, num_outputs, bias=False)

    def features(self, x: Tensor) -> Tensor:
        """``max(0, u_j . x_i)``, shape (N, hidden_units), at x (N, num_inputs)."""
        return torch.relu(x @ into_ball(self.hidden.weight).T)

    def forward(self, x: Tensor) -> Tensor:
        """Predictions (N, num_outputs) at x (N, num_inputs)."""
        prediction: Tensor = self.readout(self.features(x))
        return prediction

    def penalty(self) -> Tensor:
        """``l1 sum_ij |V_ij|``."""
        return self.l1 * self.readout.weight.abs().sum()


def into_ball(rows: Tensor) -> Tensor:
    """Rows longer than 1, scaled to length 1."""
    # Not by vector_norm, whose gradient at a row of zeros depends on the version of torch.
    return rows * rows.square().sum(dim=1, keepdim=True).clamp_min(1.0).rsqrt()
