"""Another initialisation is one of what the layers compute with, not of their parameters alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from lightning_landscape.attach.fresh_weights import require_fresh, reset_parameters
from lightning_landscape.surface.detached import detached_copy

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")


class Symmetric(nn.Module):
    """A parametrization without an inverse."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).mT


def linear() -> nn.Linear:
    return nn.Linear(48, 48)


def parametrized(kind: nn.Module) -> nn.Linear:
    layer = linear()
    parametrize.register_parametrization(layer, "weight", kind)
    return layer


def twice_pruned() -> nn.Linear:
    layer = prune.random_unstructured(linear(), "weight", 0.3)
    return prune.l1_unstructured(layer, "weight", 0.2)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "plain": linear,
    "old weight norm": lambda: old_weight_norm(linear()),
    "old weight norm, whole": lambda: old_weight_norm(linear(), dim=None),
    "old spectral norm": lambda: old_spectral_norm(linear()),
    "pruned": lambda: prune.random_unstructured(linear(), "weight", 0.4),
    "twice pruned": twice_pruned,
    "new weight norm": lambda: parametrizations.weight_norm(linear()),
    "new spectral norm": lambda: parametrizations.spectral_norm(linear()),
    "orthogonal": lambda: parametrizations.orthogonal(linear()),
    "orthogonal, long": lambda: parametrizations.orthogonal(nn.Linear(24, 48)),
    "householder": lambda: parametrizations.orthogonal(
        linear(), orthogonal_map="householder", use_trivialization=False
    ),
    "symmetric": lambda: parametrized(Symmetric()),
    "both norms": lambda: parametrizations.spectral_norm(parametrizations.weight_norm(linear())),
    "convolution": lambda: old_weight_norm(nn.Conv1d(16, 16, 5)),
    "transposed, new": lambda: parametrizations.spectral_norm(nn.ConvTranspose1d(16, 16, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_the_weights_that_forward_uses_are_new(name: str, training: bool) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(LAYERS[name]())
    for _ in range(15):  # has the old spectral norm find its singular vectors
        module(_input(module[0]))
    module.train(training)
    twin = detached_copy(module)
    before = module[0].weight.detach().clone()
    buffers = {key: value.clone() for key, value in module.named_buffers()}
    reset_parameters(twin)
    require_fresh(twin, module)
    assert torch.equal(module[0].weight, before) or training  # the module is only read
    twin(_input(twin[0]))
    mine, theirs = twin[0].weight.detach().flatten(), before.flatten()
    kept = mine.count_nonzero() / mine.numel()
    assert abs(float(torch.cosine_similarity(mine, theirs, dim=0))) < 0.15
    assert 0.5 < float(mine.norm() / theirs.norm()) < 2
    assert kept == before.count_nonzero() / before.numel()  # masks stay
    assert not torch.equal(twin[0].bias, module[0].bias)
    for key, value in twin.named_buffers():
        assert ("mask" not in key and "base" not in key) or torch.equal(value, buffers[key])
    out = twin(_input(twin[0])).square().mean()
    out.backward()
    assert all(parameter.grad is not None for parameter in twin.parameters())


def _input(layer: nn.Module) -> Tensor:
    return (
        torch.ones(2, 16, 8) if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d) else torch.ones(2, layer.in_features)
    )


def test_spectral_norm_bounds_the_new_weights() -> None:
    for kind in (old_spectral_norm, parametrizations.spectral_norm):
        layer = kind(linear()).train()
        twin = copy.deepcopy(layer)
        reset_parameters(twin)
        twin.eval()
        twin(torch.ones(1, 48))
        assert float(torch.linalg.matrix_norm(twin.weight.detach(), 2)) == pytest.approx(1, abs=0.1)


def test_recurrent_layers_and_tied_weights() -> None:
    torch.manual_seed(0)
    tied = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    tied[1].weight = tied[0].weight
    module = nn.ModuleList([old_weight_norm(nn.LSTM(6, 8), "weight_hh_l0"), tied])
    twin = detached_copy(module)
    reset_parameters(twin)
    require_fresh(twin, module)
    assert twin[1][1].weight is twin[1][0].weight
    twin[0](torch.ones(3, 2, 6))


def test_what_is_frozen_is_shared() -> None:
    for make in LAYERS.values():
        layer = make()
        module = nn.Sequential(layer, nn.Linear(48, 48))
        layer.requires_grad_(False)
        twin = detached_copy(module)
        reset_parameters(twin)
        mine, theirs = dict(twin.named_parameters()), dict(module.named_parameters())
        assert all(torch.equal(mine[name], value) != value.requires_grad for name, value in theirs.items())


class Partly(nn.Module):
    """Resets one of its two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.reset, self.forgotten = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))
        self.ones = nn.Parameter(torch.ones(4))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.reset)


def test_random_weights_that_did_not_change_are_refused_by_name() -> None:
    module = nn.Sequential(Partly(), nn.LayerNorm(4))
    twin = detached_copy(module)
    reset_parameters(twin)
    with pytest.raises(MisconfigurationException, match=r"values in 1 parameters, among them 0\.forgotten: have reset"):
        require_fresh(twin, module)
    module[0].forgotten.requires_grad_(False)
    twin[0].forgotten.requires_grad_(False)
    require_fresh(twin, module)


def test_modules_without_a_reset_are_named() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.randn(4))

    with pytest.raises(MisconfigurationException, match=r"cannot re-initialise 1 \(Own\)"):
        reset_parameters(nn.Sequential(nn.Linear(2, 2), Own()))
