"""Losses that draw random numbers: the same numbers at every point, so that E is a function of theta."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from lightning_landscape.surface.random_states import global_states, isolated_rng, seed_globally

NoiseMode = Literal["frozen", "refuse"]


class CommonNoise:
    """Common random numbers: the loss of batch i draws from a generator state that depends on (seed, i) alone.

    The loss of a variational autoencoder, of a diffusion model, or of views that the step draws is the mean over
    noise. With fixed numbers z_i, ``E(theta) = (1/B) sum_i loss(theta, batch_i, z_i)`` is a deterministic function,
    and differences of E between points are free of most of the noise (Glasserman and Yao 1992, Management Science
    38(6)). Covered are the global generators of torch, NumPy and Python, and generators that are attributes of a
    module. All of them are where they were when a loss has been computed.

    Args:
        module: the detached copy that is evaluated.
        seed: of the numbers.

    Attributes:
        drawn: whether the loss draws random numbers; ``None`` until a first evaluation has shown it.
    """

    def __init__(self, module: nn.Module, seed: int) -> None:
        self.seed = seed
        self.drawn: bool | None = None
        values = [value for child in module.modules() for value in vars(child).values()]
        kinds = torch.Generator | np.random.Generator | random.Random
        self._own = [value for value in values if isinstance(value, kinds)]

    @contextmanager
    def of_batch(self, index: int) -> Iterator[None]:
        """The loss of batch ``index`` is computed inside."""
        if self.drawn is False:
            yield
            return
        with self._kept():
            self._seed(int(np.random.SeedSequence([self.seed, index]).generate_state(1)[0]))
            before = None if self.drawn else self._states()
            yield
            if before is not None and self._states() != before:
                self.drawn = True

    def _seed(self, seed: int) -> None:
        seed_globally(seed)
        for generator in self._own:
            if isinstance(generator, torch.Generator):
                generator.manual_seed(seed)
            elif isinstance(generator, random.Random):
                generator.seed(seed)
            else:
                generator.bit_generator.state = type(generator.bit_generator)(seed).state

    @contextmanager
    def _kept(self) -> Iterator[None]:
        own = [_state(generator) for generator in self._own]
        try:
            with isolated_rng():
                yield
        finally:
            for generator, state in zip(self._own, own, strict=True):
                _restore(generator, state)

    def _states(self) -> list[bytes]:
        states = (_state(generator) for generator in self._own)
        own = [bytes(state.numpy()) if isinstance(state, torch.Tensor) else repr(state).encode() for state in states]
        return [*global_states(), *own]


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.getstate() if isinstance(generator, random.Random) else generator.bit_generator.state


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.bit_generator.state = state
