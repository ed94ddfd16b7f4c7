"""Whether named tensors are a state of a module: all of it, nothing else, and of the same kinds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_landscape.storage.named_tensors import clean_name

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WRAPPED = "module."  # leads every name in a file that was saved from inside DistributedDataParallel
_COUNTER = "num_batches_tracked"  # of batch norm; older files lack it, as load_state_dict allows too
_SHOWN = 3
_Groups = Sequence[tuple[list[str], Tensor]]  # tensors, each with all of its names


def matched_state(module: nn.Module, state: Mapping[str, Any], *, partial: bool = False) -> dict[str, Tensor]:
    """The tensors of ``state`` under the names that the module gives them, or an error that names what does not fit.

    A tied parameter has several names: one is enough, and where several are given their values must agree. The
    result has the first. float16, bfloat16, float32 and float64 stand for each other. Values and shapes of buffers are
    not looked at.

    Args:
        module: what the state is to be one of; only read.
        state: tensors by name. ``_orig_mod.`` (``torch.compile``) in the names and a ``module.`` before all of them
            (DDP) are removed.
        partial: allow a state that holds no frozen parameter at all, or no buffer at all, such as
            ``dict(module.named_parameters())``. Without it every tensor of ``module.state_dict()`` has to be there.

    Raises:
        ValueError: for parameters or persistent buffers that are missing, tensors that the module lacks, other
            shapes, numbers of another kind (integers for floats, say), tied parameters with several values, and
            tensors that are sparse, quantised, lazy or without values (meta) where the module's are not.

    Example:
        >>> deeper = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> matched_state(nn.Sequential(nn.Linear(2, 2)), deeper.state_dict())
        Traceback (most recent call last):
        ...
        ValueError: the weights are no state of this Sequential: 2 tensors that it lacks: 1.weight, \
1.bias. Compare models of one architecture
    """
    saved = {clean_name(name) for name in module.state_dict()}
    given = _own_names(saved, state)
    faults = _Faults()
    parameters = _grouped(module.named_parameters(remove_duplicate=False))
    buffers = _grouped(module.named_buffers(remove_duplicate=False))
    frozen = [(names, parameter) for names, parameter in parameters if not parameter.requires_grad]
    needs_frozen, needs_buffers = (not partial or _any_of(given, kind) for kind in (frozen, buffers))
    matched: dict[str, Tensor] = {}
    for names, parameter in parameters:
        values = {name: given.pop(name) for name in names if name in given}
        if not values and (parameter.requires_grad or (needs_frozen and saved.intersection(names))):
            faults.note("parameters are missing", names[0])
        kinds = [faults.note(_fault(value, parameter), name) for name, value in values.items()]
        if values and not any(kinds):
            first = next(iter(values.values()))
            if not all(_same(first, other) for other in values.values()):
                faults.note("parameters that are one tensor here have several values", " = ".join(values))
            matched[names[0]] = first
    for names, buffer in buffers:
        there = {name: given.pop(name) for name in names if name in given}
        counter = names[0].rpartition(".")[2] == _COUNTER
        if not there and needs_buffers and saved.intersection(names) and not counter:
            faults.note("buffers are missing", names[0])
        for name, value in there.items():
            faults.note(_storage_fault(value, buffer), name)
        matched |= there
    for name, value in given.items():
        if name not in saved:
            faults.note("tensors that it lacks", name)
        elif isinstance(value, Tensor):
            matched[name] = value  # states of metrics, and the like
    if faults.names:
        raise ValueError(
            f"the weights are no state of this {type(module).__name__}: {faults}. Compare models of one architecture"
        )
    return matched


class _Faults:
    """Names of tensors by what is wrong with them."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}

    def note(self, kind: str | None, name: str) -> bool:
        """Whether there was anything to note."""
        if kind is None:
            return False
        self.names.setdefault(kind, []).append(name)
        return True

    def __str__(self) -> str:
        told = []
        for kind, names in self.names.items():
            among = ", among them" if len(names) > _SHOWN else ":"
            told.append(f"{len(names)} {kind}{among} {', '.join(names[:_SHOWN])}")
        return "; ".join(told)


def _own_names(saved: Set[str], state: Mapping[str, Any]) -> dict[str, Any]:
    names = [clean_name(str(name)) for name in state]
    if all(name.startswith(_WRAPPED) for name in names) and not any(name.startswith(_WRAPPED) for name in saved):
        names = [name.removeprefix(_WRAPPED) for name in names]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else None
    if twice:
        raise ValueError(f"the weights hold {min(twice)} twice once '_orig_mod.' is removed: rename one of them")
    return dict(zip(names, state.values(), strict=True))


def _any_of(given: Mapping[str, Any], kind: _Groups) -> bool:
    return any(name in given for names, _ in kind for name in names)


def _grouped(named: Iterable[tuple[str, Tensor]]) -> _Groups:
    """The names of each tensor, in order."""
    groups: dict[int, tuple[list[str], Tensor]] = {}
    for name, tensor in named:
        groups.setdefault(id(tensor), ([], tensor))[0].append(clean_name(name))
    return list(groups.values())


def _fault(value: Any, own: Tensor) -> str | None:
    kind = _storage_fault(value, own)
    if kind is not None or is_lazy(own):
        return kind
    if value.shape != own.shape:
        return f"tensors have another shape ({tuple(value.shape)} for {tuple(own.shape)})"
    if value.dtype != own.dtype and not (value.dtype in _FLOATS and own.dtype in _FLOATS):
        return f"tensors are {value.dtype} where the module has {own.dtype}: convert them as they are meant"
    return None


def _storage_fault(value: Any, own: Tensor) -> str | None:
    if not isinstance(value, Tensor):
        return f"entries are a {type(value).__name__}, not a tensor"
    if is_lazy(value):
        return "tensors are lazy and have no values yet"
    if value.is_meta:
        return "tensors are on the meta device and have no values"
    if value.is_quantized and not own.is_quantized:
        return "tensors are quantised: dequantize() them"
    if value.layout != own.layout:
        return f"tensors have layout {value.layout}: convert them, a sparse one with to_dense()"
    return None


def _same(first: Tensor, other: Tensor) -> bool:
    # NaN is equal to NaN here: a run that has diverged is tied all the same.
    return first is other or torch.allclose(first, other.to(first), rtol=0.0, atol=0.0, equal_nan=True)
