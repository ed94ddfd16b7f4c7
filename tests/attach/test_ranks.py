"""What rank zero computes reaches every rank, and so does its failure. Two ranks, one after the other on one wire."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from lightning_landscape.attach.ranks import on_rank_zero


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands for the processes: rank zero puts on it what the other ranks take off it."""
    wire: dict[str, Any] = {"open": 0}

    def new_group(backend: str, timeout: timedelta) -> object:
        assert (backend, timeout > timedelta(days=1)) == ("gloo", True)
        wire["open"] += 1
        return wire

    def broadcast(objects: list[Any], src: int, group: object) -> None:
        assert (src, group is wire) == (0, True)
        if "sent" in wire:
            objects[:] = wire["sent"]
        else:
            wire["sent"] = [*objects]

    def destroy(group: object) -> None:
        assert group is wire
        wire["open"] -= 1

    monkeypatch.setattr(dist, "new_group", new_group)
    monkeypatch.setattr(dist, "broadcast_object_list", broadcast)
    monkeypatch.setattr(dist, "destroy_process_group", destroy)
    return wire


def call(rank: int, ranks: int, compute: Callable[[], Any]) -> Any:
    return on_rank_zero(SimpleNamespace(world_size=ranks, is_global_zero=rank == 0), compute)  # type: ignore[arg-type]


def refuse() -> None:
    pytest.fail("computed on another rank than zero")


def test_a_rank_alone_needs_no_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "new_group", lambda **_: refuse())
    assert call(0, 1, lambda: {"height": 0.5}) == {"height": 0.5}
    with pytest.raises(KeyError, match="lost"):
        call(0, 1, lambda: {}["lost"])


@pytest.mark.parametrize("result", [{"height": 0.5}, None])
def test_every_rank_has_the_result_of_rank_zero(result: Any, wire: dict[str, Any]) -> None:
    assert call(0, 3, lambda: result) == result
    assert call(1, 3, refuse) == call(2, 3, refuse) == result
    assert wire["open"] == 0


@pytest.mark.parametrize("error", [RuntimeError("no path today"), KeyboardInterrupt("stop")])
def test_what_rank_zero_raises_ends_the_others_too(error: BaseException, wire: dict[str, Any]) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        call(0, 2, fail)
    assert wire["open"] == 0
    with pytest.raises(RuntimeError, match=f"on rank zero: {type(error).__name__}: {error}"):
        call(1, 2, refuse)
    assert wire["open"] == 0
