from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from lightning_landscape.community import CommunityGraph, community_graph, stochastic_block_model
from lightning_landscape.datamodules import SBMDataModule
from lightning_landscape.models import LineGraphGNN
from lightning_landscape.surface import LossSurface

OPTIONS: list[dict[str, Any]] = [{}, {"num_powers": 3}, {"clipped": True}, {"linear": True}]


def sbm(n: int, seed: int) -> CommunityGraph:
    rates = torch.tensor([[4.0, 1.0], [1.0, 4.0]]) / n
    return stochastic_block_model(n, rates.clamp(max=1), generator=torch.Generator().manual_seed(seed))


def matrices(graph: CommunityGraph) -> dict[str, Tensor]:
    """The dense operators, from the definitions, scaled as documented."""
    source, target = graph.edge_index.tolist()
    edges, nodes = len(source), graph.num_nodes
    a, b = (torch.zeros(size, size, dtype=torch.float64) for size in (nodes, edges))
    plus, minus = (torch.zeros(nodes, edges, dtype=torch.float64) for _ in range(2))
    for e, (i, j) in enumerate(zip(source, target, strict=True)):
        a[i, j] = 1
        plus[i, e] = plus[j, e] = minus[i, e] = 1
        minus[j, e] = -1
        for f, (k, m) in enumerate(zip(source, target, strict=True)):
            b[e, f] = float(k == j and m != i)
    c, c_b = (matrix.sum(1).mean().clamp(min=1) for matrix in (a, b))
    return {
        "I": torch.eye(nodes).double(), "D": torch.diag(a.sum(1)) / c, "A": a / c.sqrt(),
        "U": torch.full((nodes, nodes), 1 / nodes, dtype=torch.float64),
        "I_B": torch.eye(edges).double(), "D_B": torch.diag(b.sum(1)) / c_b, "B": b / c_b.sqrt(),
        "Pm": plus / (2 * c).sqrt(), "Pd": minus / (2 * c).sqrt(),
        "PmT": plus.T / 2**0.5, "PdT": minus.T / 2**0.5,
    }  # fmt: skip


def test_is_its_formula_with_dense_matrices() -> None:
    graph = sbm(24, 3)
    model = LineGraphGNN(3, num_layers=3, num_features=4, num_powers=3).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    m = matrices(graph)
    squared, squared_b = m["A"] @ m["A"], m["B"] @ m["B"]
    on_nodes = [m["I"], m["D"], m["A"], squared, squared @ squared, m["U"]]
    on_edges = [m["I_B"], m["D_B"], m["B"], squared_b, squared_b @ squared_b]

    def rho(z: Tensor, layer: Any) -> Tensor:
        z = z @ layer.mix.weight.T
        z = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() * layer.norm.weight + layer.norm.bias
        return torch.cat([z[:, :2].relu(), z[:, 2:]], 1)

    x = m["D"].sum(1, keepdim=True)
    y = m["D_B"].sum(1, keepdim=True)
    for node_layer, edge_layer in zip(model.node_layers, model.edge_layers, strict=True):
        x = rho(torch.cat([o @ x for o in on_nodes] + [m["Pm"] @ y, m["Pd"] @ y], 1), node_layer)
        y = rho(torch.cat([o @ y for o in on_edges] + [m["PmT"] @ x, m["PdT"] @ x], 1), edge_layer)
    last = torch.cat([o @ x for o in on_nodes] + [m["Pm"] @ y, m["Pd"] @ y], 1)
    assert torch.allclose(model(graph), model.readout(last), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("options", OPTIONS)
def test_renumbering_nodes_renumbers_the_output(options: dict[str, Any]) -> None:
    model, graph = LineGraphGNN(2, 4, 6, **options).double(), sbm(60, 0)
    order = torch.randperm(60)
    renumbered = community_graph(order[graph.edge_index], 60)
    assert torch.allclose(model(renumbered)[order], model(graph), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_batch_gives_what_its_graphs_give_alone_in_training_and_evaluation(options: dict[str, Any]) -> None:
    graphs = [
        sbm(50, 0),
        community_graph(torch.empty(2, 0).long(), 1, torch.tensor([0])),  # one node, no edge in between others
        sbm(20, 1),
        community_graph(torch.tensor([[0], [1]]), 5, torch.tensor([0, 1, 1, 0, 1])),  # isolated nodes
        community_graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3, torch.tensor([0, 0, 0])),  # a cycle, one class
    ]
    model = LineGraphGNN(2, 4, 6, **options).double()
    batch = Batch.from_data_list(graphs)
    together = model(batch)
    assert torch.allclose(together, torch.cat([model(graph) for graph in graphs]), rtol=1e-8, atol=1e-8)
    assert torch.equal(model.eval()(batch), together)
    loss = model.training_step(batch, 0)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_graphs_without_edges() -> None:
    empty = community_graph(torch.empty(2, 0).long(), 3, torch.tensor([0, 1, 1]))
    model = LineGraphGNN(2, 3, 4)
    assert torch.equal(*model(empty)[:2])
    loss = model.training_step(Batch.from_data_list([empty, empty]), 0)
    loss.backward()
    assert loss.isfinite()


def test_gradients_are_those_of_finite_differences() -> None:
    model = LineGraphGNN(2, 2, 2, 2, linear=True).double()
    surface = LossSurface(model, [Batch.from_data_list([sbm(12, 0), sbm(9, 1)])])
    theta = surface.point()
    _, (slope,) = surface.gradients(theta[None], surface.batches[0])
    for direction in torch.randn(3, len(theta), dtype=torch.float64):
        step = 1e-6 * direction
        numerical = (surface.loss(theta + step) - surface.loss(theta - step)) / 2e-6
        assert float(slope @ direction) == pytest.approx(numerical, rel=1e-5, abs=1e-9)
    assert (slope != 0).double().mean() > 0.6  # what the edges' last state feeds is there too


def test_the_edges_matter() -> None:
    graph, model = sbm(40, 0), LineGraphGNN(2, 3, 4)
    before = model(graph)
    with torch.no_grad():
        model.edge_layers[-1].mix.weight.mul_(torch.randn(()))
        model.edge_layers[0].mix.weight.normal_()
    assert not torch.allclose(model(graph), before)


def test_learns_communities_that_avoid_each_other() -> None:
    data = SBMDataModule(60, 2, 6.0, (4.0, 4.0), mixture="disassortative", batch_size=4, steps_per_epoch=20, val_size=8)
    model = LineGraphGNN(2, 4, 8, learning_rate=0.02)
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, data)
    assert trainer.callback_metrics["val/overlap"] > 0.6 > 0.2 > trainer.callback_metrics["val/chance"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes must be"),
        ({"num_layers": 0}, "num_layers must be"),
        ({"num_powers": 0}, "num_powers must be"),
        ({"num_features": 3}, "num_features must be even"),
        ({"decay": -0.1}, "decay must lie in"),
    ],
)
def test_refuses_arguments_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LineGraphGNN(**options)


def test_says_what_to_give_instead() -> None:
    with pytest.raises(ValueError, match="make one with community_graph"):
        LineGraphGNN(2, 1, 2)(Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2))
