"""The loss of a module as a function of one flat parameter vector."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from lightning_landscape.surface.batch_norm import BatchNormMode
from lightning_landscape.surface.evaluation import (
    gradients_by_loop,
    gradients_by_vmap,
    losses_by_loop,
    losses_by_vmap,
    vmap_wins,
)
from lightning_landscape.surface.objective import LossFunction, Objective
from lightning_landscape.surface.work import Work


class LossSurface:
    """The loss surface ``E(theta) = (1/B) sum_b loss(module(theta), batch_b)``.

    theta holds the trainable parameters alone, tied ones once, in the order of ``named_parameters()``;
    buffers are no coordinates. E is computed in eval mode on a detached copy: the module handed in is
    only read.

    Args:
        module: any ``nn.Module``; a LightningModule brings its own loss.
        batches: a re-iterable over batches, all of which define E, every time. A list or tuple is moved
            to the device once; anything else (a DataLoader, say) is iterated anew at each evaluation.
        loss_fn: ``loss_fn(module, batch)`` returns the mean loss of a batch as a scalar tensor. ``None``:
            the module's own ``training_step``.
        training_batches: a re-iterable over batches for :meth:`training_stream`; defaults to ``batches``.
        training_loss_fn: like ``loss_fn``, the loss that :meth:`gradients` differentiates and beads are
            trained on; defaults to the loss of E. It is what makes level sets of a metric without
            gradients, an error rate say, searchable. It may draw random numbers, of dropout say.
        batch_norm: ``"recalibrate"`` re-estimates the running statistics as cumulative averages over
            ``batches`` at every theta and then evaluates with them; ``"frozen"`` keeps the module's
            statistics; ``"batch"`` normalises by each batch.
        device: device on which E is computed; defaults to the device of the parameters.
        vectorize: evaluate stacks by ``torch.func.vmap`` (``True``) or point by point (``False``).
            ``None`` times both once on the first stack and keeps the faster.

    Raises:
        ValueError: for a module without trainable parameters or without a loss, no batches, batches
            that can be iterated only once, a step that needs its trainer, and a module or batches that
            answer differently when asked twice.

    Example:
        >>> line = nn.Linear(1, 1, bias=False)
        >>> surface = LossSurface(line, [(torch.ones(4, 1), torch.zeros(4, 1))],
        ...                       loss_fn=lambda module, batch: nn.functional.mse_loss(module(batch[0]), batch[1]))
        >>> surface.losses(torch.tensor([[0.0], [2.0]])).tolist()
        [0.0, 4.0]
    """

    def __init__(
        self,
        module: nn.Module,
        batches: Iterable[Any],
        loss_fn: LossFunction | None = None,
        training_batches: Iterable[Any] | None = None,
        batch_norm: BatchNormMode = "recalibrate",
        device: torch.device | str | None = None,
        vectorize: bool | None = None,
        training_loss_fn: LossFunction | None = None,
    ) -> None:
        if batch_norm not in ("recalibrate", "frozen", "batch"):
            raise ValueError(f"batch_norm must be 'recalibrate', 'frozen' or 'batch', got {batch_norm!r}")
        self.work = Work()
        self._choice: dict[str, bool | None] = dict.fromkeys(("losses", "gradients"), vectorize)
        self._needs_grad = False
        with _computing(grad=False):
            self._measure(module, loss_fn, training_loss_fn, batch_norm, device)
            self.batches = self._resident(batches, "batches")
            self._training = self.batches
            if training_batches is not None:
                self._training = self._resident(training_batches, "training_batches")
        self._check_deterministic()
        self.work = Work()

    def with_module(self, module: nn.Module) -> Self:
        """The same surface over a fresh copy of ``module``: same batches, loss and choices.

        A loss may depend on buffers and attributes that change while a module trains. This takes them as
        they are now, without repeating the checks of construction; work is counted from zero.
        """
        surface = copy.copy(self)
        surface.work = Work()
        with _computing(grad=False):
            now = self._objective
            surface._measure(module, now.loss_fn, self._training_loss_fn, now.norms.mode, now.device)
        return surface

    def __repr__(self) -> str:
        return (
            f"LossSurface({type(self._objective.module).__name__}, dimension={self.dimension}, "
            f"batch_norm={self._objective.norms.mode!r}, device={str(self.device)!r})"
        )

    @property
    def dimension(self) -> int:
        """P, the number of coordinates."""
        return sum(self._objective.sizes)

    @property
    def device(self) -> torch.device:
        """Where losses are computed and points live."""
        return self._objective.device

    @property
    def module(self) -> nn.Module:
        """The detached copy that E is computed with, only to be read: its parameters are those evaluated last."""
        return self._objective.module

    @property
    def names(self) -> list[str]:
        """Names of the parameters that make up theta, in order."""
        return list(self._objective.coordinates)

    @property
    def evaluation_passes(self) -> int:
        """Forward passes that one evaluation of E takes: twice the batches where batch norm is recalibrated."""
        return self._num_batches * (2 if self._objective.norms.needs_estimate else 1)

    def point(self, state: Mapping[str, Tensor] | None = None) -> Tensor:
        """The vector (P,) of the module's parameters, or of the named tensors in ``state``.

        Raises:
            ValueError: if ``state`` lacks a parameter or holds one of another shape.
        """
        with _computing(grad=False):
            return self._origin.clone() if state is None else self._objective.flatten(state)

    def state(self, theta: Tensor) -> dict[str, Tensor]:
        """The named parameters at ``theta`` (P,), for ``module.load_state_dict(..., strict=False)``."""
        stacked = self._objective.stacked(self._points(theta, 1)[None])
        return {name.removeprefix("module."): value[0].clone() for name, value in stacked.items()}

    def loss(self, theta: Tensor) -> float:
        """E(theta) for theta of shape (P,)."""
        return float(self.losses(self._points(theta, 1)[None])[0])

    def losses(self, thetas: Tensor) -> Tensor:
        """E at each row of ``thetas`` (K, P): float64, shape (K,), on the surface's device."""
        thetas = self._points(thetas, 2)
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        if len(thetas) == 0:
            return torch.empty(0, dtype=dtype, device=self.device)
        batches = self.batches if isinstance(self.batches, list) else _Moved(self.batches, self._objective)
        with _computing(grad=self._needs_grad):
            if len(thetas) > 1 and self._choice["losses"] is None:
                some, first = thetas[:8], [next(iter(batches))]
                self._choice["losses"] = vmap_wins(
                    lambda: losses_by_loop(self._objective, some, first, dtype),
                    lambda: losses_by_vmap(self._objective, some, first, dtype),
                )
            run = losses_by_vmap if len(thetas) > 1 and self._choice["losses"] else losses_by_loop
            values = run(self._objective, thetas, batches, dtype)
        self.work.forward_passes += len(thetas) * self.evaluation_passes
        self.work.loss_evaluations += len(thetas)
        return values.detach()

    def gradients(self, thetas: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
        """Training loss on one batch and its gradient, at each row of ``thetas``.

        Batch norm uses the statistics of the batch, as in training, unless ``batch_norm="frozen"``.

        Args:
            thetas: tensor (K, P).
            batch: one batch, as :meth:`training_stream` yields them.

        Returns:
            The losses (K,) and the gradients (K, P).

        Raises:
            ValueError: for a loss without a gradient, such as an error rate.
        """
        thetas = self._points(thetas, 2)
        if len(thetas) == 0:
            return thetas.new_empty(0), torch.empty_like(thetas)
        with _computing(grad=True):
            batch = self._descended.to_device(batch)
            try:
                if len(thetas) > 1 and self._choice["gradients"] is None:
                    some = thetas[:8]
                    self._choice["gradients"] = vmap_wins(
                        lambda: gradients_by_loop(self._descended, some, batch)[1],
                        lambda: gradients_by_vmap(self._descended, some, batch)[1],
                    )
                run = gradients_by_vmap if len(thetas) > 1 and self._choice["gradients"] else gradients_by_loop
                losses, gradients = run(self._descended, thetas, batch)
            except RuntimeError as error:
                if "does not require grad" not in str(error):
                    raise
                raise ValueError(
                    "the loss has no gradient to train beads by: pass training_loss_fn=lambda module, batch: "
                    "<scalar mean loss that falls where E does>"
                ) from error
        self.work.gradient_steps += len(thetas)
        return losses, gradients

    def choice(self) -> dict[str, bool]:
        """How stacks of points are evaluated: ``losses`` and ``gradients``, each by vmap (True) or point by point.

        What is still open is timed now, rather than when the first stack comes; the timing does not count as work.
        Another surface, or a resumed run, rounds alike when it adopts the choice.

        Example:
            >>> line = nn.Linear(1, 1)
            >>> LossSurface(line, [None], loss_fn=lambda m, _: m.weight.square().sum(), vectorize=False).choice()
            {'losses': False, 'gradients': False}
        """
        if None in self._choice.values():
            counted, self.work = self.work, Work()
            stack = self._origin.expand(8, -1)
            self.losses(stack)
            self.gradients(stack, next(self.training_stream()))
            self.work = counted
        return {what: bool(by_vmap) for what, by_vmap in self._choice.items()}

    def adopt(self, choice: Mapping[str, bool | None]) -> None:
        """Evaluates stacks as ``choice`` says, that of another surface's :meth:`choice`; ``None`` leaves it open.

        Raises:
            ValueError: for anything else than ``losses`` and ``gradients``.
        """
        unknown = sorted(set(choice) - set(self._choice))
        if unknown:
            raise ValueError(f"a choice has the keys {', '.join(self._choice)}, got {', '.join(unknown)}")
        self._choice.update(choice)

    def training_stream(self) -> Iterator[Any]:
        """Training batches without end: one pass over ``training_batches`` after another.

        Raises:
            ValueError: if a pass yields nothing.
        """
        while True:
            empty = True
            for batch in self._training:
                empty = False
                yield batch
            if empty:
                raise ValueError("training_batches is empty: every pass must yield at least one batch")

    def _measure(
        self,
        module: nn.Module,
        loss_fn: LossFunction | None,
        training_loss_fn: LossFunction | None,
        batch_norm: BatchNormMode,
        device: torch.device | str | None,
    ) -> None:
        self._objective = self._descended = Objective(module, loss_fn, batch_norm, device)
        self._training_loss_fn = training_loss_fn
        if training_loss_fn is not None:
            self._descended = Objective(module, training_loss_fn, batch_norm, device)
        self._origin = self._objective.flatten(self._objective.coordinates)

    def _points(self, thetas: Tensor, ndim: int) -> Tensor:
        if thetas.ndim != ndim or thetas.shape[-1] != self.dimension:
            expected = f"({self.dimension},)" if ndim == 1 else f"(K, {self.dimension})"
            raise ValueError(f"expected parameters of shape {expected}, got {tuple(thetas.shape)}")
        return thetas.detach().to(self.device, self._objective.dtype)

    def _resident(self, batches: Iterable[Any], name: str) -> Iterable[Any]:
        if iter(batches) is batches:
            raise ValueError(f"{name} is an iterator and can be read only once: pass list({name}) or a DataLoader")
        if isinstance(batches, list | tuple):
            return [self._objective.to_device(batch) for batch in batches]
        return batches

    def _check_deterministic(self) -> None:
        self._num_batches = sum(1 for _ in self.batches)
        if self._num_batches == 0:
            raise ValueError("batches is empty: E is a mean over at least one batch")
        theta = self._origin
        try:
            first = self._first_loss(theta)
        except Exception as error:
            if self._objective.norms.needs_estimate and "more than 1 value per channel" in str(error):
                raise ValueError(
                    "a batch holds a single value per channel, of which batch norm cannot estimate statistics: give "
                    "batches of at least two examples (drop_last=True), or batch_norm='frozen'"
                ) from error
            if self._objective.loss_fn is not None:
                raise
            raise ValueError(
                f"training_step of {type(self._objective.module).__name__} could not be evaluated in eval mode off its "
                f"trainer ({type(error).__name__}: {error}): pass loss_fn=lambda module, batch: <scalar mean loss>"
            ) from error
        generator = torch.get_rng_state()
        second = self.loss(theta)
        drew = not torch.equal(generator, torch.get_rng_state())
        tolerance = 100 * torch.finfo(torch.float32).eps * max(1e-3, abs(first))
        if abs(first - second) > tolerance:
            if drew:
                cause = (
                    "it draws random numbers, by functional dropout, sampled noise, shuffled or augmented batches: "
                    "switch them off, draw noise from a generator seeded in loss_fn, and pass list(batches)"
                )
            else:
                cause = (
                    "the module keeps something from one call to the next (a hidden state, a memory), or the batches "
                    "change between passes: pass a loss_fn that starts from a clean state, and list(batches)"
                )
            raise ValueError(f"E(theta) was {first:.9g} and then {second:.9g} at the same theta; {cause}")

    def _first_loss(self, theta: Tensor) -> float:
        try:
            return self.loss(theta)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            # A loss that holds derivatives (a physics-informed or an energy model) needs its graph.
            self._needs_grad = True
            return self.loss(theta)


class _Moved:
    """Batches that are read anew in each pass, on the device of an objective."""

    def __init__(self, batches: Iterable[Any], objective: Objective) -> None:
        self._batches = batches
        self._objective = objective

    def __iter__(self) -> Iterator[Any]:
        return map(self._objective.to_device, self._batches)


@contextmanager
def _computing(grad: bool) -> Iterator[None]:
    """Leaves a caller's inference mode (trainer.validate), and sets gradients as asked."""
    with torch.inference_mode(False), torch.set_grad_enabled(grad):
        yield
