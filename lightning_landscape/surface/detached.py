"""A copy of a module that can be run without touching the original, its trainer, loggers or metrics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.overrides import TorchFunctionMode
from torchmetrics import Metric

from lightning_landscape.either_lightning import both

_COMPILED_METHODS = ("forward", "training_step", "validation_step", "test_step", "predict_step")


class DetachedTrainer:
    """Stands in for the trainer of a detached module: the counters of the moment, and nothing else.

    A loss may depend on ``current_epoch`` or ``global_step`` (an annealed weight, say), so that both are
    kept; whatever else a step asks for would act on the user's run, and raises.

    Raises:
        AttributeError: on any other attribute, saying to pass ``loss_fn``.
    """

    global_rank = 0
    local_rank = 0
    is_global_zero = True

    def __init__(self, current_epoch: int = 0, global_step: int = 0) -> None:
        self.logger = DummyLogger()  # drops what a step hands to logger.experiment
        self.loggers = [self.logger]
        self.current_epoch = current_epoch
        self.global_step = global_step

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"the step asks for trainer.{name}, which a module copied off its trainer does not have: "
            "pass loss_fn=lambda module, batch: <scalar mean loss>"
        )


def ignore(*args: Any, **kwargs: Any) -> None:
    """Does nothing and returns ``None``, in place of what would reach beyond a detached module."""


def detached_copy(module: nn.Module) -> nn.Module:
    """Deep copy of a module, off its trainer, uncompiled and with its logging silent.

    The original is only read: no parameter, buffer, gradient, metric state or trainer attribute of it
    changes, whatever is later done with the copy. Tensors with a graph that a step has stored on the
    module, in whatever object or container (a list of losses, say), are copied without their graph.

    Args:
        module: any module; a ``torch.compile`` wrapper is copied as the module it wraps.

    Example:
        >>> original = nn.Linear(2, 1)
        >>> twin = detached_copy(original)
        >>> twin is not original and torch.equal(twin.weight, original.weight)
        True
    """
    if isinstance(module, OptimizedModule):
        module = module._orig_mod
    # Under inference mode (trainer.validate) new tensors could never require a gradient.
    with torch.inference_mode(False), _WithoutGraphs():
        try:
            clone: nn.Module = copy.deepcopy(module)
        except Exception as error:  # whatever the attributes of a user's module raise
            raise ValueError(
                f"{type(module).__name__} cannot be copied ({type(error).__name__}: {error}): keep what cannot be "
                "copied (a lock, an open file) outside of the module, or make it again in __deepcopy__"
            ) from error
    for child in clone.modules():
        for name, grandchild in child.named_children():
            if isinstance(grandchild, OptimizedModule):
                setattr(child, name, grandchild._orig_mod)
    for metric in metrics_of(clone):
        # A step that computes a metric would gather over ranks, which are busy with something else.
        metric.distributed_available_fn = ignore
    source = module if isinstance(module, both(LightningModule)) and module._trainer is not None else None
    counters = (source.current_epoch, source.global_step) if source is not None else (0, 0)
    for child in clone.modules():
        if isinstance(child, both(LightningModule)):
            _silence(child, DetachedTrainer(*counters))
    return clone


def _silence(module: LightningModule, stand_in: DetachedTrainer) -> None:
    if module._compiler_ctx is not None:
        # The compiled methods are attributes of the instance that stay bound to the original module.
        for name in _COMPILED_METHODS:
            module.__dict__.pop(name, None)
        module._compiler_ctx = None
    module._fabric = None
    module._trainer = stand_in  # type: ignore[assignment]
    module.log = ignore  # type: ignore[method-assign]
    module.log_dict = ignore  # type: ignore[method-assign]
    module.print = ignore  # type: ignore[method-assign]


class _WithoutGraphs(TorchFunctionMode):
    """Lets ``copy.deepcopy`` meet tensors with a graph, which it refuses, and copies them without.

    So they are found wherever ``deepcopy`` goes, and no container has to be known here.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) in memo:
            return memo[id(tensor)]
        gradient = tensor.grad if tensor.is_leaf else None
        # The mode is off in here, and on again for what hangs on the tensor. There deepcopy leaves it in the memo.
        with self:
            attributes = copy.deepcopy(vars(tensor), memo)
            copied_gradient = copy.deepcopy(gradient, memo)
        if tensor.grad_fn is None and (gradient is None or gradient.grad_fn is None):
            return func(tensor, memo)
        clone = tensor.detach().clone()
        if tensor.is_leaf:
            clone.requires_grad_(tensor.requires_grad).grad = copied_gradient
        vars(clone).update(attributes)
        memo[id(tensor)] = clone
        return clone


def metrics_of(module: nn.Module) -> list[Metric]:
    """The torchmetrics inside a module: their states grow when steps are run, and have to be reset."""
    return [child for child in module.modules() if isinstance(child, Metric)]
