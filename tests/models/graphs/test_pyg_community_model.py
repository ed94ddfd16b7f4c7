"""PyG's networks against their formulas, and as recipes name them."""

from __future__ import annotations

import pytest
import torch
from jsonargparse import ArgumentParser

from lightning_landscape.community import CommunityGraph, community_graph
from lightning_landscape.models import PyGCommunityModel
from lightning_landscape.models.graphs.community_classifier import CommunityClassifier


def star_and_isolated() -> CommunityGraph:
    return community_graph(torch.tensor([[0, 0, 0], [1, 2, 3]]), num_nodes=5)


def test_gcn_is_its_formula() -> None:
    model, graph = PyGCommunityModel("gcn", num_layers=2, num_features=4).double(), star_and_isolated()
    looped = torch.eye(5, dtype=torch.float64).index_put(tuple(graph.edge_index), torch.ones(6, dtype=torch.float64))
    scale = looped.sum(1).rsqrt()
    walk = scale[:, None] * looped * scale
    degree = looped.sum(1) - 1
    x = (degree / degree.mean())[:, None]
    first, second = model.backbone.convs
    z = walk @ x @ first.lin.weight.T + first.bias
    z = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()).relu()
    torch.testing.assert_close(model(graph), walk @ z @ second.lin.weight.T + second.bias)


def test_gat_weighs_neighbours_by_a_softmax() -> None:
    model, graph = PyGCommunityModel("gat", num_layers=1, num_features=4).double(), star_and_isolated()
    (layer,) = model.backbone.convs
    degree = torch.tensor([3.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    z = (degree / degree.mean().clamp(min=1))[:, None] @ layer.lin.weight.T
    to, of = (z * layer.att_dst[0]).sum(1), (z * layer.att_src[0]).sum(1)
    looped = torch.eye(5, dtype=torch.bool).index_put(tuple(graph.edge_index), torch.tensor(True))
    scores = torch.nn.functional.leaky_relu(to[:, None] + of, 0.2).masked_fill(~looped, -torch.inf)
    torch.testing.assert_close(model(graph), scores.softmax(1) @ z + layer.bias)


@pytest.mark.parametrize("backbone", ["gcn", "gat"])
def test_a_recipe_names_it_by_its_class_path(backbone: str) -> None:
    parser = ArgumentParser()
    parser.add_subclass_arguments(CommunityClassifier, "model")
    path = "lightning_landscape.models.PyGCommunityModel"
    config = parser.parse_object({"model": {"class_path": path, "init_args": {"backbone": backbone, "num_layers": 2}}})
    model = parser.instantiate_classes(config).model
    assert type(model.backbone).__name__.lower() == backbone
    assert model(star_and_isolated()).shape == (5, 2)
