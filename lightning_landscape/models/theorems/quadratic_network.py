"""Two-layer networks of squares, which are quadratic forms."""

from __future__ import annotations

from lightning_landscape.models.theorems.polynomial_network import PolynomialNetwork


class QuadraticNetwork(PolynomialNetwork):
    """``f_i(x) = sum_j U_ij (w_j . x)^2 = x^T A_i x`` with the symmetric matrices ``A_i = sum_j U_ij w_j w_j^T``.

    A batch is ``(x, y)``: floats (N, num_inputs) and (N, num_outputs). The loss is
    ``(1/N) sum_i ||f(x_i) - y_i||^2``.

    Args:
        num_inputs: coordinates of x, the N of the width condition M >= 3 N^2.
        hidden_units: M, the number of hidden units w_j.
        num_outputs: coordinates of y.
        learning_rate: step size of Adam, positive.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> import torch
        >>> network = QuadraticNetwork(num_inputs=2, hidden_units=12)
        >>> x = torch.randn(5, 2)
        >>> torch.allclose(network(-3 * x), 9 * network(x), atol=1e-4)
        True
    """

    def __init__(
        self, num_inputs: int = 3, hidden_units: int = 27, num_outputs: int = 1, learning_rate: float = 1e-2
    ) -> None:
        super().__init__(num_inputs, hidden_units, num_outputs, (1.0, 0.0, 0.0), learning_rate)
        self.save_hyperparameters()
