"""Weight and activation matching: what was permuted is found again, the objective never falls, E never changes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from symmetric_networks import CASES, NAMES, Case, scattered, theta_of
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape import LossSurface
from lightning_landscape.alignment import activation_matching, match_weights, permutation_spec, weight_matching
from lightning_landscape.alignment.assignment import best_permutation
from lightning_landscape.finders import LinearPath

RECOVERED = ("mlp", "lenet", "lenet-bn", "resnet20", "resnet-gn", "language-model", "language-model-tied", "gru")


def small() -> tuple[nn.Module, Tensor, Tensor]:
    """A perceptron and two points of it."""
    nets = [nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(2)]
    return nets[0], theta_of(nets[0]), theta_of(nets[1])


def examples(case: Case, count: int) -> Tensor:
    shape = (count, *case.input.shape[1:])
    generator = torch.Generator().manual_seed(0)
    if case.input.is_floating_point():
        return torch.randn(shape, generator=generator)
    return torch.randint(0, 11, shape, generator=generator)


@pytest.mark.parametrize("name", RECOVERED)
def test_a_network_permuted_at_random_is_matched_to_itself(name: str) -> None:
    case = CASES[name]
    module = scattered(case)
    theta = theta_of(module)
    spec = permutation_spec(module, case.input)
    drawn = spec.random(3)
    moved = spec.apply(theta, drawn)
    found = match_weights(spec, theta, moved)
    for permutation, inverse in zip(drawn, found.permutations, strict=True):
        assert np.array_equal(permutation[inverse], np.arange(len(permutation)))
    assert torch.equal(weight_matching(module, theta, moved, case.input), theta)
    assert torch.equal(activation_matching(module, theta, moved, [examples(case, 32)] * 2), theta)


def test_a_network_and_itself_are_joined_without_a_barrier() -> None:
    module, theta, _ = small()
    x = torch.randn(20, 3)
    surface = LossSurface(module, [x], loss_fn=lambda net, batch: net(batch).square().mean())
    moved = permutation_spec(module, x).apply(theta, permutation_spec(module, x).random(0))
    apart = LinearPath().connect(surface, theta, moved)
    matched = LinearPath().connect(surface, theta, weight_matching(module, theta, moved, x))
    assert abs(apart.linear_barrier) > 1e-4
    assert matched.linear_barrier == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_matching_two_networks_never_changes_the_function(name: str) -> None:
    case = CASES[name]
    module, other = scattered(case, 0), scattered(case, 1)
    theta_a, theta_b = theta_of(module), theta_of(other)

    def answer(theta: Tensor) -> Tensor:
        net = scattered(case, 1).train()  # statistics of the batch: buffers are no coordinates
        for layer in net.modules():
            if isinstance(layer, nn.Dropout):
                layer.eval()
        nn.utils.vector_to_parameters(theta, net.parameters())
        with torch.no_grad():
            output = net(case.input)
        return output[0] if isinstance(output, tuple) else output

    before = answer(theta_b)
    for matched in (
        weight_matching(module, theta_a, theta_b, case.input),
        activation_matching(module, theta_a, theta_b, [examples(case, 8)]),
    ):
        assert matched.shape == theta_b.shape
        torch.testing.assert_close(answer(matched), before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))


@pytest.mark.parametrize("name", ["mlp", "resnet20", "resnet-gn", "language-model", "grouped", "attention", "tied"])
def test_the_objective_never_falls_and_is_what_it_says(name: str) -> None:
    case = CASES[name]
    module = scattered(case, 0)
    theta_a, theta_b = theta_of(module), theta_of(scattered(case, 1))
    spec = permutation_spec(module, case.input)
    plain = float(theta_a.double() @ theta_b.double())
    for seed in range(3):
        found = match_weights(spec, theta_a, theta_b, seed=seed)
        steps = list(itertools.pairwise(found.objectives))
        assert all(after > before for before, after in steps)
        reached = float(theta_a.double() @ spec.apply(theta_b, found.permutations).double())
        assert reached == pytest.approx(found.objectives[-1], rel=1e-9)
        assert reached >= plain
    # A descent that starts from where it ended has nothing left to do.
    again = match_weights(spec, theta_a, spec.apply(theta_b, found.permutations), restarts=2)
    assert again.objectives[-1] >= reached - 1e-6 * abs(reached)


def test_one_layer_is_matched_as_well_as_can_be() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    spec = permutation_spec(net, torch.zeros(1, 3))
    theta_a, theta_b = torch.randn(2, spec.dimension).double()
    best = max(float(theta_a @ spec.apply(theta_b, [np.array(order)])) for order in itertools.permutations(range(4)))
    assert match_weights(spec, theta_a, theta_b, restarts=1).objectives[-1] == pytest.approx(best, rel=1e-12)


def test_more_restarts_never_do_worse_and_seeds_repeat() -> None:
    case = CASES["grouped"]
    module = scattered(case, 0)
    theta_a, theta_b = theta_of(module), theta_of(scattered(case, 1))
    spec = permutation_spec(module, case.input)
    reached = [match_weights(spec, theta_a, theta_b, restarts=count).objectives[-1] for count in (1, 2, 6)]
    assert reached == sorted(reached)
    first, again = (match_weights(spec, theta_a, theta_b, seed=5) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.permutations, again.permutations, strict=True))


def test_networks_that_were_one_are_left_as_they_are() -> None:
    case = CASES["resnet20"]
    module = scattered(case)
    theta = theta_of(module)
    near = theta + 1e-3 * torch.randn(theta.shape)
    assert torch.equal(weight_matching(module, theta, near, case.input), near)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_assignment_is_the_best_of_all(block: int) -> None:
    similarity = np.random.default_rng(0).normal(size=(6, 6))

    def allowed(order: NDArray[np.int64]) -> bool:
        blocks = order.reshape(-1, block) // block
        return bool((blocks == blocks[:, :1]).all())

    orders = [order for order in map(np.array, itertools.permutations(range(6))) if allowed(order)]
    values = [similarity[np.arange(6), order].sum() for order in orders]
    found = best_permutation(similarity, block)
    assert allowed(found)
    assert similarity[np.arange(6), found].sum() == pytest.approx(max(values))


def test_units_that_never_respond_are_matched_to_something() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight[:2] = 0
    theta = theta_of(net)
    x = torch.randn(10, 3)
    matched = activation_matching(net, theta, theta.flip(0), [x])
    assert torch.equal(matched.sort()[0], theta.sort()[0])


def test_activations_are_read_from_what_a_lightning_batch_holds() -> None:
    case = CASES["lenet"]
    module = scattered(case)
    theta = theta_of(module)
    spec = permutation_spec(module, case.input)
    data = TensorDataset(examples(case, 40), torch.zeros(40, dtype=torch.int64))
    generator = torch.get_rng_state()
    matched = activation_matching(module, theta, spec.apply(theta, spec.random(0)), DataLoader(data, 8, shuffle=True))
    assert torch.equal(matched, theta)
    assert torch.equal(torch.get_rng_state(), generator)


def test_global_random_state_is_left_alone() -> None:
    module, theta_a, theta_b = small()
    generator, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    weight_matching(module, theta_a, theta_b, torch.zeros(1, 3))
    assert torch.equal(torch.get_rng_state(), generator)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # noqa: NPY002


def test_bad_points_are_refused() -> None:
    module, theta_a, theta_b = small()
    x = torch.zeros(1, 3)
    with pytest.raises(ValueError, match=r"theta_b has shape \(3,\), and the module has 54 trainable parameters"):
        weight_matching(module, theta_a, theta_b[:3], x)
    theta_b[7] = torch.nan
    with pytest.raises(ValueError, match="theta_b holds NaN"):
        weight_matching(module, theta_a, theta_b, x)
    with pytest.raises(ValueError, match="theta_b holds NaN"):
        activation_matching(module, theta_a, theta_b, [x])
    with pytest.raises(ValueError, match="restarts must be at least 1, got 0"):
        weight_matching(module, theta_a, theta_a, x, restarts=0)
    with pytest.raises(ValueError, match="batches is empty"):
        activation_matching(module, theta_a, theta_a, [])
    with pytest.raises(ValueError, match="activations of theta_a or theta_b are not finite"):
        activation_matching(module, theta_a, theta_a, [torch.full((2, 3), torch.inf)])


def test_a_network_without_symmetries_stays() -> None:
    net = nn.Linear(3, 2)
    theta = theta_of(net)
    assert torch.equal(weight_matching(net, theta, theta + 1, torch.zeros(1, 3)), theta + 1)
    assert torch.equal(activation_matching(net, theta, theta + 1, [torch.ones(4, 3)]), theta + 1)
