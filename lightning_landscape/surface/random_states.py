"""The global random states of torch, NumPy and Python: kept, seeded, compared."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated_rng(seed: int | None = None) -> Iterator[None]:
    """Restore the global random states of torch, NumPy and Python when the block ends, however it ends.

    Covered are torch on the CPU, on every device of a CUDA runtime that is already initialised, and on
    MPS. CUDA is never initialised for it. Lightning's ``isolate_rng`` restores nothing after an exception.

    Args:
        seed: seeds all of these generators for the block; ``None`` continues from the states they have.

    Raises:
        ValueError: if ``seed`` is outside the 32 bits that NumPy takes.

    Example:
        >>> state = torch.get_rng_state()
        >>> with isolated_rng(seed=0):
        ...     first = torch.rand(2)
        >>> with isolated_rng(seed=0):
        ...     second = torch.rand(2)
        >>> torch.equal(first, second), torch.equal(state, torch.get_rng_state())
        (True, True)
    """
    if seed is not None and not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie in [0, 2**32), got {seed}")
    cuda, mps = torch.cuda.is_initialized(), torch.backends.mps.is_available()
    python_state, torch_state = random.getstate(), torch.get_rng_state()
    numpy_state = np.random.get_state()  # noqa: NPY002 - the global state is the one to keep
    cuda_states = torch.cuda.get_rng_state_all() if cuda else []
    mps_state = torch.mps.get_rng_state() if mps else None
    try:
        if seed is not None:
            seed_globally(seed)
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)
        if cuda:
            torch.cuda.set_rng_state_all(cuda_states)
        if mps_state is not None:
            torch.mps.set_rng_state(mps_state)


def seed_globally(seed: int) -> None:
    """Seeds the generators that :func:`isolated_rng` keeps, with one seed of 32 bits."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    # Not torch.manual_seed: without CUDA it queues the seed, and the run's CUDA would start from it later.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def global_states() -> list[bytes]:
    """The states of these generators as bytes, equal where nothing was drawn in between."""
    numpy_state = np.random.get_state()  # noqa: NPY002
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states.append(torch.mps.get_rng_state())
    plain = repr((random.getstate(), numpy_state[1].tolist(), numpy_state[2:])).encode()  # type: ignore[index]
    return [plain, *(bytes(state.numpy()) for state in states)]
