"""The named tensors of a module: parameters and persistent buffers as plain CPU copies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn


def clean_name(name: str) -> str:
    """The name without the ``_orig_mod.`` parts that ``torch.compile`` puts into it.

    Example:
        >>> clean_name("net._orig_mod.0.weight")
        'net.0.weight'
    """
    *modules, tensor = name.split(".")
    return ".".join([*(part for part in modules if part != "_orig_mod"), tensor])


def module_state(module: nn.Module) -> dict[str, Tensor]:
    """Contiguous CPU copies of all parameters and persistent buffers, under their clean names.

    Frozen parameters count; tied ones appear once, under their first name (see :func:`tied_names`).
    Neither the module nor any random state is touched. What a module keeps in ``get_extra_state`` is
    no named tensor and is left out.

    Raises:
        ValueError: if a tensor has no values yet (lazy, or on the meta device), is not dense, or if two
            different tensors have one name once ``_orig_mod.`` is removed.

    Example:
        >>> sorted(module_state(nn.BatchNorm1d(2, affine=False)))
        ['num_batches_tracked', 'running_mean', 'running_var']
    """
    return _copies(_untie((name, tensor, id(tensor)) for name, tensor in _named_tensors(module))[0])


def tied_names(module: nn.Module) -> dict[str, str]:
    """Every further name of a tied parameter or buffer, mapped to the first name, the stored one.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
        >>> net[1].weight = net[0].weight
        >>> tied_names(net)
        {'1.weight': '0.weight'}
    """
    return _untie((name, tensor, id(tensor)) for name, tensor in _named_tensors(module))[1]


def mapping_state(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What :func:`module_state` and :func:`tied_names` return, for a ``state_dict()``.

    Two names are tied when they see the same memory in the same way.

    Raises:
        ValueError: if an entry is not a tensor under a string, a tensor has no values yet or is not dense, or two
            different tensors have one name once ``_orig_mod.`` is removed.
    """
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"a state maps names to tensors; the entry {name!r} is a {type(value).__name__}: drop it")
    tensors, tied = _untie((name, tensor, _memory(tensor)) for name, tensor in state.items())
    return _copies(tensors), tied


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the tensors in the order of their names, each by name, dtype, shape and bytes; hexadecimal.

    Example:
        >>> content_hash({"a": torch.zeros(2)}) == content_hash({"a": torch.zeros(1, 2)})
        False
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        # Not reshape(-1): a single element may keep a stride that no view as bytes accepts.
        flat = tensor.contiguous().as_strided((tensor.numel(),), (1,))
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    # Under every name they have: a tied tensor comes once for each.
    yield from module.named_parameters(remove_duplicate=False)
    for prefix, child in module.named_modules(remove_duplicate=False):
        for name, buffer in child.named_buffers(prefix, recurse=False, remove_duplicate=False):
            if name.rpartition(".")[2] not in child._non_persistent_buffers_set:
                yield name, buffer


def _untie(named: Iterable[tuple[str, Tensor, Hashable]]) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[Hashable, str] = {}
    keys: dict[str, Hashable] = {}
    for raw, tensor, key in named:
        name = clean_name(raw)
        if keys.setdefault(name, key) != key:
            raise ValueError(f"two different tensors are called {name!r} without '_orig_mod.': rename one of them")
        kept = first.setdefault(key, name)
        if kept == name:
            tensors[name] = tensor
        else:
            tied[name] = kept
    return tensors, tied


def _memory(tensor: Tensor) -> Hashable:
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.numel() == 0:
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


# Copies made in `trainer.validate`, under inference mode, must still be usable by autograd.
@torch.inference_mode(False)
@torch.no_grad()
def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: _copy(name, tensor) for name, tensor in tensors.items()}


def _copy(name: str, tensor: Tensor) -> Tensor:
    if nn.parameter.is_lazy(tensor):
        raise ValueError(f"{name} is lazy and has no values yet: run one batch through the module first")
    if tensor.is_meta:
        raise ValueError(f"{name} is on the meta device and has no values: load or initialise the module first")
    if tensor.layout is not torch.strided:
        raise ValueError(f"{name} has layout {tensor.layout}: convert it to a dense tensor with to_dense()")
    plain = tensor.detach().resolve_conj().resolve_neg()  # the bytes, not a flag that says how to read them
    return plain.to("cpu", copy=True, memory_format=torch.contiguous_format)
