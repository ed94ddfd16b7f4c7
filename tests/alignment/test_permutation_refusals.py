"""What a permutation specification refuses: networks it cannot read, and permutations that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from symmetric_networks import CASES, scattered
from torch import Tensor, nn
from torch.nn import functional

from lightning_landscape.alignment import PermutationSpec, permutation_spec


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_forward_that_cannot_be_traced_names_the_layer() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), Branching()), nn.Linear(3, 1))
    with pytest.raises(
        ValueError, match=r"layer '1\.1' \(Branching\) cannot be traced by torch\.fx .*rewrite that layer"
    ):
        permutation_spec(net, torch.zeros(1, 2))
    with pytest.raises(ValueError, match="forward of Branching cannot be traced"):
        permutation_spec(Branching(), torch.zeros(1, 2))


def test_a_layer_without_a_rule_is_named() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Bilinear(3, 3, 2)))

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            h = self.net[0](x)
            return self.net[1][0](h, h)

    with pytest.raises(ValueError, match=r"no rule says how layer 'net\.1\.0' \(Bilinear\) acts.*build it from layers"):
        permutation_spec(Twice(), torch.zeros(1, 2))


def test_a_function_without_a_rule_is_named_with_its_layer() -> None:
    class Triangular(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.qr(x).R

    net = nn.Sequential(nn.Linear(2, 3), Triangular())
    with pytest.raises(ValueError, match=r"no rule says how linalg_qr\(\) in forward of layer '1' \(Triangular\) acts"):
        permutation_spec(net, torch.zeros(1, 2))
    # On what does not permute, any function will do.
    assert (
        len(
            permutation_spec(
                nn.Sequential(Triangular(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), torch.zeros(1, 2)
            ).groups
        )
        == 1
    )


def test_a_reparametrised_layer_is_refused_by_name() -> None:
    for wrap in (nn.utils.weight_norm, nn.utils.parametrizations.weight_norm):
        net = nn.Sequential(wrap(nn.Linear(2, 3)), nn.ReLU(), nn.Linear(3, 1))
        with pytest.raises(ValueError, match=r"layer '0' \((Parametrized)?Linear\)"):
            permutation_spec(net, torch.zeros(1, 2))


def test_an_example_that_does_not_fit_names_the_layer() -> None:
    with pytest.raises(ValueError, match=r"layer '0' \(Linear\) failed on the example input"):
        permutation_spec(nn.Sequential(nn.Linear(2, 3)), torch.zeros(1, 5))
    with pytest.raises(ValueError, match=r"'0\.weight' is not initialised"):
        permutation_spec(nn.Sequential(nn.LazyLinear(3)), torch.zeros(1, 5))


def test_what_the_graph_does_not_show_is_found_by_trying() -> None:
    hooked = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    hooked[0].register_forward_hook(lambda layer, inputs, output: output * torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match=r"answers differently after its units are permuted.*hook"):
        permutation_spec(hooked, torch.ones(1, 2))

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 8), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(functional.dropout(self.first(x)))

    with pytest.raises(ValueError, match="draws random numbers in eval mode"):
        permutation_spec(Noisy(), torch.ones(4, 2))


@pytest.fixture
def small() -> PermutationSpec:
    return permutation_spec(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), torch.zeros(1, 2))


@pytest.mark.parametrize("bad", [[], [np.arange(2)], [np.array([0, 0, 1])], [np.arange(3)] * 2])
def test_what_is_no_permutation_is_refused(small: PermutationSpec, bad: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"one for each group|no permutation of its 3 units"):
        small.apply(torch.zeros(13), bad)


def test_points_and_states_of_another_architecture_are_refused(small: PermutationSpec) -> None:
    with pytest.raises(ValueError, match=r"theta has shape \(12,\)"):
        small.apply(torch.zeros(12), small.identity())
    with pytest.raises(ValueError, match=r"'0\.weight' has shape \(4, 2\) in the state and \(3, 2\)"):
        small.permute_state({"0.weight": torch.zeros(4, 2)}, small.identity())


def test_a_permutation_that_splits_blocks_is_refused() -> None:
    spec = permutation_spec(scattered(CASES["resnet-gn"]), CASES["resnet-gn"].input)
    permutations = spec.identity()
    permutations[0] = np.array([2, 1, 0, 3, 4, 5, 6, 7])
    with pytest.raises(ValueError, match="splits blocks of 2 units"):
        spec.apply(torch.zeros(spec.dimension), permutations)
