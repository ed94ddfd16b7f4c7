"""Tensors with a graph that a module keeps, anywhere: the copy has them without their graph."""

from __future__ import annotations

import collections
import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.detached import detached_copy


@dataclass(frozen=True)
class Record:
    loss: Tensor


class Pair(NamedTuple):
    first: Tensor
    rest: Any


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value

    @property
    def explosive(self) -> Any:
        raise AssertionError("a user's property was run")


class Slotted:
    __slots__ = ("__value",)

    def __init__(self, value: Any) -> None:
        self.__value = value

    def read(self) -> Any:
        return self.__value


def leaf_with(**attributes: Any) -> Tensor:
    leaf = torch.zeros(2)
    for name, value in attributes.items():
        setattr(leaf, name, value)
    return leaf


def objects(value: Tensor) -> Any:
    array = np.empty(1, object)
    array[0] = value
    return array


# What keeps a tensor, and how it is read again.
KEEPERS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "itself": (lambda t: t, lambda k: k),
    "list": (lambda t: [t], lambda k: k[0]),
    "dict": (lambda t: {"a": t}, lambda k: k["a"]),
    "key": (lambda t: {t: 1}, lambda k: next(iter(k))),
    "deque": (lambda t: collections.deque([t], maxlen=3), lambda k: k[0]),
    "set": (lambda t: {t}, lambda k: next(iter(k))),
    "frozenset": (lambda t: frozenset([t]), lambda k: next(iter(k))),
    "dataclass": (Record, lambda k: k.loss),
    "namedtuple": (lambda t: Pair(t, ({"x": t},)), lambda k: k.rest[0]["x"]),
    "object": (Plain, lambda k: k.value),
    "slots": (Slotted, lambda k: k.read()),
    "defaultdict": (lambda t: collections.defaultdict(list, a=[t]), lambda k: k["a"][0]),
    "ChainMap": (lambda t: collections.ChainMap({}, {"a": t}), lambda k: k["a"]),
    "namespace": (lambda t: types.SimpleNamespace(a=t), lambda k: k.a),
    "partial": (lambda t: functools.partial(torch.add, other=t), lambda k: k.keywords["other"]),
    "method": (lambda t: Slotted(t).read, lambda k: k()),
    "array": (objects, lambda k: k[0]),
    "nested": (lambda t: Plain(collections.deque([Record(t)])), lambda k: k.value[0].loss),
    "attribute": (lambda t: leaf_with(origin=t), lambda k: k.origin),
}  # fmt: skip


class Keeping(pl.LightningModule):
    def __init__(self, keep: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.keep, self.kept = nn.Linear(3, 1), keep, None

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.net(batch).square().mean()
        self.kept = self.keep(loss)
        return loss


@pytest.mark.parametrize("name", KEEPERS)
def test_wherever_a_tensor_is_kept_its_copy_has_no_graph(name: str) -> None:
    keep, read = KEEPERS[name]
    module = Keeping(keep)
    loss = module.training_step(torch.ones(2, 3), 0)
    clone = detached_copy(module)
    copied = read(clone.kept)
    assert torch.equal(copied, loss)
    assert not copied.requires_grad
    assert copied.data_ptr() != loss.data_ptr()
    assert read(module.kept) is loss
    loss.backward()  # its graph is whole
    assert module.net.weight.grad is not None


@pytest.mark.parametrize("name", KEEPERS)
def test_a_surface_over_a_module_that_keeps_its_loss(name: str) -> None:
    module, batch = Keeping(KEEPERS[name][0]), torch.ones(2, 3)
    loss = float(module.training_step(batch, 0).detach())
    surface = LossSurface(module, [batch])
    assert surface.loss(surface.point()) == pytest.approx(loss)


def test_a_circle_of_objects_and_one_tensor_in_two_places() -> None:
    module = Keeping(Plain)
    loss = module.training_step(torch.ones(2, 3), 0)
    module.kept.back, module.again = module.kept, [loss]
    clone = detached_copy(module)
    assert clone.kept.back is clone.kept
    assert clone.again[0] is clone.kept.value


def test_a_gradient_with_a_graph() -> None:
    module = nn.Linear(2, 1)
    module.free = torch.ones(2, requires_grad=True)
    module(module.free).square().sum().backward(create_graph=True)
    clone = detached_copy(module)
    assert torch.equal(clone.free.grad, module.free.grad)
    assert clone.free.grad.grad_fn is None
