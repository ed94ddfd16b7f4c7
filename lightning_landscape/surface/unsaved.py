"""What a module changes while it trains and no ``state_dict`` holds: no file of weights would have its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lightning_landscape.surface.names import join
from lightning_landscape.surface.objective import Objective

_SAME = 1e-6  # relative difference that is rounding
_OF_OTHERS = ("torch.", "torchmetrics.", "torch_geometric.")
_OF_EVERY_MODULE = frozenset(vars(LightningModule()))
_Values = Mapping[tuple[nn.Module, str], Any]


def refuse_unsaved(
    objective: Objective, batches: Iterable[Any], origin: Tensor, loss: Callable[[Tensor], float]
) -> None:
    """Refuses plain attributes (tensors, arrays, numbers) that training changes and that the loss depends on.

    Of a running mean that is no buffer, say, all points would have the value that the module has at the moment. Numbers
    that grow evenly, such as a count of steps, are taken as they are.

    Args:
        objective: what is evaluated.
        batches: all batches of E.
        origin: the module's own point, tensor (P,).
        loss: E.

    Raises:
        ValueError: naming the attributes.
    """
    names = {
        (child, key): join(prefix, key)
        for prefix, child in objective.module.named_modules()
        if not type(child).__module__.startswith(_OF_OTHERS)
        for key, value in vars(child).items()
        if key not in _OF_EVERY_MODULE and isinstance(value, Tensor | np.ndarray | float | int)
    }
    names = {place: name for place, name in names.items() if name not in objective.shared}
    if not names:
        return
    owners = [owner for owner in {owner for owner, _ in names} if not owner.training]
    before = _values(names)
    objective.install(origin)
    objective.norms.step()
    first = next(iter(batches))
    try:
        for owner in owners:
            owner.training = True
        later = []
        for _ in range(2):
            with objective.noise.of_batch(0):
                objective(first)
            later.append(_values(names))
    except Exception:  # what a step does in train mode alone may need its trainer
        return
    finally:
        for owner in owners:
            owner.training = False
        objective.reset_metrics()
        _write(before)
    moved = {
        place: value
        for place, value in later[0].items()
        if not _equal(before[place], value) and not _even(before[place], value, later[1][place])
    }
    if not moved:
        return
    here = loss(origin)
    try:
        _write(moved)
        there = loss(origin)
    finally:
        _write(before)
    if not abs(here - there) <= _SAME * abs(here):
        told = sorted(names[place] for place in moved)
        raise ValueError(
            f"the attributes {told[:3]} change while the module trains, and the loss depends on them, but no "
            "state_dict holds them, so that a file of weights has no loss of its own: make them buffers "
            f"(self.register_buffer), or pass buffers={told[:1]} to measure all models with the module's"
        )


def _values(places: Iterable[tuple[nn.Module, str]]) -> _Values:
    return {(owner, key): _copy(vars(owner).get(key)) for owner, key in places}


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return value.copy() if isinstance(value, np.ndarray) else value


def _write(values: _Values) -> None:
    """Puts copies of what differs, so that what has stayed keeps its identity."""
    for (owner, key), value in values.items():
        if not _equal(vars(owner).get(key), value):
            vars(owner)[key] = _copy(value)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a, b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b))
    return type(a) is type(b) and bool(a == b)


def _even(a: Any, b: Any, c: Any) -> bool:
    numbers = all(isinstance(value, float | int) for value in (a, b, c))
    return numbers and abs((c - b) - (b - a)) <= 1e-9 * max(1.0, abs(b - a))
