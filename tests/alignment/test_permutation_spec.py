"""The permutation specification: what may permute, and that nothing else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from symmetric_networks import CASES, NAMES, scattered, theta_of
from torch import Tensor, nn
from torch.nn import functional

from lightning_landscape import LossSurface
from lightning_landscape.alignment import permutation_spec


def answer(module: nn.Module, example: Tensor) -> Tensor:
    with torch.no_grad():
        output = module(example)
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("name", NAMES)
def test_groups_are_those_of_the_architecture(name: str) -> None:
    case = CASES[name]
    spec = permutation_spec(scattered(case), case.input)
    assert sorted((group.size, group.block) for group in spec.groups) == sorted(case.groups)


@pytest.mark.parametrize("name", NAMES)
def test_permuted_state_is_the_same_function(name: str) -> None:
    case = CASES[name]
    module = scattered(case)
    before = answer(module, case.input)
    spec = permutation_spec(module, case.input)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    for seed in range(3):
        permutations = spec.random(seed) if seed else [identity[::-1].copy() for identity in spec.identity()]
        moved = spec.permute_state(state, permutations)
        assert any(not torch.equal(moved[key], state[key]) for key in state) or seed
        module.load_state_dict(moved)
        torch.testing.assert_close(answer(module, case.input), before, rtol=1e-5, atol=1e-5 * float(before.abs().max()))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("resnet20", "lenet-bn")])
def test_theta_moves_as_the_state_does(name: str) -> None:
    case = CASES[name]
    module = scattered(case)
    spec = permutation_spec(module, case.input)
    permutations = spec.random(4)
    moved = spec.permute_state(module.state_dict(), permutations)
    theta = spec.apply(theta_of(module), permutations)
    assert torch.equal(theta, torch.cat([moved[key].reshape(-1) for key in spec.shapes]))
    assert not torch.equal(theta, theta_of(module))
    inverse = [np.argsort(permutation) for permutation in permutations]
    assert torch.equal(spec.apply(theta, inverse), theta_of(module))


@pytest.mark.parametrize("name", ["lenet-bn", "resnet20"])
def test_loss_surface_is_symmetric_where_batch_norm_is_recalibrated(name: str) -> None:
    case = CASES[name]
    module = scattered(case)
    batches = [(case.input, torch.zeros(len(case.input), dtype=torch.int64))] * 2
    surface = LossSurface(module, batches)
    spec = permutation_spec(module, case.input)
    assert spec.dimension == surface.dimension
    moved = spec.apply(surface.point(), spec.random(0))
    assert surface.loss(moved) == pytest.approx(surface.loss(surface.point()), rel=1e-5)


def test_every_group_is_one_that_the_loss_needs() -> None:
    # Half a group: the rows without the columns are another function.
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    spec = permutation_spec(net, torch.zeros(1, 2))
    sites = [(site.tensor, site.axis) for site in spec.sites(0)]
    assert sites == [("0.weight", 0), ("0.bias", 0), ("2.weight", 1)]
    swapped = spec.permute_state(net.state_dict(), [np.array([2, 0, 1])])
    assert torch.equal(swapped["0.weight"], net[0].weight[[2, 0, 1]])
    assert torch.equal(swapped["2.weight"], net[2].weight[:, [2, 0, 1]])
    assert torch.equal(swapped["2.bias"], net[2].bias)


def test_flattened_channel_moves_its_pixels_as_a_block() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(2 * 6, 1))
    spec = permutation_spec(net, torch.zeros(1, 1, 2, 3))
    *_, site = spec.sites(0)
    assert (site.tensor, site.axis, site.sizes, site.factor) == ("2.weight", 1, (2, 6), 0)
    moved = spec.permute_state(net.state_dict(), [np.array([1, 0])])
    assert torch.equal(moved["2.weight"], net[2].weight.roll(6, dims=1))


def test_gates_of_an_lstm_permute_together() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(2, 3), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0])

    net = Last()
    spec = permutation_spec(net, torch.zeros(4, 1, 2))
    order = np.array([1, 2, 0])
    moved = spec.permute_state(net.state_dict(), [order])
    rows = np.concatenate([order + 3 * gate for gate in range(4)])
    assert torch.equal(moved["lstm.weight_ih_l0"], net.lstm.weight_ih_l0[rows])
    assert torch.equal(moved["lstm.weight_hh_l0"], net.lstm.weight_hh_l0[rows][:, order])
    assert torch.equal(moved["lstm.bias_hh_l0"], net.lstm.bias_hh_l0[rows])
    assert torch.equal(moved["head.weight"], net.head.weight[:, order])


def test_random_permutations_are_seeded_and_keep_blocks() -> None:
    spec = permutation_spec(scattered(CASES["group-norm"]), CASES["group-norm"].input)
    first, again, other = spec.random(0), spec.random(0), spec.random(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    pairs = first[0].reshape(4, 2)
    assert {frozenset(pair) for pair in pairs.tolist()} == {frozenset((2 * k, 2 * k + 1)) for k in range(4)}


def test_states_that_come_in_or_are_summed_keep_the_units() -> None:
    class Carried(nn.Module):
        def __init__(self, summed: bool) -> None:
            super().__init__()
            self.gru, self.summed = nn.GRU(2, 3, num_layers=2), summed

        def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
            output, state = self.gru(x, state)
            return output.sum(-1), state + 0 if self.summed else state

    x, state = torch.zeros(4, 1, 2), torch.zeros(2, 1, 3)
    assert len(permutation_spec(Carried(summed=False), x).groups) == 2
    assert permutation_spec(Carried(summed=False), (x, state)).groups == ()
    assert permutation_spec(Carried(summed=True), x).groups == ()


def test_what_no_one_trains_stays() -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    net[2].bias.requires_grad_(False)
    spec = permutation_spec(net, torch.zeros(1, 2))
    assert [group.name for group in spec.groups] == ["0.weight:0"]
    assert "2.bias" not in spec.shapes
    assert spec.dimension == sum(p.numel() for p in net.parameters() if p.requires_grad)


def test_statistics_that_are_not_reestimated_stay() -> None:
    def net(norm: nn.Module) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(1, 4, 1), norm, nn.Flatten(), nn.Linear(16, 1))

    image = torch.zeros(2, 1, 2, 2)
    frozen = net(nn.BatchNorm2d(4)).train()
    frozen[1].eval()
    assert permutation_spec(frozen, image).groups == ()
    assert len(permutation_spec(net(nn.InstanceNorm2d(4, track_running_stats=True)), image).groups) == 1
    assert len(permutation_spec(net(nn.BatchNorm2d(4)), image).groups) == 1
    assert len(permutation_spec(net(nn.InstanceNorm2d(4)), image).groups) == 1


def test_order_matters_where_it_is_used() -> None:
    class Ordered(nn.Module):
        def __init__(self, use: Any) -> None:
            super().__init__()
            self.hidden, self.use = nn.Linear(2, 4), use

        def forward(self, x: Tensor) -> Tensor:
            return self.use(torch.relu(self.hidden(x)))

    x = torch.zeros(3, 2)
    for use in (
        lambda h: h.cumsum(1),
        lambda h: h.argmax(1),
        lambda h: h[:, 1],
        lambda h: h[:, ::2],
        lambda h: h,
        lambda h: h * torch.arange(4),
        lambda h: functional.pad(h, (0, 1), mode="replicate"),
    ):
        assert permutation_spec(Ordered(use), x).groups == ()
    for use in (
        lambda h: h.sum(1),
        lambda h: h.amax(-1, keepdim=True),
        lambda h: h.norm(dim=1),
        lambda h: h.max(),
        lambda h: torch.softmax(h, 1).logsumexp((0, 1)),
        lambda h: torch.einsum("bi,bi->b", h, h),
        lambda h: (h[:, None] - h[:, :, None]).square().sum((1, 2)),
        lambda h: torch.stack([h, -h]).mean((0, 2)),
        lambda h: h.repeat(1, 2).view(3, 2, 4).prod(2),
    ):
        assert [group.size for group in permutation_spec(Ordered(use), x).groups] == [4]


def test_slices_cut_a_group() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.head = nn.Linear(2, 7), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = self.hidden(x)
            return self.head(torch.tanh(h[:, :3]) * torch.sigmoid(h[:, 3:6]) + h[..., -1:])

    spec = permutation_spec(Halves(), torch.zeros(1, 2))
    assert [group.size for group in spec.groups] == [3]
    assert [(s.tensor, s.start, s.stop) for s in spec.sites(0)][:2] == [
        ("hidden.weight", 0, 3),
        ("hidden.weight", 3, 6),
    ]


def test_a_slice_that_depends_on_the_input_keeps_what_this_input_leaves_out() -> None:
    spec = permutation_spec(scattered(CASES["attention"]), CASES["attention"].input)
    assert all(
        site.axis == 1 for group in range(len(spec.groups)) for site in spec.sites(group) if site.tensor == "positions"
    )


def test_module_and_global_random_state_are_only_read() -> None:
    case = CASES["lenet-bn"]
    module = scattered(case).train()
    state = {key: value.clone() for key, value in module.state_dict().items()}
    generator, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    spec = permutation_spec(module, case.input)
    spec.random(0)
    assert torch.equal(torch.get_rng_state(), generator)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # noqa: NPY002
    assert module.training
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_lightning_module_attached_to_a_trainer() -> None:
    class Logged(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))

        def forward(self, x: Tensor) -> Tensor:
            self.log("train/seen", 1.0)
            return self.net(x)

    module = Logged()
    module.trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert [group.size for group in permutation_spec(module, torch.zeros(1, 2)).groups] == [3]
