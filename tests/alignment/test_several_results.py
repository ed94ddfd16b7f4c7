"""Functions that return several tensors, packed sequences and transformers: what permutes, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from symmetric_networks import CASES, Case, scattered, theta_of
from torch import Tensor, nn
from torch.nn.utils import rnn

from lightning_landscape import LossSurface
from lightning_landscape.alignment import activation_matching, permutation_spec, weight_matching
from lightning_landscape.alignment.specification import PermutationSpec


class Around(nn.Module):
    """Hidden units, whose activations x (3, 4, 6) a function changes on the way to the output."""

    def __init__(self, function: Callable[[Tensor], Tensor], out: int) -> None:
        super().__init__()
        self.first, self.second, self.function = nn.Linear(5, 6), nn.Linear(out, 2), function

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function(torch.tanh(self.first(x))))


def third_largest(x: Tensor) -> Tensor:
    values, _ = x.kthvalue(3, 1)
    return values


def both(x: Tensor) -> Tensor:
    spread, mean = torch.std_mean(x, dim=1, correction=0)
    return torch.cat([spread, mean], dim=-1)


def halves(x: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return left * right


# The function, the size of what it returns, and the groups that are left of 6 hidden units.
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], int, list[int]]] = {
    "max over places": (lambda x: x.max(1).values, 6, [6]),
    "min by index": (lambda x: torch.min(x, dim=1)[0], 6, [6]),
    "max, kept": (lambda x: x.max(dim=1, keepdim=True).values, 6, [6]),
    "max over units": (lambda x: x.max(2, keepdim=True)[0], 1, []),
    "median": (lambda x: x.median(1).values, 6, [6]),
    "mode": (lambda x: x.mode(1).values, 6, [6]),
    "kthvalue": (third_largest, 6, [6]),
    "sort over places": (lambda x: x.sort(1, descending=True).values, 6, [6]),
    "sort, other order of arguments": (lambda x: torch.sort(x, stable=True, dim=1)[0], 6, [6]),
    "sort over units": (lambda x: x.sort().values, 6, []),
    "argsort": (lambda x: x.argsort(1).float(), 6, [6]),
    "topk over places": (lambda x: x.topk(2, dim=1).values, 6, [6]),
    "topk over units": (lambda x: x.topk(4)[0], 4, []),
    "places of topk": (lambda x: torch.topk(x, 2, 1).indices.float(), 6, [6]),
    "cummax": (lambda x: x.cummax(1).values, 6, [6]),
    "moments": (both, 12, [6]),
    "aminmax": (lambda x: torch.aminmax(x, dim=1).max, 6, [6]),
    "frexp": (lambda x: torch.frexp(x).mantissa, 6, [6]),
    "chunk": (halves, 3, [3]),
    "split": (lambda x: x.split([2, 4], -1)[1], 4, [2, 4]),
    "unbind": (lambda x: x.unbind(1)[2], 6, [6]),
    "broadcast": (lambda x: torch.broadcast_tensors(x, x[:, :1])[1], 6, [6]),
}


def keeps_the_function(module: nn.Module, spec: PermutationSpec, *inputs: Any) -> None:
    def answer() -> Tensor:
        with torch.no_grad():
            output = module(*inputs)
        return output.data if isinstance(output, rnn.PackedSequence) else output

    before, state = answer(), {name: value.clone() for name, value in module.state_dict().items()}
    for seed in range(3):
        module.load_state_dict(spec.permute_state(state, spec.random(seed)))
        torch.testing.assert_close(answer(), before, rtol=1e-5, atol=1e-5)
    module.load_state_dict(state)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_returns_several_tensors_carries_units_along(name: str) -> None:
    function, out, groups = FUNCTIONS[name]
    torch.manual_seed(0)
    module, x = Around(function, out).eval(), torch.randn(3, 4, 5)
    spec = permutation_spec(module, x)
    assert sorted(group.size for group in spec.groups) == groups
    keeps_the_function(module, spec, x)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.linalg.qr(x).R, "linalg_qr"),
        (lambda x: torch.linalg.svd(x, full_matrices=False)[2], "linalg_svd"),
        (lambda x: torch.unique(x, return_inverse=True)[1].float(), "unique"),
    ],
)
def test_a_function_without_a_clear_rule_is_named_and_not_the_example(
    function: Callable[[Tensor], Tensor], name: str
) -> None:
    with pytest.raises(ValueError, match=rf"no rule says how \w*{name}\w*\(\) in forward of Around acts") as error:
        permutation_spec(Around(function, 6), torch.randn(2, 6, 5))
    assert "example" not in str(error.value)


class Pooled(nn.Module):
    """An encoder over padded tokens, with masks for padding and the future."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, **options)
        self.tokens, self.net, self.head = nn.Embedding(11, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        future = torch.triu(torch.ones(6, 6, dtype=torch.bool), 1)
        x = self.net(self.tokens(tokens), mask=future, src_key_padding_mask=tokens == 0)
        return self.head(x.max(1).values)


TOKENS = torch.arange(1, 13).view(2, 6) % 11


@pytest.mark.parametrize(
    ("options", "dense"),
    [
        ({}, 12),
        ({"activation": torch.tanh}, 12),
        ({"activation": nn.SiLU()}, 12),
        ({"activation": nn.PReLU()}, 0),
        ({"activation": lambda h: h * torch.linspace(1, 2, 12)}, 0),
        ({"norm_first": True, "bias": False}, 12),
    ],
)
def test_dense_units_of_an_encoder_permute_where_the_activation_takes_each_by_itself(
    options: dict[str, Any], dense: int
) -> None:
    torch.manual_seed(0)
    module = Pooled(batch_first=True, **options).eval()
    spec = permutation_spec(module, TOKENS)
    sizes = sorted(group.size for group in spec.groups)
    assert sizes == sorted([8, *[2, 4, 4] * 2, *[dense] * (2 if dense else 0)])
    keeps_the_function(module, spec, TOKENS)


def test_a_layer_of_ones_own_inside_an_encoder_is_named() -> None:
    class Mine(nn.TransformerEncoderLayer):
        pass

    net = nn.Sequential(nn.Embedding(11, 8), nn.TransformerEncoder(Mine(8, 2, 12, batch_first=True), 1))
    with pytest.raises(ValueError, match=r"layer '1' \(TransformerEncoder\) \(with a Mine where torch\.nn has a"):
        permutation_spec(net, TOKENS)


@pytest.mark.parametrize("name", ["transformer", "packed", "packed-gru"])
def test_a_permuted_copy_is_found_again(name: str) -> None:
    case: Case = CASES[name]
    module = scattered(case)
    theta = theta_of(module)
    spec = permutation_spec(module, case.input)
    moved = spec.apply(theta, spec.random(1))
    assert not torch.equal(moved, theta)
    assert torch.equal(weight_matching(module, theta, moved, case.input), theta)
    found = activation_matching(module, theta, moved, [case.input])
    same, other = LossSurface(module, [case.input], loss).losses(torch.stack([theta, found])).tolist()
    assert other == pytest.approx(same, rel=1e-5)


def loss(module: nn.Module, batch: Any) -> Tensor:
    output = module(batch)
    return (output.data if isinstance(output, rnn.PackedSequence) else output).square().mean()


class OverPacked(nn.Module):
    """Takes and gives packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.top = nn.LSTM(4, 6, batch_first=True), nn.LSTM(6, 3, batch_first=True)

    def forward(self, sequences: rnn.PackedSequence) -> rnn.PackedSequence:
        return self.top(self.net(sequences)[0])[0]


def test_packed_sequences_that_come_in_and_go_out() -> None:
    torch.manual_seed(0)
    module = OverPacked().eval()
    sequences = rnn.pack_sequence([torch.randn(n, 4) for n in (2, 5, 3)], enforce_sorted=False)
    spec = permutation_spec(module, sequences)
    assert [group.size for group in spec.groups] == [6]
    keeps_the_function(module, spec, sequences)
    theta = theta_of(module)
    assert torch.equal(weight_matching(module, theta, spec.apply(theta, spec.random(1)), sequences), theta)


@pytest.mark.parametrize("name", ["packed", "packed-gru"])
def test_the_loss_surface_of_a_module_that_packs(name: str) -> None:
    module, tokens = scattered(CASES[name]), CASES[name].input
    surface = LossSurface(module, [tokens], loss)
    theta = surface.point()
    with torch.no_grad():
        expected = float(loss(module, tokens))
    assert surface.loss(theta) == pytest.approx(expected, rel=1e-6)
    assert surface.losses(torch.stack([theta, 2 * theta]))[0] == pytest.approx(expected, rel=1e-5)


def test_the_loss_surface_over_batches_of_packed_sequences() -> None:
    torch.manual_seed(0)
    module = OverPacked()
    sequences = rnn.pack_sequence([torch.randn(n, 4) for n in (2, 5, 3)], enforce_sorted=False)
    surface = LossSurface(module, [sequences], loss)
    with torch.no_grad():
        assert surface.loss(surface.point()) == pytest.approx(float(loss(module, sequences)), rel=1e-6)
