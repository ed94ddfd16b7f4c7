"""Modules, batches and points of loss surfaces that several files of tests build."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

from lightning_landscape import LossSurface

Pair = tuple[Tensor, Tensor]


def mse(module: nn.Module, batch: Any) -> Tensor:
    return functional.mse_loss(module(batch[0]), batch[1])


def pairs(inputs: tuple[int, ...] = (4,), outputs: int = 2, count: int = 2, size: int = 6) -> list[Pair]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, *inputs, generator=generator), torch.randn(size, outputs, generator=generator))
        for _ in range(count)
    ]


def mlp(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), *middle, nn.Tanh(), nn.Linear(3, 2))


def around(surface: LossSurface, count: int = 4, scale: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    point = surface.point()
    return point + scale * torch.randn(count, len(point), generator=generator).to(point)


class LastState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, num_layers=2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.lstm(x)[0]
        return self.head(hidden[:, -1])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.encoder(x)))


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GCNConv(4, 3), GCNConv(3, 2)

    def forward(self, data: Data) -> Tensor:
        hidden = torch.relu(self.first(data.x, data.edge_index))
        return self.second(hidden, data.edge_index)


def graph() -> Data:
    edges = torch.tensor([[0, 1, 2, 3, 4, 1, 2, 3], [1, 2, 3, 4, 0, 0, 1, 2]])
    return Data(x=torch.randn(5, 4), edge_index=edges, y=torch.tensor([0, 1, 0, 1, 1]))


def cross_entropy_of_nodes(module: nn.Module, data: Data) -> Tensor:
    return functional.cross_entropy(module(data), data.y)


class Half(nn.Module):
    """A float64 head on a bfloat16 body."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 3).bfloat16(), nn.Linear(3, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x.bfloat16())).double()).float()


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], list[Any]], Callable[..., Tensor]]] = {
    "mlp": (mlp, pairs, mse),
    "batch norm": (lambda: mlp(nn.BatchNorm1d(3)), pairs, mse),
    "sync batch norm": (lambda: mlp(nn.SyncBatchNorm(3)), pairs, mse),
    "group norm": (lambda: mlp(nn.GroupNorm(1, 3)), pairs, mse),
    "dropout": (lambda: mlp(nn.Dropout(0.5)), pairs, mse),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)),
        lambda: pairs((1, 4, 4)),
        mse,
    ),
    "tied": (Tied, lambda: pairs(outputs=4), mse),
    "lstm": (LastState, lambda: pairs((5, 4)), mse),
    "transformer": (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Flatten(), nn.Linear(12, 2)),
        lambda: pairs((3, 4)),
        mse,
    ),
    "graph": (Graph, lambda: [graph(), graph()], cross_entropy_of_nodes),
    "compiled": (lambda: torch.compile(mlp(), backend="eager"), pairs, mse),
    "compiled inside": (lambda: nn.Sequential(torch.compile(mlp(), backend="eager"), nn.Linear(2, 2)), pairs, mse),
}
