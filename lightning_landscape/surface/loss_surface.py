"""The loss of a module as a function of one flat parameter vector."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn

from lightning_landscape.surface.batch_norm import BatchNormMode
from lightning_landscape.surface.buffers import compare_with_own_loss, find_running_buffers, state_at
from lightning_landscape.surface.choosing import LEAST, vmap_fault, vmap_suits
from lightning_landscape.surface.determinism import require_one_answer
from lightning_landscape.surface.evaluation import (
    computing,
    gradients_by_loop,
    gradients_by_vmap,
    losses_by_loop,
    losses_by_vmap,
)
from lightning_landscape.surface.matching import matched_state
from lightning_landscape.surface.noise import NoiseMode
from lightning_landscape.surface.objective import LossFunction, Moved, Objective, Settings, StepContext
from lightning_landscape.surface.random_states import isolated_rng
from lightning_landscape.surface.work import Work


class LossSurface:
    """The loss surface ``E(theta) = (1/B) sum_b loss(module(theta), batch_b)``.

    theta holds the trainable parameters alone, tied ones once, in the order of ``named_parameters()``. E is computed
    in eval mode on a detached copy: the module handed in is only read.

    Buffers are no coordinates. Those that are estimates follow theta: statistics of batch and instance norm, the
    singular vectors of spectral norms, and running means and the like of any other layer, which are found by what a
    forward pass in train mode moves. All others have the module's values; :meth:`point` refuses a state whose other
    buffers (pruning masks, codebooks) would give it another loss.

    A loss that draws random numbers draws the same ones at every point: see ``noise``.

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
        batch_norm: ``"recalibrate"`` re-estimates the running statistics of batch and instance norm as cumulative
            averages over ``batches`` at every theta and then evaluates with them; ``"frozen"`` keeps the module's
            statistics; ``"batch"`` normalises by each batch.
        device: device on which E is computed; defaults to the device of the parameters.
        vectorize: evaluate stacks by ``torch.func.vmap`` (``True``) or point by point (``False``). ``None`` chooses
            by a rule on the kind and number of parameters (:mod:`~lightning_landscape.surface.choosing`), which is
            the same on every machine of one kind.
        noise: ``"frozen"``: where the loss draws random numbers, that of batch i draws from a generator state which
            depends on ``(seed, i)`` alone; :meth:`gradients` draw fresh ones. ``"refuse"``: such a loss is an error.
        seed: of these numbers.
        buffers: names of buffers, frozen parameters or plain attributes, with ``*`` and ``?``, that every point takes
            from the module, whatever a state has: they are neither estimated nor compared.
        step_context: makes the context in which the loss is computed, ``trainer.precision_plugin.train_step_context``
            for the loss of a trainer.

    Raises:
        ValueError: for a module without trainable parameters or without a loss, no batches, batches that can be
            iterated only once, a step that needs its trainer, a module or batches that answer differently when asked
            twice, attributes that training moves and no state holds, and a pattern in ``buffers`` that nothing has.

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
        noise: NoiseMode = "frozen",
        seed: int = 0,
        buffers: Sequence[str] = (),
        step_context: StepContext = nullcontext,
    ) -> None:
        if batch_norm not in get_args(BatchNormMode):
            raise ValueError(f"batch_norm must be 'recalibrate', 'frozen' or 'batch', got {batch_norm!r}")
        if noise not in get_args(NoiseMode):
            raise ValueError(f"noise must be 'frozen' or 'refuse', got {noise!r}")
        self.work = Work()
        self._choice: dict[str, bool | None] = dict.fromkeys(("losses", "gradients"), vectorize)
        self._checked = vectorize is False
        with computing(False):
            self._measure(module, loss_fn, training_loss_fn, Settings(batch_norm, device, seed, step_context, buffers))
            self.batches = self._objective.resident(batches, "batches")
            self._training = self.batches
            if training_batches is not None:
                self._training = self._objective.resident(training_batches, "training_batches")
        self._num_batches = sum(1 for _ in self.batches)
        if self._num_batches == 0:
            raise ValueError("batches is empty: E is a mean over at least one batch")
        require_one_answer(self._objective, lambda: self.loss(self._origin), noise)
        with computing(self._objective.needs_grad):
            find_running_buffers(self._objective, self._batches(), self._origin, self.loss)
        self._descended.running.adopt(self._objective.running)
        self.work.forward_passes += 2 * self._num_batches * bool(self._objective.running.candidates)
        self.preparation, self.work = self.work, Work()

    def with_module(self, module: nn.Module) -> Self:
        """The same surface over a fresh copy of ``module``: same batches, loss and choices.

        Buffers and attributes are taken as they are now; nothing is checked again, and work is counted from zero.
        """
        surface = copy.copy(self)
        surface.work = Work()
        with computing(False):
            now = self._objective
            surface._measure(module, now.loss_fn, self._training_loss_fn, now.settings)
        for objective in (surface._objective, surface._descended):
            objective.adopt(now)
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
        return self._num_batches * (1 + self._objective.estimate_passes)

    @property
    def noise(self) -> str:
        """``"frozen"`` where the loss draws random numbers, which are the same at every point, else ``"none"``."""
        return "frozen" if self._objective.noise.drawn else "none"

    @property
    def buffers(self) -> str:
        """``"estimated"`` where E takes some buffers anew at every point, as batch norm's, else ``"kept"``."""
        return "estimated" if self._objective.estimates else "kept"

    @property
    def unknown(self) -> list[str]:
        """Buffers that training moves and the loss depends on, but that cannot be estimated: codebooks, queues."""
        return self._objective.running.unknown

    def point(self, state: Mapping[str, Tensor] | None = None) -> Tensor:
        """The vector (P,) of the module's parameters, or of the named tensors in ``state``.

        Warns:
            UserWarning: where ``state`` holds estimates, or what differs from the module's: if one of E and its own
                loss is larger than twice the other.

        Raises:
            ValueError: if ``state`` is none of the module, or has frozen parameters or buffers that the loss depends on
                and that can be neither estimated nor left out; see ``buffers`` of the class.
        """
        with computing(self._objective.needs_grad):
            if state is None:
                return self._origin.clone()
            state = matched_state(self.module, state, partial=True)
            theta = self._objective.flatten(state)
            work = compare_with_own_loss(self._objective, theta, state, self._batches())
        self.work.forward_passes += work * self._num_batches
        return theta

    def state(self, theta: Tensor) -> dict[str, Any]:
        """All that the module needs to have the loss E(theta), for ``module.load_state_dict``.

        Parameters, trained and frozen, and buffers, the estimates of this point included.

        Args:
            theta: tensor (P,).

        Raises:
            ValueError: if E depends on estimates that ``state_dict`` leaves out (``persistent=False``).
        """
        with computing(self._objective.needs_grad):
            self.work.forward_passes += self._num_batches * self._objective.estimate_passes
            return state_at(self._objective, self._points(theta, 1), self._batches())

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        """The trainable parameters at ``theta`` (P,), by name."""
        stacked = self._objective.stacked(self._points(theta, 1)[None])
        return {name.removeprefix("module."): value[0].clone() for name, value in stacked.items()}

    def loss(self, theta: Tensor) -> float:
        """E(theta) for theta of shape (P,)."""
        return float(self.losses(self._points(theta, 1)[None])[0])

    def losses(self, thetas: Tensor) -> Tensor:
        """E at each row of ``thetas`` (K, P): float64, shape (K,), on the surface's device."""
        thetas = self._points(thetas, 2)
        if len(thetas) == 0:
            return torch.empty(0, dtype=self._objective.wide, device=self.device)
        self.work.evaluate(len(thetas), self.evaluation_passes)
        with computing(self._objective.needs_grad):
            run = losses_by_vmap if self._by_vmap("losses", len(thetas)) else losses_by_loop
            values = run(self._objective, thetas, self._batches(), self._objective.wide)
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
        self.work.step(len(thetas))
        with computing(True):
            batch = self._descended.to_device(batch)
            try:
                run = gradients_by_vmap if self._by_vmap("gradients", len(thetas)) else gradients_by_loop
                losses, gradients = run(self._descended, thetas, batch)
            except RuntimeError as error:
                if "does not require grad" not in str(error):
                    raise
                raise ValueError(
                    "the loss has no gradient to train beads by: pass training_loss_fn=lambda module, batch: "
                    "<scalar mean loss that falls where E does>"
                ) from error
        return losses, gradients

    def choice(self) -> dict[str, bool]:
        """How stacks of points are evaluated: ``losses`` and ``gradients``, each by vmap (True) or point by point.

        Where the rule says vmap, both ways are compared at one point, at the price of two evaluations and two steps,
        which count as ``preparation``; if they disagree, or vmap fails, the loop it is. Another surface, or a resumed
        run, rounds alike when it adopts the choice.

        Raises:
            ValueError: if ``vectorize=True`` was asked for and vmap gives other losses than the loop.

        Example:
            >>> line = nn.Linear(1, 1)
            >>> LossSurface(line, [None], loss_fn=lambda m, _: m.weight.square().sum(), vectorize=False).choice()
            {'losses': False, 'gradients': False}
        """
        if not self._checked:
            asked = any(self._choice.values())
            suits = asked or vmap_suits(self.module, self.dimension, self.device)
            fault: str | None = "the loop is faster"
            if suits:
                with isolated_rng():
                    batch = self._descended.to_device(next(self.training_stream()))
                    fault = vmap_fault(self._objective, self._descended, self._origin, self._batches(), batch)
                self.preparation.forward_passes += 2 * self.evaluation_passes
                self.preparation.step(2)
            if asked and fault:
                raise ValueError(f"vectorize=True does not work for this module: {fault}. Leave it out")
            for what, by_vmap in self._choice.items():
                self._choice[what] = by_vmap if by_vmap is not None else not fault
            self._checked = True
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
        self._checked = None not in self._choice.values()

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

    def _by_vmap(self, what: str, count: int) -> bool:
        return count >= LEAST and self.choice()[what]

    def _batches(self) -> Iterable[Any]:
        return self.batches if isinstance(self.batches, list) else Moved(self.batches, self._objective)

    def _measure(
        self,
        module: nn.Module,
        loss_fn: LossFunction | None,
        training_loss_fn: LossFunction | None,
        settings: Settings,
    ) -> None:
        self._objective = self._descended = Objective(module, loss_fn, settings)
        self._training_loss_fn = training_loss_fn
        if training_loss_fn is not None:
            self._descended = Objective(module, training_loss_fn, settings)
        self._origin = self._objective.flatten(self._objective.coordinates)

    def _points(self, thetas: Tensor, ndim: int) -> Tensor:
        if thetas.ndim != ndim or thetas.shape[-1] != self.dimension:
            expected = f"({self.dimension},)" if ndim == 1 else f"(K, {self.dimension})"
            raise ValueError(f"expected parameters of shape {expected}, got {tuple(thetas.shape)}")
        return thetas.detach().to(self.device, self._objective.dtype)
