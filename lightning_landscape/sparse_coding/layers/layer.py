"""What every layer of an unrolled network is: one step of sparse coding with parameters of its own."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from lightning_landscape.sparse_coding.problem import LassoProblem

LAYERS: dict[str, type[UnrolledLayer]] = {}  # by the kind that recipes and checkpoints name


class UnrolledLayer(nn.Module, ABC):
    """One learned iteration ``z_{k+1} = f(x, z_k, z_{k-1})``, which starts as iteration k of ISTA (or FISTA).

    A subclass names its parameters and their first values in :meth:`start` and computes the step in :meth:`forward`.
    ``class MyLayer(UnrolledLayer, kind="mine")`` enters it into ``LAYERS``, so that recipes can name it.
    Steps and thresholds are stored in units of those of ISTA, 1/L and lam/L: they start at 1 whatever the scale of
    the dictionary is, so that one learning rate serves all.

    Args:
        problem: the Lasso, on the CPU, whose iteration the layer starts as.
        index: k, the number of layers before it.
        noise: 0 starts exactly there. Otherwise every matrix W is moved by ``noise`` times Gaussians of its own root
            mean square, and every step and threshold is multiplied by ``exp(noise * Gaussian)``, from the global
            random state: networks that start at different places, which studies of the loss surface need.

    Raises:
        ValueError: if ``index`` is no integer of at least 0, or ``noise`` is negative or not finite.
    """

    def __init_subclass__(cls, kind: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if kind is not None:
            LAYERS[kind] = cls

    def __init__(self, problem: LassoProblem, index: int = 0, noise: float = 0.0) -> None:
        super().__init__()
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise ValueError(f"index must be an integer of at least 0, got {index!r}")
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise must be finite and at least 0, got {noise!r}")
        self.problem = problem
        self.index = index
        self.noise = float(noise)
        for name, value in self.start().items():
            self.register_parameter(name, nn.Parameter(value.to(problem.dictionary.dtype)))
        self.reset_parameters()

    @abstractmethod
    def start(self) -> dict[str, Tensor]:
        """The parameters by name, float64, with which the layer is an iteration of ISTA (or FISTA)."""

    @abstractmethod
    def forward(self, dictionary: Tensor, x: Tensor, z: Tensor, previous: Tensor) -> Tensor:
        """The next codes z_{k+1} (batch, m).

        Args:
            dictionary: D (n, m), on the device of the layer.
            x: signals (batch, n).
            z: z_k (batch, m).
            previous: z_{k-1} (batch, m); z_0 itself for k = 0.
        """

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Go back to the start, with noise drawn anew."""
        for name, value in self.start().items():
            self.get_parameter(name).copy_(perturbed(value, self.noise))

    def penalty(self) -> Tensor | None:
        """What the training loss adds for this layer, times 1/K; ``None`` for nothing."""
        return None

    def tie(self, first: UnrolledLayer) -> None:
        """Share with the first layer of the network what all its layers share: by default nothing."""

    def extra_repr(self) -> str:
        """The place in the network."""
        return f"index={self.index}"


def perturbed(value: Tensor, noise: float) -> Tensor:
    """A start (any shape) moved by ``noise``, as :class:`UnrolledLayer` says."""
    if noise == 0:
        return value
    draw = torch.randn(value.shape, dtype=value.dtype)
    if value.ndim < 2:
        return value * (noise * draw).exp()
    return value + noise * value.square().mean().sqrt() * draw


def gram(problem: LassoProblem) -> Tensor:
    """``B / L`` with ``B = D^T D``, (m, m), float64."""
    dictionary = problem.dictionary.double()
    return dictionary.T @ dictionary / problem.lipschitz


def ones(*shape: int) -> Tensor:
    """Steps or thresholds of ISTA, in its units, float64."""
    return torch.ones(shape, dtype=torch.float64)
