"""What every search keeps to: counted costs, the same row again, and nothing changed around it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_landscape import LossSurface, finders
from lightning_landscape.finders import Budget, DynamicStringSampling, LinearPath, PathFinder
from tests.cases.surfaces import mse
from tests.finders.cases import (
    FINDERS,
    LEFT,
    LEVEL,
    RIGHT,
    class_name,
    each_searcher,
    lbfgs,
    network,
    regression,
    row,
    surface_of,
    trained_pair,
)


def test_every_finder_of_the_package_is_among_the_cases() -> None:
    public = [kind for kind in vars(finders).values() if isinstance(kind, type) and issubclass(kind, PathFinder)]
    assert {type(finder) for finder in FINDERS} == {*public} - {PathFinder}


@each_searcher
def test_one_example_is_enough(finder: PathFinder) -> None:
    batch = (torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5]]))
    surface = LossSurface(network(1), [batch], mse)
    start, end = (LossSurface(network(seed), [batch], mse).point() for seed in (1, 2))
    level = 1.05 * max(surface.loss(start), surface.loss(end))
    found = finder.connect(surface, start, end, level)
    assert found.verdict == "connected"
    assert found.height <= found.level


@each_searcher
def test_the_same_call_gives_the_same_row(finder: PathFinder) -> None:
    surface, start, end = trained_pair()
    again, *_ = trained_pair()
    level = 1.2 * max(surface.loss(start), surface.loss(end))
    rows = [row(finder.connect(each, start, end, level)) for each in (surface, surface, again)]
    assert rows[0] == rows[1] == rows[2]
    assert rows[0]["num_beads"] >= 1


@each_searcher
def test_a_search_changes_neither_endpoints_nor_module_nor_random_states(finder: PathFinder) -> None:
    module = network(1)
    module.train()
    surface = LossSurface(module, regression(), mse)
    _, start, end = trained_pair()
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    copies = start.clone(), end.clone()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    found = finder.connect(surface, start, end, 1.05 * max(surface.loss(start), surface.loss(end)), budget=Budget(400))
    assert found.gradient_steps > 0
    assert torch.equal(start, copies[0])
    assert torch.equal(end, copies[1])
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())
    assert module.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


class Spy:
    """Counts calls by batch, with gradients and without."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bool]] = []

    def __call__(self, module: nn.Module, batch: dict[str, Any]) -> Tensor:
        self.calls.append((batch["name"], torch.is_grad_enabled()))
        return mse(module, batch["pair"])

    def count(self, name: str, gradient: bool) -> int:
        return self.calls.count((name, gradient))


@pytest.mark.parametrize("finder", [*FINDERS, DynamicStringSampling(optimizer=lbfgs)], ids=class_name)
def test_costs_are_counted_and_only_the_probe_set_decides(finder: PathFinder) -> None:
    spy = Spy()
    first, second, third = regression()
    surface = LossSurface(
        network(1),
        [{"name": "probe", "pair": first}, {"name": "probe", "pair": second}],
        spy,
        training_batches=[{"name": "train", "pair": third}],
        vectorize=False,
    )
    _, start, end = trained_pair()
    level = 1.1 * max(surface.loss(start), surface.loss(end))
    spy.calls.clear()  # other work of the surface does not count
    found = finder.connect(surface, start, end, level)
    assert found.gradient_steps == spy.count("train", True)
    assert found.loss_evaluations * 2 == spy.count("probe", False)
    assert spy.count("train", False) == spy.count("probe", True) == 0
    assert found.work == found.gradient_steps + found.loss_evaluations * 2 / 3
    assert (found.gradient_steps > 0) == (not isinstance(finder, LinearPath))


@each_searcher
def test_progress_is_told_as_fractions(finder: PathFinder) -> None:
    told: list[tuple[str, float]] = []
    surface, start, end = trained_pair()
    level = 1.2 * max(surface.loss(start), surface.loss(end))
    finder.connect(surface, start, end, level, progress=lambda *now: told.append(now))
    assert told
    assert all(isinstance(text, str) and 0.0 <= share <= 1.0 for text, share in told)


@each_searcher
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_search_runs_where_gradients_are_off(finder: PathFinder, context: Any) -> None:
    outside = finder.connect(surface_of(), LEFT, RIGHT, LEVEL)
    with context():
        start, end = LEFT.clone(), RIGHT.clone()
        inside = finder.connect(surface_of(), start, end, LEVEL)
    assert row(inside) == row(outside)
