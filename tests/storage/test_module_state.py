"""The state of a module as a snapshot takes it: each tensor once, copied, and under its plain name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lightning_landscape.storage.snapshots import SnapshotStore, module_state, tied_names
from tests.storage.snapshot_files import Tied
from tests.storage.snapshot_files import store as store


def test_module_state_holds_tied_and_shared_tensors_once_and_no_scratch_buffer() -> None:
    module = Tied()
    state = module_state(module)
    assert list(state) == [
        "encoder.weight",
        "encoder.bias",
        "norm.weight",
        "norm.bias",
        "kept",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    ]
    assert [name for name, _ in module.named_parameters()] == list(state)[:4]
    assert tied_names(module) == {
        "decoder.weight": "encoder.weight",
        **{f"again.{name}": f"norm.{name}" for name in module.norm.state_dict()},
    }
    assert set(module.state_dict()) == set(state) | set(tied_names(module))


def test_module_state_copies_and_leaves_module_and_random_states_alone() -> None:
    module = Tied()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    rng, numpy_rng = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    state = module_state(module)
    for tensor in state.values():
        assert not tensor.requires_grad
        assert tensor.is_contiguous()
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not module.encoder.bias.requires_grad
    assert module.encoder.weight.grad is None
    assert torch.equal(rng, torch.get_rng_state())
    assert np.array_equal(numpy_rng, np.random.get_state()[1])  # noqa: NPY002


def test_names_of_a_compiled_module_are_those_of_the_plain_one() -> None:
    module = Tied()
    compiled = nn.ModuleDict({"net": torch.compile(module)})
    assert list(module_state(compiled)) == [f"net.{name}" for name in module_state(module)]
    assert tied_names(torch.compile(module)) == tied_names(module)


def test_copies_made_under_inference_mode_serve_autograd() -> None:
    with torch.inference_mode():
        state = module_state(nn.Linear(2, 1))
    weight = state["weight"].requires_grad_()
    weight.square().sum().backward()
    assert torch.equal(weight.grad, 2 * weight)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.LazyLinear(2), "weight is lazy.*run one batch"),
        (nn.Linear(2, 2, device="meta"), "weight is on the meta device"),
    ],
)
def test_module_without_values_is_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module_state(module)


def test_two_tensors_that_become_one_name_are_refused(store: SnapshotStore) -> None:
    with pytest.raises(ValueError, match=r"two different tensors are called 'a\.w'"):
        store.save({"a.w": torch.ones(1), "a._orig_mod.w": torch.zeros(1)}, step=0, epoch=0)
