"""Named tensors are a state of a module, all of it and nothing else, or are refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from lightning_landscape.storage.checkpoints import read_reference
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.matching import matched_state

State = dict[str, Tensor]


class Tied(nn.Module):
    """Reading and writing share their weights, as in a language model."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Embedding(5, 3)
        self.between = nn.Linear(3, 3)
        self.answer = nn.Linear(3, 5, bias=False)
        self.answer.weight = self.read.weight


def net(depth: int = 2) -> nn.Module:
    layers = [layer for _ in range(depth) for layer in (nn.Linear(3, 3), nn.BatchNorm1d(3))]
    module = nn.Sequential(*layers)
    module.register_buffer("scratch", torch.zeros(2), persistent=False)
    return module


def changed(name: str, change: Callable[[Tensor], Any]) -> Callable[[State], dict[str, Any]]:
    return lambda state: {**state, name: change(state[name])}


def without(*names: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if name not in names}


def quantised(tensor: Tensor) -> Tensor:
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


REFUSED: dict[str, tuple[Callable[[State], dict[str, Any]], str]] = {
    "deeper": (lambda state: dict(net(3).state_dict()), r"7 tensors that it lacks, among them 4\.weight"),
    "shallower": (lambda state: dict(net(1).state_dict()), r"4 parameters are missing.*2\.weight.*2 buffers"),
    "missing parameter": (without("2.bias"), r"1 parameters are missing: 2\.bias"),
    "missing buffer": (without("1.running_var"), r"1 buffers are missing: 1\.running_var"),
    "buffer of nobody": (lambda state: state | {"1.running_max": torch.zeros(3)}, r"lacks: 1\.running_max"),
    "shape": (changed("0.weight", lambda t: t[:2]), r"another shape \(\(2, 3\) for \(3, 3\)\): 0\.weight"),
    "one element for many": (changed("0.weight", lambda t: t[:1, :1]), "another shape"),
    "int64": (changed("0.weight", Tensor.long), r"torch.int64 where the module has torch.float32.*0\.weight"),
    "bool": (changed("0.weight", Tensor.bool), "torch.bool"),
    "complex": (changed("0.weight", lambda t: t.to(torch.complex64)), "torch.complex64"),
    "float8": (changed("0.weight", lambda t: t.to(torch.float8_e4m3fn)), "torch.float8"),
    "sparse": (changed("0.weight", Tensor.to_sparse), r"layout torch.sparse_coo.*to_dense\(\): 0\.weight"),
    "sparse buffer": (changed("1.running_var", Tensor.to_sparse), r"to_dense\(\): 1\.running_var"),
    "meta": (changed("0.weight", lambda t: t.to("meta")), "meta device and have no values: 0.weight"),
    "quantised": (changed("0.weight", quantised), r"dequantize\(\) them: 0\.weight"),
    "lazy": (changed("0.weight", lambda t: nn.UninitializedParameter()), "lazy and have no values yet: 0.weight"),
    "no tensor": (changed("0.weight", Tensor.tolist), "entries are a list, not a tensor: 0.weight"),
    "two of one name": (lambda state: state | {"_orig_mod.0.bias": torch.zeros(3)}, "hold 0.bias twice"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_state_of_the_module_is_refused_by_name(case: str) -> None:
    change, message = REFUSED[case]
    module = net()
    with pytest.raises(ValueError, match=message):
        matched_state(module, change(dict(module.state_dict())))


ACCEPTED: dict[str, Callable[[State], State]] = {
    "as it is": lambda state: state,
    "compiled": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "a compiled part": lambda state: {name.replace("0.", "0._orig_mod."): value for name, value in state.items()},
    "from inside DDP": lambda state: {f"module.{name}": value for name, value in state.items()},
    "DDP, compiled": lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
    "old batch norm": without("1.num_batches_tracked", "3.num_batches_tracked"),
    "a buffer that is not persistent": lambda state: state | {"scratch": torch.ones(2)},
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_other_names_of_the_same_state(case: str) -> None:
    module = net()
    state = dict(module.state_dict())
    matched = matched_state(module, ACCEPTED[case](state))
    assert all(torch.equal(matched[name], parameter) for name, parameter in module.named_parameters())
    assert matched.keys() <= {*state, "scratch"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_precisions_of_real_numbers_stand_for_each_other(dtype: torch.dtype) -> None:
    module = net()
    matched_state(module, net().to(dtype).state_dict())
    matched_state(net().to(dtype), module.state_dict())


def test_a_module_whose_own_names_begin_like_ddp() -> None:
    module = nn.ModuleDict({"module": nn.Linear(2, 2)})
    assert matched_state(module, module.state_dict()).keys() == {"module.weight", "module.bias"}


def test_a_point_may_leave_out_all_that_is_no_coordinate() -> None:
    module = net()
    module[0].requires_grad_(False)
    everything = dict(module.state_dict())
    parameters = dict(module.named_parameters())
    trainable = {name: value for name, value in parameters.items() if value.requires_grad}
    for state in (everything, parameters, trainable):
        assert matched_state(module, state, partial=True).keys() == state.keys()
    for state in (parameters, trainable):
        with pytest.raises(ValueError, match="are missing"):
            matched_state(module, state)
    with pytest.raises(ValueError, match=r"1 parameters are missing: 0\.bias"):
        matched_state(module, without("0.bias")(parameters), partial=True)


def test_the_surface_refuses_a_truncation() -> None:
    shallow, deep = nn.Sequential(nn.Linear(3, 3)), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    surface = LossSurface(shallow, [torch.ones(2, 3)], lambda module, batch: module(batch).square().mean())
    with pytest.raises(ValueError, match=r"lacks: 1\.weight, 1\.bias"):
        surface.point(deep.state_dict())


def test_a_file_with_two_values_for_one_tied_parameter() -> None:
    untied = copy.deepcopy(Tied())
    untied.answer.weight = nn.Parameter(torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"several values: read\.weight = answer\.weight"):
        matched_state(Tied(), untied.state_dict())
    diverged = {name: torch.full_like(value, torch.nan) for name, value in Tied().state_dict().items()}
    assert matched_state(Tied(), diverged)["read.weight"].isnan().all()


def test_a_file_by_safetensors_that_keeps_the_other_name(tmp_path: Path) -> None:
    module = Tied()
    save_model(module, str(tmp_path / "tied.safetensors"))
    state = read_reference(tmp_path / "tied.safetensors")
    assert "read.weight" not in state  # safetensors keeps the first by the alphabet
    matched = matched_state(Tied(), state)
    assert list(matched) == ["read.weight", "between.weight", "between.bias"]
    assert torch.equal(matched["read.weight"], module.read.weight)
    separate = Tied()
    separate.answer.weight = nn.Parameter(torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"1 parameters are missing: read\.weight"):
        matched_state(separate, state)


def test_states_that_are_neither_parameters_nor_buffers() -> None:
    class Noting(nn.Linear):
        def get_extra_state(self) -> Tensor:
            return torch.ones(1)

        def set_extra_state(self, state: Any) -> None:
            """Nothing."""

    module = Noting(2, 2)
    assert "_extra_state" in matched_state(module, module.state_dict())
    matched_state(module, {**module.state_dict(), "_extra_state": {"any": "thing"}})
