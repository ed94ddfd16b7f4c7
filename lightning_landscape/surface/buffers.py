"""The buffers of a loss surface: which of them are estimates, and whether E of a state is the state's own loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_landscape.surface.evaluation import estimate, losses_by_loop, own_loss
from lightning_landscape.surface.objective import Objective
from lightning_landscape.surface.running import RECIPES
from lightning_landscape.surface.unsaved import refuse_unsaved

_ALIKE = 0.01  # relative difference of two losses that have forgotten where their estimates started
_SAME = 1e-6  # relative difference that is rounding
_APART = 0.5  # by what share E and a state's own loss may differ without a word


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

    Raises:
        ValueError: naming what moves like a buffer and is none.
    """
    refuse_unsaved(objective, batches, origin, loss)
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
    growths = []
    for theta in (origin, 1.1 * origin + 0.01) if running.names else ():
        objective.install(theta)
        growths.append(running.growth(run))
    running.find_counters(growths)
    objective.reset_metrics()
    found = list(running.names)
    moved = {name: _moved(stored[name], number) for number, name in enumerate(found)}
    for recipe in RECIPES if found else ():
        if running.sums and not recipe.anew:
            continue
        running.recipe = recipe
        # A mean over all that was seen forgets its start, too, as long as it has seen little.
        far = {} if recipe.anew else running.far(stored)
        with objective.started_from(far):
            here = loss(origin)
        with objective.started_from(moved | far):
            there = loss(origin)
        if abs(here - there) <= _ALIKE * abs(here):
            return
    running.names = []
    if found:
        here = loss(origin)
        with objective.started_from(moved):
            there = loss(origin)
        running.unknown = found if not abs(here - there) <= _SAME * abs(here) else []


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
    estimated = objective.norms.names | objective.spectral.names | set(objective.running.names)
    differing = _differing(objective, state)
    if not differing | (estimated & state.keys()):
        return 0

    def by_itself(names: Iterable[str]) -> float:
        own = {name: state[name] for name in names}
        frozen = {name: value for name, value in own.items() if name in objective.frozen}
        buffers = {name: value for name, value in own.items() if name not in frozen}
        with objective.frozen_as(frozen):
            return float(own_loss(objective, theta, buffers, batches, objective.wide))

    value, passes = by_itself(differing), 1
    fixed = sorted(differing - estimated)
    if fixed:
        without, passes = by_itself(differing & estimated), 2
        if not abs(value - without) <= _SAME * abs(value):
            raise ValueError(_not_shared(objective, fixed, value, without))
    if not objective.estimates or not estimated & state.keys():
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
    if not abs(here - value) <= _APART * max(abs(here), abs(value)):
        warnings.warn(
            f"E of the state is {here:.6g}, its loss with its own buffers {value:.6g}: statistics over the batches of "
            "E differ from its own, which were taken over other batches or under earlier weights; give more or larger "
            "batches, or compare later in training",
            stacklevel=3,
        )
    return passes


def state_at(objective: Objective, theta: Tensor, batches: Iterable[Any]) -> dict[str, Any]:
    """The state of the module that has the loss E(theta).

    Raises:
        ValueError: naming estimates that the loss depends on and that no state of the module holds.
    """
    estimate(objective, theta, batches)
    state, estimates = objective.state(), objective.running.values()
    kept = objective.module.state_dict().keys()
    lost = sorted(estimates.keys() - kept)
    if not lost:
        return state
    others = estimates | {name: _moved(estimates[name], number) for number, name in enumerate(lost)}
    here, there = (float(own_loss(objective, theta, values, batches, objective.wide)) for values in (estimates, others))
    if not abs(here - there) <= _SAME * abs(here):
        raise ValueError(
            f"the buffers {lost[:3]} are estimated at each point, and state_dict leaves them out, so that a model "
            "loaded from it would have another loss: register them with persistent=True"
        )
    return state


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
            f"loss: {told}. A pair must share what is not trained: unfreeze them, compare with a model that has the "
            f"same frozen weights, or pass buffers={frozen[:1]} to measure both models with the module's"
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
    return (2.0 + 0.1 * (number % 5)) * value + 1.0 if value.is_floating_point() else value
