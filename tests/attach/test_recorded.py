"""Copies of a stream: the first batches, and a uniform sample of the rest within a given memory."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_landscape.attach.recorded import RecordedData, num_bytes

BATCH = 1024  # bytes


def batch(number: int) -> Tensor:
    return torch.full((BATCH // 4,), float(number))


def recorded(count: int, seed: int = 0, room: int = 6, num_batches: int = 2) -> RecordedData:
    data = RecordedData(num_batches, room * BATCH / 2**20, seed)
    for number in range(count):
        data.keep(batch(number))
    return data


def numbers(batches: Any) -> list[float]:
    return sorted(float(one[0]) for one in batches)


def test_first_batches_define_the_loss_and_the_rest_fits_into_the_memory() -> None:
    data = recorded(50)
    assert numbers(data.probe) == [0, 1]
    kept = numbers(data)
    assert len(set(kept)) == 4
    assert min(kept) >= 2
    assert kept == numbers(recorded(50))
    assert kept != numbers(recorded(50, seed=1))


def test_sample_of_the_rest_is_uniform() -> None:
    counts = Counter(number for seed in range(600) for number in numbers(recorded(22, seed)))
    assert set(counts) == set(range(2, 22))
    # Each is kept with probability 4/20: binomial, with mean 120 and standard deviation 9.8.
    assert all(80 < count < 160 for count in counts.values())


def test_while_nothing_came_after_the_probe_searches_train_on_it() -> None:
    data = recorded(1)
    assert numbers(data) == numbers(data.probe) == [0]
    data.settle()
    data.keep(batch(7))
    assert (numbers(data.probe), numbers(data)) == ([0], [7])


def test_memory_bounds_the_probe_but_for_its_first_batch() -> None:
    data = recorded(9, room=3, num_batches=8)
    assert numbers(data.probe) == [0, 1, 2]
    assert data.settled
    assert numbers(recorded(9, room=0).probe) == [0]


def test_copies_are_of_the_moment_and_random_states_stay() -> None:
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    data, given = RecordedData(1, 1, 0), {"x": torch.zeros(3), "rest": [torch.ones(1), None, "a"]}
    data.keep(given)
    given["x"].add_(1)
    assert data.probe[0]["x"].tolist() == [0, 0, 0]
    data.keep(given)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), str(np.random.get_state()))  # noqa: NPY002
    next(iter(data))["x"].mul_(5)
    assert next(iter(data))["x"].tolist() == [1, 1, 1]


def test_bytes_are_counted_wherever_they_are_and_once() -> None:
    shared = torch.zeros(4)
    assert num_bytes({"a": shared, "b": [shared, (torch.zeros(2, dtype=torch.float64),)]}) == 32
    assert num_bytes(SimpleNamespace(x=shared, y=np.zeros(3))) == 40
    assert num_bytes("text") == 0


def test_probe_of_a_checkpoint_is_the_first_batches_of_its_file(tmp_path: Path) -> None:
    data = recorded(1)
    early = data.state_dict(tmp_path)
    data.keep(batch(1))
    late = data.state_dict(tmp_path)
    for state, expected in ((early, [0]), (late, [0, 1])):
        again = RecordedData(2, 1, 0)
        again.load_state_dict(tmp_path, state)
        assert numbers(again.probe) == expected
        assert again.settled == (len(expected) == 2)
        again.keep(batch(9))
        again.state_dict(tmp_path)  # what another branch of the run records leaves this one's file alone
    (tmp_path / late["file"]).unlink()
    with pytest.raises(MisconfigurationException, match=r"cannot be read.*put the file back"):
        RecordedData(2, 1, 0).load_state_dict(tmp_path, late)


class Foreign:
    """A class of somebody's own, which could run code when it is unpickled."""


def test_file_is_never_unpickled_blindly(tmp_path: Path) -> None:
    data = RecordedData(1, 1, 0)
    data.keep(Foreign())
    state = data.state_dict(tmp_path)
    with pytest.raises(MisconfigurationException, match="add_safe_globals"):
        RecordedData(1, 1, 0).load_state_dict(tmp_path, state)
