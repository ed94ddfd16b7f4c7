"""Losses and gradients at a stack of points, one by one or all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from lightning_landscape.surface.objective import Objective

_STACK = 8  # points at once, which bounds the memory of activations
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
                # Of random numbers all points take the same.
                if statistics:
                    return vmap(one, randomness="same")(parameters, statistics)
                return vmap(lambda p: one(p, {}), randomness="same")(parameters)

        return _mean_loss(objective, batches, run, dtype)

    return torch.cat([stack(part) for part in thetas.split(_stack_size(thetas))])


def own_loss(
    objective: Objective, theta: Tensor, buffers: Mapping[str, Tensor], batches: Iterable[Any], dtype: torch.dtype
) -> Tensor:
    """Mean loss over ``batches`` at theta with the buffers given: nothing is estimated anew."""
    objective.install(theta)
    objective.write_buffers(buffers)
    objective.norms.evaluate()
    return _mean(objective, batches, objective.forward, dtype)


def estimate(objective: Objective, theta: Tensor, batches: Iterable[Any]) -> None:
    """Installs theta with the estimates of its own that E uses."""
    objective.install(theta)
    _estimate(objective, batches, objective.forward)
    objective.reset_metrics()


def _mean_loss(
    objective: Objective, batches: Iterable[Any], run: Callable[[Any], Tensor], dtype: torch.dtype
) -> Tensor:
    _estimate(objective, batches, run)
    objective.norms.evaluate()
    return _mean(objective, batches, run, dtype)


def _estimate(objective: Objective, batches: Iterable[Any], run: Callable[[Any], Tensor]) -> None:
    running = objective.running
    running.begin()
    for _ in range(objective.estimate_passes):
        with running.updating():
            for index, batch in enumerate(batches):
                if objective.norms.needs_estimate:
                    objective.norms.estimate(index + 1)
                with objective.noise.of_batch(index):
                    run(batch)
        running.passed()
    running.settle()


def _mean(objective: Objective, batches: Iterable[Any], run: Callable[[Any], Tensor], dtype: torch.dtype) -> Tensor:
    losses = []
    for index, batch in enumerate(batches):
        with objective.noise.of_batch(index):
            losses.append(run(batch).detach())
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
        with objective.running.updating():
            loss = objective(batch)
        parts = torch.autograd.grad(loss, parameters, allow_unused=True)
        for place, part in zip(row.split(objective.sizes), parts, strict=True):
            if part is not None:
                # Of a sparse embedding too.
                place.copy_(part.to_dense().reshape(-1))
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
            slopes, values = vmap(grad_and_value(one), randomness="different")(objective.stacked(part))
        losses.append(values.detach())
        gradients.append(torch.cat([slope.reshape(len(part), -1).to(thetas.dtype) for slope in slopes.values()], 1))
    objective.reset_metrics()
    return torch.cat(losses), torch.cat(gradients)


@contextmanager
def _attributes_kept(module: nn.Module) -> Iterator[None]:
    """Puts attributes back: a step, or a metric in it, may store tensors that cannot be used outside of vmap.

    Parameters and buffers too, which ``functional_call`` does not put back where a submodule has two names.
    """
    kept = [(child, dict(vars(child)), dict(child._parameters), dict(child._buffers)) for child in module.modules()]
    try:
        yield
    finally:
        for child, attributes, parameters, buffers in kept:
            vars(child).clear()
            vars(child).update(attributes)
            child._parameters.clear()
            child._parameters.update(parameters)
            child._buffers.clear()
            child._buffers.update(buffers)


def _require_batching_rules(objective: Objective) -> None:
    """Refuses what vmap cannot do, or does point by point and slowly."""
    for child in objective.module.modules():
        if isinstance(child, nn.RNNBase):
            raise NotImplementedError(f"{type(child).__name__} has no batching rule for vmap: leave out vectorize=True")
    estimated = [*sorted(objective.spectral.names), *objective.running.names]
    if estimated:
        raise NotImplementedError(
            f"the buffers {estimated[:3]} are estimated at each point by itself: leave out vectorize=True"
        )


def _forget_point(objective: Objective, thetas: Tensor) -> None:
    """Installs zeros, so that a step which reads parameters past ``functional_call`` disagrees with the loop.

    A module that keeps parameters in a plain list, say, would otherwise give the loss of the point that was
    installed last, for every point of the stack.
    """
    objective.install(torch.zeros_like(thetas[0]))


def _stack_size(thetas: Tensor) -> int:
    return max(1, min(_STACK, _STACK_BYTES // (thetas.shape[1] * thetas.element_size())))


@contextmanager
def computing(grad: bool) -> Iterator[None]:
    """Leaves a caller's inference mode (trainer.validate), and sets gradients as asked."""
    with torch.inference_mode(False), torch.set_grad_enabled(grad):
        yield
