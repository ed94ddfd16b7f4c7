"""Gaussian inputs with the answers of a planted network, the data of the theorems."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from lightning_landscape.datamodules.parts.in_memory import InMemoryDataModule

Teacher = Literal["linear", "quadratic", "relu"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda z: z,
    "quadratic": torch.square,
    "relu": torch.relu,
}


class PlantedTeacherDataModule(InMemoryDataModule):
    """Examples ``(x, y)`` with Gaussian x and ``y = V rho(W x) + noise * eps``, eps standard Gaussian.

    The rows of W, one for each unit of the teacher, are uniform on the unit sphere; the entries of V are
    Gaussian with variance 1 / teacher_units. A linear teacher with fewer units than inputs and outputs is a
    regression of that rank. Inputs and targets are float32 tensors (N, num_inputs) and (N, num_outputs). The
    splits are independent draws; they depend on ``seed`` alone and leave the global random state as it is.

    Args:
        teacher: rho: ``"linear"`` (z), ``"quadratic"`` (z^2) or ``"relu"`` (max(z, 0)).
        num_inputs: coordinates of x.
        num_outputs: coordinates of y.
        teacher_units: rows of W.
        input_rank: rank of the covariance of x, which is the projection on the first ``input_rank``
            coordinates; ``None`` for the identity.
        noise: standard deviation of the noise in each output.
        num_examples: examples to train on; the validation and test splits hold a quarter of it each, at
            least one.
        batch_size: examples in a batch.
        seed: random seed of the teacher and of all examples.
        num_workers: processes that load, 0 for the main one.

    Attributes:
        inner, outer: W (teacher_units, num_inputs) and V (num_outputs, teacher_units), set by ``setup``.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> data = PlantedTeacherDataModule("relu", num_inputs=2, num_outputs=1, noise=0.0)
        >>> data.setup()
        >>> x, y = data.splits["train"].tensors
        >>> x.shape, torch.allclose(y, torch.relu(x @ data.inner.T) @ data.outer.T)
        (torch.Size([256, 2]), True)
    """

    def __init__(
        self,
        teacher: Teacher = "linear",
        num_inputs: int = 6,
        num_outputs: int = 4,
        teacher_units: int = 3,
        input_rank: int | None = None,
        noise: float = 0.1,
        num_examples: int = 256,
        batch_size: int = 64,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        if teacher not in _ACTIVATIONS:
            raise ValueError(f"teacher must be one of {[*_ACTIVATIONS]}, got {teacher!r}")
        counts = {"num_inputs": num_inputs, "num_outputs": num_outputs, "teacher_units": teacher_units}
        for name, count in {**counts, "num_examples": num_examples}.items():
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {count!r}")
        if input_rank is not None and not (isinstance(input_rank, int) and 0 <= input_rank <= num_inputs):
            raise ValueError(f"input_rank must be an integer from 0 to num_inputs = {num_inputs}, got {input_rank!r}")
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise must be finite and at least 0, got {noise!r}")
        self.teacher = teacher
        self.num_inputs = num_inputs
        self.num_outputs = num_outputs
        self.teacher_units = teacher_units
        self.input_rank = num_inputs if input_rank is None else input_rank
        self.noise = noise
        self.num_examples = num_examples
        self.save_hyperparameters()

    def setup(self, stage: str | None = None) -> None:
        """Draw the teacher and the examples, once, whatever the stage."""
        if self.splits:
            return
        generator = torch.Generator().manual_seed(self.seed)
        inner = torch.randn(self.teacher_units, self.num_inputs, generator=generator)
        self.inner = inner / inner.norm(dim=1, keepdim=True)
        self.outer = torch.randn(self.num_outputs, self.teacher_units, generator=generator)
        self.outer /= math.sqrt(self.teacher_units)
        few = max(1, self.num_examples // 4)
        for name, count in (("train", self.num_examples), ("val", few), ("test", few)):
            x = torch.randn(count, self.num_inputs, generator=generator)
            x[:, self.input_rank :] = 0
            answer = _ACTIVATIONS[self.teacher](x @ self.inner.T) @ self.outer.T
            noise = torch.randn(count, self.num_outputs, generator=generator)
            self.splits[name] = TensorDataset(x, answer + self.noise * noise)
