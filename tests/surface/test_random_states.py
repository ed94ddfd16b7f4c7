"""Random states survive whatever happens beside the run."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from lightning_landscape.surface.random_states import isolated_rng


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


@isolated_rng(0)
def interrupted_draw() -> None:
    draw()
    raise KeyboardInterrupt


def seed_all() -> None:
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)


@pytest.mark.parametrize("seed", [None, 0, 2**32 - 1])
def test_draws_inside_do_not_show_outside(seed: int | None) -> None:
    seed_all()
    # Half of a Gaussian pair waits in Python's and NumPy's states and must be kept too.
    random.gauss(0, 1)
    np.random.standard_normal()  # noqa: NPY002
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    want = random.gauss(0, 1), np.random.standard_normal(), draw()  # noqa: NPY002
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
    with isolated_rng(seed):
        draw()
        random.gauss(0, 1)
        torch.manual_seed(9)
    assert (random.gauss(0, 1), np.random.standard_normal(), draw()) == want  # noqa: NPY002


def test_states_are_restored_after_an_exception() -> None:
    seed_all()
    want = draw()
    seed_all()
    with pytest.raises(KeyboardInterrupt):
        interrupted_draw()
    assert draw() == want


def test_seed_fixes_every_generator_and_none_continues() -> None:
    with isolated_rng(5):
        first = draw()
    draw()
    with isolated_rng(5):
        assert draw() == first
    with isolated_rng(6):
        assert all(one != other for one, other in zip(draw(), first, strict=True))
    with isolated_rng():
        inside = draw()
    assert draw() == inside


def test_nested_blocks_restore_their_own_states() -> None:
    with isolated_rng(5):
        draw()
        want_inner = draw()
    with isolated_rng(5):
        draw()
        with isolated_rng(7):
            draw()
        assert draw() == want_inner


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range_is_refused_before_anything_changes(seed: int) -> None:
    seed_all()
    want = draw()
    seed_all()
    with pytest.raises(ValueError, match=r"seed must lie in \[0, 2\*\*32\)"), isolated_rng(seed):
        pass
    assert draw() == want


def test_cuda_is_neither_initialised_nor_given_a_seed_for_later(monkeypatch) -> None:
    def touched(*_: object) -> None:
        raise AssertionError("CUDA was touched")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    for name in ("init", "get_rng_state_all", "set_rng_state_all", "manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, touched)
    with isolated_rng(3):
        torch.rand(2)


def test_every_initialised_cuda_device_is_seeded_and_restored(monkeypatch) -> None:
    devices = ["state of 0", "state of 1"]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: list(devices))
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: devices.__setitem__(slice(None), states))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: devices.__setitem__(slice(None), [seed] * 2))
    with isolated_rng(3):
        assert devices == [3, 3]
    assert devices == ["state of 0", "state of 1"]
    with isolated_rng():
        assert devices == ["state of 0", "state of 1"]
        devices[1] = "drawn from"
    assert devices == ["state of 0", "state of 1"]


def test_the_state_of_mps_is_seeded_and_restored(monkeypatch) -> None:
    device = {"state": "of the run"}
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: device["state"])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: device.update(state=state))
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: device.update(state=seed))
    with isolated_rng(3):
        assert device["state"] == 3
    assert device["state"] == "of the run"
    with isolated_rng():
        assert device["state"] == "of the run"
        device["state"] = "drawn from"
    assert device["state"] == "of the run"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_state_is_restored_and_seeded() -> None:
    torch.rand(1, device="cuda")
    state = torch.cuda.get_rng_state()
    with isolated_rng(4):
        first = torch.rand(3, device="cuda")
    with isolated_rng(4):
        assert torch.equal(torch.rand(3, device="cuda"), first)
    assert torch.equal(torch.cuda.get_rng_state(), state)
