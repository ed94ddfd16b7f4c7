"""The line graph neural network of Chen, Li & Bruna (2019), without a line graph."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_landscape.community import CommunityGraph
from lightning_landscape.community.line_graph import (
    incidence_difference,
    incidence_difference_transpose,
    incidence_sum,
    incidence_sum_transpose,
    nonbacktracking_degree,
    nonbacktracking_product,
)
from lightning_landscape.models.graphs.community_classifier import CommunityClassifier
from lightning_landscape.models.graphs.community_gnn import HalfLinear, require_sizes
from lightning_landscape.models.graphs.graph_operators import NodeOperators, Segments


class LineGraphGNN(CommunityClassifier):
    r"""Features x on the nodes and y on the directed edges, which the non-backtracking matrix B moves.

    With ``rho(z) = [relu(first half), second half]`` of z normalised over each graph, a layer takes x (n, F) and
    y (E2, F) to

    ``x+ = rho( sum over O in {I, D, A, A^2, ..., U} of O x theta_O  +  sum over P in {Pm, Pd} of P y theta'_P )``,
    ``y+ = rho( sum over O in {I, D_B, B, B^2, ...} of O y gamma_O  +  sum over P in {Pm, Pd} of P^T x+ gamma'_P )``.

    The inputs are the degrees of nodes and, in the line graph, of edges; a last layer gives k logits a node. Time and
    memory are those of the graph's edges: see :mod:`~lightning_landscape.community.line_graph`. Powers of B are B
    applied so often, B^2 being the clipped square already.

    As in :class:`~lightning_landscape.models.CommunityGNN` operators are scaled by the mean degree, here B and D_B by
    that of the line graph, and a batch of graphs gives what each of them gives alone.

    Args:
        num_classes: k, the number of communities, at least 2.
        num_layers: layers before the last, at least 1.
        num_features: F, even.
        num_powers: J, at least 1: A and B to the powers 1, 2, 4, ..., 2^(J-1).
        clipped: replace each power of A by the one before squared and cut to zeros and ones, ``min(1, M^2)``.
        linear: leave the relu out, which makes it the linear line graph network.
        learning_rate: step size of the optimiser, positive.
        optimizer: ``"adamax"`` or ``"adam"``.
        decay: share of the training, at its end, over which the learning rate falls linearly to 0.

    Raises:
        ValueError: if an argument is out of its range; in ``forward``, for a graph that is no CommunityGraph.

    References:
        Z. Chen, L. Li, J. Bruna, "Supervised community detection with line graph neural networks", ICLR 2019, sec. 4.2.

    Example:
        >>> from lightning_landscape.community import stochastic_block_model
        >>> graph = stochastic_block_model(50, torch.tensor([[0.2, 0.02], [0.02, 0.2]]))
        >>> LineGraphGNN(num_classes=2, num_layers=3)(graph).shape
        torch.Size([50, 2])
    """

    def __init__(
        self,
        num_classes: int = 2,
        num_layers: int = 20,
        num_features: int = 8,
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
        of_nodes, of_edges = num_powers + 3, num_powers + 2
        widths = [1] + [num_features] * (num_layers - 1)
        self.node_layers = nn.ModuleList(HalfLinear((of_nodes + 2) * width, num_features, linear) for width in widths)
        self.edge_layers = nn.ModuleList(
            HalfLinear(of_edges * width + 2 * num_features, num_features, linear) for width in widths
        )
        self.readout = nn.Linear((of_nodes + 2) * num_features, num_classes)

    def forward(self, graph: CommunityGraph) -> Tensor:
        """Logits (N, k) for the nodes of a graph or a batch of them."""
        nodes = NodeOperators(graph, self.num_powers, self.clipped, self.readout.weight.dtype)
        edges = EdgeOperators(graph, nodes, self.num_powers)
        x, y = nodes.degree, edges.degree
        for node_layer, edge_layer in zip(self.node_layers, self.edge_layers, strict=True):
            x = node_layer(nodes.apply(x) + edges.to_nodes(y), nodes.segments)
            y = edge_layer(edges.apply(y) + edges.from_nodes(x), edges.segments)
        logits: Tensor = self.readout(torch.cat(nodes.apply(x) + edges.to_nodes(y), 1))
        return logits


class EdgeOperators:
    """The matrices I, D_B, B, B^2, B^4, ... on the directed edges of each graph, and Pm and Pd between edges and nodes.

    Scaled to the size of the identity: D_B by its mean c_B over a graph (at least 1), B by its root, Pm and Pd by the
    root of twice the mean degree, their transposes by the root of 2.

    Args:
        graph: a graph or a batch of them.
        nodes: the operators on the nodes of the same graph.
        num_powers: how many powers of B, those to 1, 2, 4, ...

    Attributes:
        degree: (d_j - 1) / c_B of each edge i -> j, (E2, 1).
        segments: the edges of each graph.
    """

    def __init__(self, graph: CommunityGraph, nodes: NodeOperators, num_powers: int) -> None:
        self._graph = (graph.edge_index, graph.rev_edge, graph.num_nodes)
        self._num_powers = num_powers
        owner = nodes.segments.owner.index_select(0, graph.edge_index[0])
        self.segments = Segments(nodes.offsets.index_select(0, nodes.segments.pointer), owner)
        degree = nonbacktracking_degree(graph.edge_index, graph.num_nodes).to(nodes.degree.dtype).unsqueeze(1)
        mean = self.segments.average(degree).clamp_min(1)
        self.degree = degree / mean
        self._scale = mean.rsqrt()
        self._node_scale = (2 * nodes.mean_degree).rsqrt()

    def apply(self, y: Tensor) -> list[Tensor]:
        """Each operator on y (E2, F): I, D_B and the powers of B."""
        powers = [y]
        for number in range(self._num_powers):
            powers.append(powers[-1])
            for _ in range(max(1, 2 ** (number - 1))):
                powers[-1] = nonbacktracking_product(powers[-1], *self._graph) * self._scale
        return [y, self.degree * y, *powers[1:]]

    def to_nodes(self, y: Tensor) -> list[Tensor]:
        """Pm y and Pd y, (N, F) each."""
        return [operator(y, *self._graph) * self._node_scale for operator in (incidence_sum, incidence_difference)]

    def from_nodes(self, x: Tensor) -> list[Tensor]:
        """Pm^T x and Pd^T x, (E2, F) each."""
        transposes = (incidence_sum_transpose, incidence_difference_transpose)
        return [operator(x * math.sqrt(0.5), *self._graph) for operator in transposes]
