"""What it costs to decide how stacks of points are evaluated, in evaluations of E and in copies of the weights."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from lightning_landscape import LossSurface


class Held(TorchDispatchMode):
    """The most bytes that tensors made inside hold at one time, each storage once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_iter(made):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is None or storage._cdata in given | self._known:
                continue
            self._known.add(storage._cdata)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return made

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@pytest.mark.parametrize("width", [512, 1000])
def test_at_most_three_evaluations_and_three_copies_of_the_weights(width: int) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2))
    calls = 0

    def loss(net: nn.Module, batch: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return net(batch).square().mean()

    batches = [torch.randn(2, width) for _ in range(6)]
    surface = LossSurface(module, batches, loss)
    calls = 0
    with Held() as held:
        choice = surface.choice()
    assert choice["losses"] == (width == 512)
    assert calls <= 3 * len(batches)
    assert held.most <= 3 * 4 * surface.dimension + 2**18  # and the pieces that are compared
