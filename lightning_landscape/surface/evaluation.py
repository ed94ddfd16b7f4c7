"""Losses and gradients at a stack of points, one by one or all at once.

Which of the two is faster depends on module and device: ``torch.func.vmap`` wins on small dense
networks and on GPUs, the loop on convolutions on a CPU; recurrent layers run in the loop alone.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from lightning_landscape.surface.objective import Objective

_GAIN = 1.3  # vmap has to win by this factor, so that noise in a timing does not decide
_STACK = 8  # points at once, as many as were timed, which bounds the memory of activations
_STACK_BYTES = 2**28  # and of stacked parameters


def losses_by_loop(objective: Objective, thetas: Tensor, batches: Iterable[Any], dtype: torch.dtype) -> Tensor:
    """Mean loss over ``batches`` at each row of ``thetas``, one after another."""

    def one(theta: Tensor) -> Tensor:
        objective.install(theta)
        return _mean_loss(objective, batches, objective.forward, dtype)

    return torch.stack([one(theta) for theta in thetas])


def losses_by_vmap(objective: Objective, thetas: Tensor, batches: Iterable[Any], dtype: torch.dtype) -> Tensor:
    """Mean loss over ``batches`` at all rows of ``thetas`` together."""
    _require_batching_rules(objective)
    _forget_point(objective, thetas)

    def stack(thetas: Tensor) -> Tensor:
        parameters = objective.stacked(thetas)
        statistics = {f"module.{name}": value for name, value in objective.norms.stacked(len(thetas)).items()}

        def run(batch: Any) -> Tensor:
            def one(parameters: dict[str, Tensor], statistics: dict[str, Tensor]) -> Tensor:
                loss: Tensor = functional_call(objective, (parameters, statistics), (batch,))
                return loss

            with _attributes_kept(objective):
                return vmap(one)(parameters, statistics) if statistics else vmap(lambda p: one(p, {}))(parameters)

        return _mean_loss(objective, batches, run, dtype)

    return torch.cat([stack(part) for part in thetas.split(_stack_size(thetas))])


def _mean_loss(
    objective: Objective, batches: Iterable[Any], run: Callable[[Any], Tensor], dtype: torch.dtype
) -> Tensor:
    if objective.norms.needs_estimate:
        for count, batch in enumerate(batches, start=1):
            objective.norms.estimate(count)
            run(batch)
    objective.norms.evaluate()
    losses = [run(batch).detach() for batch in batches]
    objective.reset_metrics()
    return torch.stack(losses).to(dtype).mean(0)


def gradients_by_loop(objective: Objective, thetas: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
    """Losses (K,) and gradients (K, P) on one batch, one point after another."""
    objective.norms.step()
    losses = []
    gradients = torch.zeros_like(thetas)
    parameters = list(objective.coordinates.values())
    for theta, row in zip(thetas, gradients, strict=True):
        objective.install(theta)
        loss = objective(batch)
        parts = torch.autograd.grad(loss, parameters, allow_unused=True)
        for place, part in zip(row.split(objective.sizes), parts, strict=True):
            if part is not None:
                place.copy_(part.reshape(-1))
        losses.append(loss.detach())
    objective.reset_metrics()
    return torch.stack(losses), gradients


def gradients_by_vmap(objective: Objective, thetas: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
    """Losses (K,) and gradients (K, P) on one batch, all points together."""

    def one(parameters: dict[str, Tensor]) -> Tensor:
        loss: Tensor = functional_call(objective, parameters, (batch,))
        return loss

    _require_batching_rules(objective)
    _forget_point(objective, thetas)
    objective.norms.step()
    losses, gradients = [], []
    for part in thetas.split(_stack_size(thetas)):
        with _attributes_kept(objective):
            slopes, values = vmap(grad_and_value(one))(objective.stacked(part))
        losses.append(values.detach())
        gradients.append(torch.cat([slope.reshape(len(part), -1).to(thetas.dtype) for slope in slopes.values()], 1))
    objective.reset_metrics()
    return torch.cat(losses), torch.cat(gradients)


@contextmanager
def _attributes_kept(module: nn.Module) -> Iterator[None]:
    """Puts attributes back: a step, or a metric in it, may store tensors that cannot be used outside of vmap."""
    kept = [(child, dict(vars(child))) for child in module.modules()]
    try:
        yield
    finally:
        for child, attributes in kept:
            vars(child).clear()
            vars(child).update(attributes)


def _require_batching_rules(module: nn.Module) -> None:
    """Refuses recurrent layers: vmap fails on their forward pass, and takes their gradients point by point, slowly."""
    for child in module.modules():
        if isinstance(child, nn.RNNBase):
            raise NotImplementedError(f"{type(child).__name__} has no batching rule for vmap: leave out vectorize=True")


def _forget_point(objective: Objective, thetas: Tensor) -> None:
    """Installs zeros, so that a step which reads parameters past ``functional_call`` disagrees with the loop.

    A module that keeps parameters in a plain list, say, would otherwise give the loss of the point that was
    installed last, for every point of the stack.
    """
    objective.install(torch.zeros_like(thetas[0]))


def vmap_wins(by_loop: Callable[[], Tensor], by_vmap: Callable[[], Tensor]) -> bool:
    """Times both once on the spot; False too where vmap fails on the module, or disagrees with the loop."""
    expected, loop_seconds = _timed(by_loop)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of slow batching rules: the clock says it
            found, vmap_seconds = _timed(by_vmap)
    except Exception:  # torch raises many kinds where a module cannot run under vmap
        return False
    finite = expected[expected.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    agree = torch.allclose(found, expected.to(found), rtol=1e-3, atol=1e-4 * scale, equal_nan=True)
    return agree and vmap_seconds * _GAIN < loop_seconds


def _timed(compute: Callable[[], Tensor]) -> tuple[Tensor, float]:
    best = float("inf")
    for _ in range(3):  # the first run warms up
        start = time.perf_counter()
        result = compute()
        result.sum().item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return result, best


def _stack_size(thetas: Tensor) -> int:
    return max(1, min(_STACK, _STACK_BYTES // (thetas.shape[1] * thetas.element_size())))
