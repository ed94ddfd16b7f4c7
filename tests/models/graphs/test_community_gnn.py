from __future__ import annotations

import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch_geometric.data import Batch, Data

from lightning_landscape.community import CommunityGraph, community_graph, stochastic_block_model
from lightning_landscape.datamodules import SBMDataModule
from lightning_landscape.models import CommunityGNN, PyGCommunityModel
from lightning_landscape.models.graphs.graph_operators import NodeOperators
from lightning_landscape.surface import LossSurface

MODELS = [
    pytest.param(lambda: CommunityGNN(2, 4, 6, 3), id="gnn"),
    pytest.param(lambda: CommunityGNN(2, 4, 6, 3, clipped=True), id="clipped"),
    pytest.param(lambda: CommunityGNN(2, 4, 6, linear=True), id="linear"),
    pytest.param(lambda: PyGCommunityModel("gcn", num_layers=4, num_features=6), id="gcn"),
    pytest.param(lambda: PyGCommunityModel("gat", num_layers=4, num_features=6, num_heads=2), id="gat"),
]


def sbm(n: int, seed: int) -> CommunityGraph:
    rates = torch.tensor([[4.0, 1.0], [1.0, 4.0]]) / n
    return stochastic_block_model(n, rates.clamp(max=1), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("make", MODELS)
def test_renumbering_nodes_renumbers_the_output(make: Any) -> None:
    model, graph = make().double(), sbm(60, 0)
    order = torch.randperm(60)
    renumbered = community_graph(order[graph.edge_index], 60)
    assert torch.allclose(model(renumbered)[order], model(graph), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", MODELS)
def test_a_batch_gives_what_its_graphs_give_alone_in_training_and_evaluation(make: Any) -> None:
    graphs = [
        sbm(50, 0),
        sbm(20, 1),
        community_graph(torch.empty(2, 0).long(), 1, torch.tensor([0])),  # one node
        community_graph(torch.tensor([[0], [1]]), 5, torch.tensor([0, 1, 1, 0, 1])),  # isolated nodes
        community_graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3, torch.tensor([0, 0, 0])),  # equal degrees, one class
    ]
    model = make().double()
    batch = Batch.from_data_list(graphs)
    together = model(batch)
    alone = torch.cat([model(graph) for graph in graphs])
    assert torch.allclose(together, alone, rtol=1e-9, atol=1e-9)
    assert torch.equal(model.eval()(batch), together)
    assert together.isfinite().all()
    loss = model.train().training_step(batch, 0)
    losses = [model.training_step(graph, 0).item() for graph in graphs]
    assert loss.item() == pytest.approx(sum(losses) / 5)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_every_parameter_gets_a_gradient() -> None:
    model = CommunityGNN(2, 3, 4)
    model.training_step(Batch.from_data_list([sbm(50, 0), sbm(50, 1)]), 0).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("make", MODELS)
def test_no_graph_with_edges(make: Any) -> None:
    empty = community_graph(torch.empty(2, 0).long(), 3)
    assert torch.equal(*make()(empty)[:2])
    assert make()(Batch.from_data_list([empty, empty])).isfinite().all()


def test_half_of_each_layer_is_linear_unless_all_of_it_is() -> None:
    operators = NodeOperators(sbm(40, 0), 1, False, torch.float32)
    for linear, negative in ((False, [False, False, True, True]), (True, [True] * 4)):
        z = CommunityGNN(2, 1, 4, 1, linear=linear).layers[0](operators.apply(operators.degree), operators.segments)
        assert (z < 0).any(0).tolist() == negative


def test_learns_to_find_planted_communities() -> None:
    data = SBMDataModule(60, 2, 6.0, (4.0, 4.0), batch_size=4, steps_per_epoch=25, val_size=8, test_size=8)
    model = CommunityGNN(2, 4, 8, learning_rate=0.02)
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, data)
    logged = trainer.callback_metrics
    assert logged["val/overlap"] > 0.6 > 0.2 > logged["val/chance"]
    assert logged["val/loss"] < 0.45 < math.log(2)
    (tested,) = trainer.test(model, data, verbose=False)
    assert tested.keys() == {"test/loss", "test/overlap", "test/chance"}
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_rate_is_kept_and_then_falls() -> None:
    model = CommunityGNN(2, 1, 2, learning_rate=0.1, decay=0.4)
    model.trainer = type("T", (), {"estimated_stepping_batches": 10})()  # type: ignore[assignment]
    configured: Any = model.configure_optimizers()
    factor = configured["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [round(factor(step), 3) for step in (0, 5, 6, 8, 10, 11)] == [1, 1, 1, 0.5, 0, 0]
    model.trainer = type("T", (), {"estimated_stepping_batches": math.inf})()  # type: ignore[assignment]
    endless: Any = model.configure_optimizers()
    assert endless["lr_scheduler"]["scheduler"].lr_lambdas[0](10**9) == 1
    steady = CommunityGNN(2, 1, 2, optimizer="adam", decay=0).configure_optimizers()
    assert isinstance(steady, torch.optim.Adam)


@pytest.mark.parametrize("make", MODELS)
def test_mixed_precision_sums_its_loss_in_full(make: Any) -> None:
    graph, model = sbm(50, 0), make()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.training_step(graph, 0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(model.training_step(graph, 0).item(), rel=0.05)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_its_loss_surface_is_its_training_loss() -> None:
    batches = [Batch.from_data_list([sbm(30, 2 * i), sbm(30, 2 * i + 1)]) for i in range(2)]
    model = CommunityGNN(2, 2, 4)
    surface = LossSurface(model, batches)
    theta = surface.point()
    expected = sum(model.training_step(batch, 0).item() for batch in batches) / 2
    assert surface.loss(theta) == pytest.approx(expected, rel=1e-6)
    # Stacks of points go through the loop: the derivatives written out have no rule for vmap.
    assert surface.losses(torch.stack([theta, 0.9 * theta]))[0].item() == pytest.approx(expected, rel=1e-6)
    _, slopes = surface.gradients(torch.stack([theta, theta]), batches[0])
    assert torch.equal(slopes[0], slopes[1])
    assert surface.choice() == {"losses": False, "gradients": False}


def test_is_rebuilt_from_a_checkpoint(tmp_path: Any) -> None:
    data = SBMDataModule(20, 2, 3.0, (1.0, 2.0), steps_per_epoch=1, val_size=1)
    model = PyGCommunityModel("gat", num_layers=2, num_features=4)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, data)
    path = trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    again = PyGCommunityModel.load_from_checkpoint(path, weights_only=True)
    graph = sbm(20, 0)
    assert torch.equal(again(graph), model(graph))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes must be an integer of at least 2, got 1"),
        ({"num_layers": 0}, "num_layers must be an integer of at least 1, got 0"),
        ({"num_powers": 0}, "num_powers must be an integer of at least 1, got 0"),
        ({"num_features": 7}, "num_features must be even"),
        ({"num_features": True}, "num_features must be an integer"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": math.nan}, "learning_rate must be positive"),
        ({"optimizer": "sgd"}, "optimizer must be 'adamax' or 'adam', got 'sgd'"),
        ({"decay": 1.5}, "decay must lie in"),
    ],
)
def test_refuses_arguments_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CommunityGNN(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "sage"}, r"backbone must be one of \['gcn', 'gat'\], got 'sage'"),
        ({"backbone": "gcn", "num_heads": 2}, "num_heads=2 is an option of 'gat'"),
        ({"backbone": "gat", "num_heads": 3}, "num_heads must divide num_features = 32, got 3"),
        ({"backbone": "gat", "num_layers": 0}, "num_layers must be an integer"),
    ],
)
def test_refuses_backbones_that_there_are_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PyGCommunityModel(**options)


def test_says_what_to_give_instead() -> None:
    model = CommunityGNN(2, 1, 2)
    edges = torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(ValueError, match=r"got Data: make one with community_graph\(edge_index, num_nodes\)"):
        model(Data(edge_index=edges, num_nodes=2))
    with pytest.raises(ValueError, match="no communities to learn from"):
        model.training_step(community_graph(edges, 2), 0)
    with pytest.raises(ValueError, match="target must lie from 0 to 1 where there are 2 classes, got 0 to 4"):
        model.training_step(community_graph(edges, 2, torch.tensor([0, 4])), 0)
