"""Whether a loss is a function of the weights alone, asked before anything is computed with it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lightning_landscape.surface.noise import NoiseMode
from lightning_landscape.surface.objective import Objective


def require_one_answer(objective: Objective, loss: Callable[[], float], noise: NoiseMode) -> None:
    """Evaluates E twice at one point, and finds out whether it draws random numbers and whether it takes derivatives.

    Args:
        objective: what is evaluated; ``noise.drawn`` and ``needs_grad`` are set.
        loss: E at one point.
        noise: ``"refuse"`` refuses a loss that draws random numbers.

    Raises:
        ValueError: if the two differ, if the loss cannot be computed off its trainer, or if it draws and may not.
    """
    try:
        first = _first(objective, loss)
    except Exception as error:  # whatever a user's step raises
        if objective.norms.needs_estimate and "more than 1 value per channel" in str(error):
            raise ValueError(
                "a batch holds a single value per channel, of which batch norm cannot estimate statistics: give "
                "batches of at least two examples (drop_last=True), or batch_norm='frozen'"
            ) from error
        if objective.loss_fn is not None:
            raise
        raise ValueError(
            f"training_step of {type(objective.module).__name__} could not be evaluated in eval mode off its "
            f"trainer ({type(error).__name__}: {error}): pass loss_fn=lambda module, batch: <scalar mean loss>"
        ) from error
    if objective.noise.drawn and noise == "refuse":
        raise ValueError(
            "the loss draws random numbers, by functional dropout, sampled noise or random views: switch them off, "
            "or pass noise='frozen', so that the same numbers are drawn at every point"
        )
    objective.noise.drawn = bool(objective.noise.drawn)
    second = loss()
    tolerance = 100 * torch.finfo(torch.float32).eps * max(1e-3, abs(first))
    if abs(first - second) > tolerance:
        raise ValueError(
            f"E(theta) was {first:.9g} and then {second:.9g} at the same theta; the module keeps something from one "
            "call to the next (a hidden state, a memory), or the batches change between passes (shuffled, "
            "augmented): pass a loss_fn that starts from a clean state, and list(batches)"
        )


def _first(objective: Objective, loss: Callable[[], float]) -> float:
    try:
        return loss()
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
        # A loss that holds derivatives (a physics-informed or an energy model) needs its graph.
        objective.needs_grad = True
        return loss()
