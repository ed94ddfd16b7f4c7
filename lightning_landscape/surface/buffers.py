"""The buffers of a loss surface: which of them are estimates, and whether E of a state is the state's own loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_landscape.surface.evaluation import losses_by_loop, own_loss
from lightning_landscape.surface.objective import Objective
from lightning_landscape.surface.running import RECIPES

_ALIKE = 0.01  # relative difference of two losses that have forgotten where their estimates started
_SAME = 1e-6  # relative difference that is rounding
_WORSE = 1.0  # by what share E may exceed a state's own loss without a word


def find_running_buffers(
    objective: Objective, batches: Iterable[Any], origin: Tensor, loss: Callable[[Tensor], float]
) -> None:
    """Finds the buffers that a forward pass in train mode moves, and a way to estimate them anew.

    An estimate has to forget where it started: E at the module's own point is compared for two different starts, and
    the first recipe for which the two agree is taken. Where none does (a codebook, a queue of past examples), the
    buffers are no estimates, and have the module's values.

    Args:
        objective: what is evaluated; its running buffers are set.
        batches: all batches of E.
        origin: the module's own point, tensor (P,).
        loss: E.
    """
    running = objective.running
    if not running.candidates:
        return
    stored = objective.stored_buffers
    # From elsewhere: an average that has settled would not move.
    with objective.started_from({name: _moved(stored[name], 0) for name in running.candidates}):
        objective.install(origin)
    objective.norms.step()

    def run() -> None:
        for index, batch in enumerate(batches):
            with objective.noise.of_batch(index):
                objective(batch)

    running.find(run)
    objective.reset_metrics()
    moved = {name: _moved(stored[name], number) for number, name in enumerate(running.names)}
    for recipe in RECIPES if moved else ():
        running.recipe = recipe
        here = loss(origin)
        with objective.started_from(moved):
            there = loss(origin)
        if abs(here - there) <= _ALIKE * abs(here):
            return
    running.names = []


def compare_with_own_loss(
    objective: Objective, theta: Tensor, state: Mapping[str, Tensor], batches: Iterable[Any]
) -> int:
    """Refuses a state whose loss as it is, is not E at its point, see ``LossSurface.point``.

    Args:
        objective: what is evaluated.
        theta: the point of the state, tensor (P,).
        state: named tensors; buffers and frozen parameters that it lacks are the module's.
        batches: all batches of E.

    Returns:
        Passes over the batches that it took.
    """
    differing = _differing(objective, state)
    if not differing:
        return 0

    def by_itself(names: Iterable[str]) -> float:
        own = {name: state[name] for name in names}
        frozen = {name: value for name, value in own.items() if name in objective.frozen}
        buffers = {name: value for name, value in own.items() if name not in frozen}
        with objective.frozen_as(frozen):
            return float(own_loss(objective, theta, buffers, batches, objective.wide))

    value, passes = by_itself(differing), 1
    estimated = objective.norms.names | objective.spectral.names | set(objective.running.names)
    fixed = sorted(differing - estimated)
    if fixed:
        without, passes = by_itself(differing & estimated), 2
        if not abs(value - without) <= _SAME * abs(value):
            raise ValueError(_not_shared(objective, fixed, value, without))
    if not differing & estimated:
        return passes

    def on_the_surface() -> float:
        return float(losses_by_loop(objective, theta[None], batches, objective.wide)[0])

    here = on_the_surface()
    passes += 1 + objective.estimate_passes
    running = {name: state[name] for name in objective.running.names if name in differing}
    if running:
        with objective.started_from(running):
            there = on_the_surface()
        passes += 1 + objective.estimate_passes
        if not abs(here - there) <= _ALIKE * max(abs(here), abs(there)):
            names = sorted(running)
            raise ValueError(
                f"the buffers {names[:3]} cannot be estimated at the point of the state: with its own its loss is "
                f"{value:.6g}, with estimates {here:.6g} and {there:.6g} from two starts. Pass buffers={names} to "
                "measure both models with the module's, or compare models that share them"
            )
    if here - value > _WORSE * abs(value):
        warnings.warn(
            f"E of the state is {here:.6g}, its loss with its own buffers {value:.6g}: statistics over the batches of "
            "E differ from its own, which were taken over other batches or under earlier weights; give more or larger "
            "batches, or compare later in training",
            stacklevel=3,
        )
    return passes


def _differing(objective: Objective, state: Mapping[str, Tensor]) -> set[str]:
    """The buffers and frozen parameters of a state that differ from the module's, but for those that all share."""
    mine = objective.stored_buffers | objective.frozen
    ignored = objective.shared if objective.norms.mode == "recalibrate" else objective.shared | objective.norms.names
    own = objective.buffers_of(state) | {name: state[name] for name in objective.frozen if name in state}
    return {name for name, value in own.items() if name not in ignored and not _equal(value, mine[name])}


def _not_shared(objective: Objective, names: list[str], value: float, without: float) -> str:
    frozen = [name for name in names if name in objective.frozen]
    told = f"with its own the loss of the state is {value:.6g}, with the module's {without:.6g}"
    if frozen:
        return (
            f"{len(frozen)} frozen parameters differ between the two models, among them {frozen[:3]}, and change the "
            f"loss: {told}. A pair must share what is not trained: unfreeze them, or compare with a model that has the "
            "same frozen weights"
        )
    return (
        f"the buffers {names[:3]} differ between the two models and change the loss: {told}. They are no running "
        "estimates, and a path has one value for them: compare models that share them, or pass "
        f"buffers={names[:1]} to measure both models with the module's"
    )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.to(b), b)


def _moved(value: Tensor, number: int) -> Tensor:
    """Another start that keeps positive what is positive, such as a variance, and no ratio between buffers."""
    return (1.1 + 0.1 * (number % 5)) * value + 0.1 if value.is_floating_point() else value
