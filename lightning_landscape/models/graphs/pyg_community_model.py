"""PyG's standard graph networks, trained for community detection to compare with."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch_geometric.nn import GAT, GCN

from lightning_landscape.community import CommunityGraph
from lightning_landscape.models.graphs.community_classifier import CommunityClassifier
from lightning_landscape.models.graphs.community_gnn import require_sizes
from lightning_landscape.models.graphs.graph_operators import InstanceNorm, NodeOperators, Segments

_BACKBONES = {"gcn": GCN, "gat": GAT}


class PyGCommunityModel(CommunityClassifier):
    """GCN or GAT of PyG on the degrees of the nodes, with the loss and the metrics of the networks here.

    Between its layers, features are normalised over the nodes of each graph and pass a relu.

    Args:
        backbone: ``"gcn"`` (Kipf & Welling 2017) or ``"gat"`` (Velickovic et al. 2018).
        num_classes: k, the number of communities, at least 2.
        num_layers: convolutions, at least 1.
        num_features: number of features of the hidden layers, even; a multiple of ``num_heads``.
        num_heads: attention heads of ``"gat"``, whose features make up ``num_features``.
        learning_rate: step size of the optimiser, positive.
        optimizer: ``"adamax"`` or ``"adam"``.
        decay: share of the training, at its end, over which the learning rate falls linearly to 0.

    Raises:
        ValueError: if an argument is out of its range; in ``forward``, for a graph that is no CommunityGraph.

    Example:
        >>> import torch
        >>> from lightning_landscape.community import stochastic_block_model
        >>> graph = stochastic_block_model(50, torch.tensor([[0.2, 0.02], [0.02, 0.2]]))
        >>> PyGCommunityModel("gat", num_classes=2, num_layers=3)(graph).shape
        torch.Size([50, 2])
    """

    def __init__(
        self,
        backbone: Literal["gcn", "gat"] = "gcn",
        num_classes: int = 2,
        num_layers: int = 8,
        num_features: int = 32,
        num_heads: int = 1,
        learning_rate: float = 4e-3,
        optimizer: Literal["adamax", "adam"] = "adamax",
        decay: float = 0.5,
    ) -> None:
        super().__init__(num_classes, learning_rate, optimizer, decay)
        if backbone not in _BACKBONES:
            raise ValueError(f"backbone must be one of {[*_BACKBONES]}, got {backbone!r}")
        require_sizes(num_layers, num_features, num_powers=1)
        if backbone == "gcn" and num_heads != 1:
            raise ValueError(f"num_heads={num_heads!r} is an option of 'gat', leave it out for 'gcn'")
        if isinstance(num_heads, bool) or not isinstance(num_heads, int) or num_heads < 1 or num_features % num_heads:
            raise ValueError(f"num_heads must divide num_features = {num_features}, got {num_heads!r}")
        self.save_hyperparameters()
        options = {"heads": num_heads} if backbone == "gat" else {}
        self.backbone = _BACKBONES[backbone](
            in_channels=1,
            hidden_channels=num_features,
            num_layers=num_layers,
            out_channels=num_classes,
            norm=_InstanceNorm(num_features),
            **options,
        )

    def forward(self, graph: CommunityGraph) -> Tensor:
        """Logits (N, k) for the nodes of a graph or a batch of them."""
        operators = NodeOperators(graph, num_powers=1, clipped=False, dtype=next(self.parameters()).dtype)
        segments = operators.segments
        logits: Tensor = self.backbone(
            operators.degree,
            graph.edge_index,
            batch=segments.owner,
            batch_size=len(segments.pointer) - 1,
        )
        return logits


class _InstanceNorm(InstanceNorm):
    """The norm of the networks here, called as PyG calls its own."""

    def forward(self, x: Tensor, batch: Tensor, batch_size: int) -> Tensor:  # type: ignore[override]
        pointer = torch.searchsorted(batch, torch.arange(batch_size + 1, device=batch.device))
        return super().forward(x, Segments(pointer, batch))
