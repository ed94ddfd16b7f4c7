"""Networks on regular graphs, whose nodes are all alike: what remains of rounding must not be amplified."""

from __future__ import annotations

from collections.abc import Callable

import networkx
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from lightning_landscape.community import CommunityGraph, community_graph, stochastic_block_model
from lightning_landscape.models import CommunityGNN, LineGraphGNN, PyGCommunityModel
from lightning_landscape.models.graphs.graph_operators import InstanceNorm, Segments

REGULAR = {
    "complete": networkx.complete_graph(5),
    "cycle": networkx.cycle_graph(7),
    "hypercube": networkx.hypercube_graph(4),
    "circulant": networkx.circulant_graph(11, [1, 3]),
    "bipartite": networkx.complete_bipartite_graph(3, 3),
    "union": networkx.disjoint_union_all([networkx.cycle_graph(4)] * 3),
    "random": networkx.random_regular_graph(6, 300, seed=1),
}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "gnn": lambda: CommunityGNN(num_layers=20),
    "gnn-clipped": lambda: CommunityGNN(num_layers=3, num_powers=2, clipped=True),
    "line": lambda: LineGraphGNN(num_layers=3),
    "line-deep": lambda: LineGraphGNN(num_layers=20, num_powers=3),
    "gcn": lambda: PyGCommunityModel("gcn", num_layers=20),
    "gat": lambda: PyGCommunityModel("gat", num_layers=20, num_heads=4),
}


def graph_of(graph: networkx.Graph) -> CommunityGraph:
    graph = networkx.convert_node_labels_to_integers(graph)
    return community_graph(torch.tensor([*graph.edges]).T, graph.number_of_nodes())


def shaken(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_nodes_that_are_alike_have_one_logit_alone_and_in_a_batch(name: str, dtype: torch.dtype) -> None:
    irregular = graph_of(networkx.gnp_random_graph(13, 0.4, seed=3))
    for seed, regular in enumerate(REGULAR.values()):
        if name == "gnn-clipped" and regular is REGULAR["random"]:
            continue  # the clipped square of a regular graph need not be regular
        torch.manual_seed(seed)
        model, graph = shaken(MODELS[name]().to(dtype)), graph_of(regular)
        logits = model(graph)
        assert logits.isfinite().all()
        tiny = 30 * torch.finfo(dtype).eps * logits.abs().max()
        assert (logits - logits[0]).abs().max() <= tiny
        batched = model(Batch.from_data_list([irregular, graph, irregular]))[13:-13]
        assert (batched - logits).abs().max() <= tiny


@pytest.mark.parametrize("name", ["gnn", "line", "gcn"])
def test_on_a_regular_graph_only_what_shifts_all_nodes_has_a_derivative(name: str) -> None:
    torch.manual_seed(0)
    model, graph = shaken(MODELS[name]()), graph_of(REGULAR["complete"])
    (model(graph) * torch.randn(5, 2)).sum().backward()
    for key, parameter in model.named_parameters():
        if parameter.grad is None:
            continue  # what the last layer leaves unused
        assert parameter.grad.isfinite().all()
        if key.endswith("norm.weight") or ("norms" in key and key.endswith("weight")) or "mix" in key:
            assert not parameter.grad.any(), key


def plain_norm(x: Tensor, norm: InstanceNorm, owner: Tensor) -> Tensor:
    parts = [x[owner == g] for g in owner.unique()]
    return torch.cat([(p - p.mean(0)) / (p.var(0, correction=0) + norm.eps).sqrt() for p in parts])


@pytest.mark.parametrize(("spread", "constant"), [(1e-9, True), (1e-3, False)])
def test_only_a_deviation_that_is_rounding_is_zero(spread: float, constant: bool) -> None:
    owner = torch.tensor([0] * 5 + [1] * 7)
    x = 3 + spread * torch.randn(12, 4)
    y = InstanceNorm(4)(x, Segments(torch.tensor([0, 5, 12]), owner)).detach()
    if constant:
        assert not y.any()
    else:
        torch.testing.assert_close(y.double(), plain_norm(x.double(), InstanceNorm(4), owner), rtol=1e-3, atol=1e-4)


def test_a_small_feature_beside_large_ones_keeps_its_variance() -> None:
    x = torch.randn(20, 2, dtype=torch.float64) * torch.tensor([1e3, 1e-3])
    segments = Segments(torch.tensor([0, 20]), torch.zeros(20, dtype=torch.long))
    y = InstanceNorm(2).double()(x, segments)
    torch.testing.assert_close(y, plain_norm(x, InstanceNorm(2), segments.owner))


def test_the_mean_of_a_million_rows_is_exact() -> None:
    rows = 1_000_000
    x = torch.full((rows, 1), 0.1)
    x[-1] += 1.0
    y = InstanceNorm(1)(x, Segments(torch.tensor([0, rows]), torch.zeros(rows, dtype=torch.long)))
    assert float(y[0].detach()) == pytest.approx(-1e-6 / (1e-6 + 1e-5) ** 0.5, rel=1e-3)


def test_other_graphs_are_as_before() -> None:
    """The formula without the threshold, in double precision, on a graph with two communities."""
    torch.manual_seed(0)
    graph = stochastic_block_model(60, torch.tensor([[0.2, 0.05], [0.05, 0.2]]))
    model = shaken(LineGraphGNN(num_layers=3).double())
    logits = model(graph)

    def plain(self: InstanceNorm, x: Tensor, segments: Segments, rounding: Tensor) -> Tensor:
        return plain_norm(x, self, segments.owner) * self.weight + self.bias

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InstanceNorm, "forward", plain)
        torch.testing.assert_close(model(graph), logits, rtol=1e-9, atol=1e-9)
