"""The graph neural network for community detection of Chen, Li & Bruna (2019)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_landscape.community import CommunityGraph
from lightning_landscape.models.graphs.community_classifier import CommunityClassifier
from lightning_landscape.models.graphs.graph_operators import InstanceNorm, NodeOperators, Segments, rounding_of_sums


class CommunityGNN(CommunityClassifier):
    r"""Polynomials of the adjacency matrix, with a nonlinearity and a normalisation at each layer.

    A layer takes features x (n, F) to

    ``z = norm( sum over the operators O in {I, D, A, A^2, ..., A^(2^(J-1)), U} of O x theta_O )``,
    ``x+ = [relu(first half of z), second half of z]``.

    The half that stays linear lets the layers together iterate a matrix polynomial, as the power method does on the
    Bethe Hessian, and the other half lets them go beyond it. U is the average over the graph. The input is the degree
    of each node; a last layer of the same operators, without norm, gives k logits a node.

    Operators are scaled as :class:`~lightning_landscape.models.graphs.graph_operators.NodeOperators` says, which the
    thetas could undo, and z is normalised over the nodes of each graph: renumbering the nodes renumbers the output, a
    batch of graphs gives what each of them gives alone, and training mode is evaluation mode.

    Args:
        num_classes: k, the number of communities, at least 2.
        num_layers: layers before the last, at least 1.
        num_features: F, even.
        num_powers: J, at least 1: A to the powers 1, 2, 4, ..., 2^(J-1).
        clipped: replace each power by the one before squared and cut to zeros and ones, ``min(1, M^2)``.
        linear: leave the relu out.
        learning_rate: step size of the optimiser, positive.
        optimizer: ``"adamax"`` or ``"adam"``.
        decay: share of the training, at its end, over which the learning rate falls linearly to 0.

    Raises:
        ValueError: if an argument is out of its range; in ``forward``, for a graph that is no CommunityGraph.

    References:
        Z. Chen, L. Li, J. Bruna, "Supervised community detection with line graph neural networks", ICLR 2019, sec. 4.1.

    Example:
        >>> from lightning_landscape.community import stochastic_block_model
        >>> graph = stochastic_block_model(50, torch.tensor([[0.2, 0.02], [0.02, 0.2]]))
        >>> CommunityGNN(num_classes=2, num_layers=3)(graph).shape
        torch.Size([50, 2])
    """

    def __init__(
        self,
        num_classes: int = 2,
        num_layers: int = 20,
        num_features: int = 16,
        num_powers: int = 2,
        clipped: bool = False,
        linear: bool = False,
        learning_rate: float = 4e-3,
        optimizer: Literal["adamax", "adam"] = "adamax",
        decay: float = 0.5,
    ) -> None:
        super().__init__(num_classes, learning_rate, optimizer, decay)
        require_sizes(num_layers, num_features, num_powers)
        self.save_hyperparameters()
        self.num_powers = num_powers
        self.clipped = clipped
        count = num_powers + 3
        widths = [1] + [num_features] * num_layers
        self.layers = nn.ModuleList(HalfLinear(count * width, num_features, linear) for width in widths[:-1])
        self.readout = nn.Linear(count * num_features, num_classes)

    def forward(self, graph: CommunityGraph) -> Tensor:
        """Logits (N, k) for the nodes of a graph or a batch of them."""
        operators = NodeOperators(graph, self.num_powers, self.clipped, self.readout.weight.dtype)
        x = operators.degree
        for layer in self.layers:
            x = layer(operators.apply(x), operators.segments)
        logits: Tensor = self.readout(torch.cat(operators.apply(x), 1))
        return logits


class HalfLinear(nn.Module):
    """A linear map of features side by side, a normalisation over each graph, and a relu on the first half.

    Args:
        in_features: number of features of all parts together.
        out_features: even.
        linear: leave the relu out.
    """

    floor: Tensor  # 0 where there is a relu

    def __init__(self, in_features: int, out_features: int, linear: bool) -> None:
        super().__init__()
        self.mix = nn.Linear(in_features, out_features, bias=False)  # the norm takes means away and has a bias
        self.norm = InstanceNorm(out_features)
        floor = torch.full((out_features,), -math.inf)
        if not linear:
            floor[: out_features // 2] = 0
        self.register_buffer("floor", floor, persistent=False)

    def forward(self, parts: list[Tensor], segments: Segments) -> Tensor:
        """Features (N, out_features) from parts (N, ...), for rows that belong to graphs."""
        joined = torch.cat(parts, 1)
        z = self.mix(joined)
        normalized: Tensor = self.norm(z, segments, self._rounding(joined.detach(), segments, z.dtype))
        return torch.clamp_min(normalized, self.floor)

    def _rounding(self, joined: Tensor, segments: Segments, dtype: torch.dtype) -> Tensor:
        """Of z where all rows of a graph are alike, (G, out_features): then the first of them has the sizes of all."""
        sizes = segments.firsts(joined).abs() @ self.mix.weight.detach().abs().T
        return rounding_of_sums(sizes, joined.shape[1], dtype)


def require_sizes(num_layers: int, num_features: int, num_powers: int) -> None:
    """Raises ValueError for sizes that no network has."""
    for name, size in (("num_layers", num_layers), ("num_powers", num_powers), ("num_features", num_features)):
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {size!r}")
    if num_features % 2:
        raise ValueError(f"num_features must be even, half of them stay linear, got {num_features}")
