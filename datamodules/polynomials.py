"""Points on the graph of a polynomial over [0, 1], the regression tasks of Freeman & Bruna (2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch.utils.data import TensorDataset

from lightning_landscape.datamodules.parts.in_memory import InMemoryDataModule

POLYNOMIALS: dict[str, tuple[float, ...]] = {
    "quadratic": (0.5, 0.25, 0.1),
    "cubic": (8.0, -10.0, 3.0, 0.0),
}


class PolynomialDataModule(InMemoryDataModule):
    """Examples ``(x, p(x))`` with x uniform on [0, 1] and ``p(x) = c_0 x^n + c_1 x^(n-1) + ... + c_n``.

    Inputs and targets are float32 tensors (N, 1), without noise. The training, validation and test splits
    hold ``num_examples`` independent points each; they depend on ``seed`` alone and leave the global random
    state as it is. The defaults are those of the published scripts: 10,000 points to train on, drawn once,
    10,000 to measure on, and batches of 2,000.

    Args:
        coefficients: coefficients of the polynomial, that of the highest power first, as ``numpy.polyval``
            takes them; ``"quadratic"`` is 0.5 x^2 + 0.25 x + 0.1 and ``"cubic"`` is 8 x^3 - 10 x^2 + 3 x, the two tasks
            of the paper.
        num_examples: points in each split.
        batch_size: examples in a batch.
        seed: random seed of the points.
        num_workers: processes that load, 0 for the main one.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> data = PolynomialDataModule([2.0, 1.0], num_examples=8, batch_size=4)
        >>> data.setup()
        >>> x, y = next(iter(data.val_dataloader()))
        >>> x.shape, torch.equal(y, 2 * x + 1)
        (torch.Size([4, 1]), True)
    """

    def __init__(
        self,
        coefficients: Literal["quadratic", "cubic"] | Sequence[float] = "quadratic",
        num_examples: int = 10_000,
        batch_size: int = 2000,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        if not isinstance(num_examples, int) or num_examples < 1:
            raise ValueError(f"num_examples must be an integer of at least 1, got {num_examples!r}")
        self.coefficients = _checked(coefficients)
        self.num_examples = num_examples
        # Plain numbers, because checkpoints that hold an array do not load with weights_only.
        coefficients = coefficients if isinstance(coefficients, str) else list(self.coefficients)
        self.save_hyperparameters()

    def setup(self, stage: str | None = None) -> None:
        """Draw the points, once, whatever the stage."""
        if self.splits:
            return
        generator = torch.Generator().manual_seed(self.seed)
        for name in ("train", "val", "test"):
            x = torch.rand(self.num_examples, 1, generator=generator)
            # In float64, so that a target is p at the float32 input, rounded once.
            y = torch.zeros_like(x, dtype=torch.float64)
            for coefficient in self.coefficients:
                y = y * x + coefficient
            self.splits[name] = TensorDataset(x, y.float())


def _checked(coefficients: str | Sequence[float]) -> tuple[float, ...]:
    if isinstance(coefficients, str):
        if coefficients not in POLYNOMIALS:
            raise ValueError(f"coefficients must be numbers or one of {[*POLYNOMIALS]}, got {coefficients!r}")
        return POLYNOMIALS[coefficients]
    values = tuple(float(value) for value in coefficients)
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"coefficients must be finite numbers, at least one, got {coefficients!r}")
    return values
