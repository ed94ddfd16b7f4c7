"""A traced module, run on an example with a type for every axis of every tensor."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric.utilities.apply_func import move_data_to_device
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.nn.parameter import is_lazy
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_leaves

# Imported for the rules that they register.
from lightning_landscape.alignment import layer_rules, shape_rules, transformer_rules, tuple_rules  # noqa: F401
from lightning_landscape.alignment.axes import Axis, fixed, free, is_fixed, length
from lightning_landscape.alignment.rules import (
    FUNCTIONS,
    LAYERS,
    Labelled,
    Packed,
    Rule,
    States,
    UnknownOperationError,
    alike,
    as_fixed,
    labelled,
)
from lightning_landscape.alignment.tracing import place_of, trace
from lightning_landscape.surface.batch_norm import Norms
from lightning_landscape.surface.detached import detached_copy
from lightning_landscape.surface.names import modules_in_eval

# What these return does not depend on the order of entries.
_DESCRIBING = (
    "size",
    "dim",
    "ndimension",
    "numel",
    "nelement",
    "is_floating_point",
    "is_complex",
    "element_size",
    "len",
)


_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD


class LabelledModule:
    """A detached copy of a module in eval mode, the graph of its forward, and a type for every axis.

    Args:
        module: the module, which is only read.
        example_input: what ``forward`` takes: one argument, or a tuple of positional ones.

    Attributes:
        module: the copy.
        graph: of its forward.
        tensors: labelled parameters and buffers, under every name they have.
        nodes: axes of the tensors that the graph's nodes yield, by the node's name, in order.

    Raises:
        ValueError: for a forward that cannot be traced, or cannot be run on the example, and for a layer or
            function without a rule; it is named.
    """

    def __init__(self, module: nn.Module, example_input: Any) -> None:
        self.module = detached_copy(module).eval()
        for name, parameter in self.module.named_parameters():
            if is_lazy(parameter):
                raise ValueError(f"parameter {name!r} is not initialised: run one batch through the module first")
        self._device = next((parameter.device for parameter in self.module.parameters()), torch.device("cpu"))
        self._example = self._arguments(example_input)
        self.graph = trace(self.module, self._example)
        self.tensors = _label_tensors(self.module, module)
        labeller = _Labeller(self.module, self.graph, self.tensors)
        with self.quiet():
            returned = labeller.run(*as_fixed(self._example), enable_io_processing=False)
        self._outputs = labelled(returned)
        for output in self._outputs:
            # A recurrent state is handed back to the module, whose units it permutes with.
            if not isinstance(output, States):
                output.fix()
        for tensor in self.tensors.values():
            if id(tensor) not in labeller.used:
                tensor.fix()
        self.nodes = labeller.nodes

    def run(self, example_input: Any, observe: Callable[[str, Any], None]) -> None:
        """Runs the graph on the copy as it is now; ``observe`` sees each node's name and result."""
        with self.quiet():
            _Observer(self.module, self.graph, observe).run(*self._arguments(example_input), enable_io_processing=False)

    def answers(self) -> list[Tensor]:
        """The tensors that forward returns for the example, without recurrent states, on the copy as it is now."""
        with self.quiet():
            returned = fx.Interpreter(self.module, graph=self.graph).run(*self._example, enable_io_processing=False)
        leaves = tree_leaves(returned, is_leaf=lambda value: isinstance(value, PackedSequence))
        found = [value.data if isinstance(value, PackedSequence) else value for value in leaves]
        tensors = [value for value in found if isinstance(value, Tensor)]
        return [value for value, label in zip(tensors, self._outputs, strict=True) if not isinstance(label, States)]

    def _arguments(self, example_input: Any) -> tuple[Any, ...]:
        several = isinstance(example_input, tuple) and not isinstance(example_input, PackedSequence)
        arguments = example_input if several else (example_input,)
        moved: tuple[Any, ...] = move_data_to_device(arguments, self._device)
        return moved

    def install(self, theta: Tensor) -> None:
        """Writes theta (P,) into the copy's trainable parameters."""
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        chunks = theta.detach().split([parameter.numel() for parameter in parameters])
        with torch.no_grad():
            for parameter, chunk in zip(parameters, chunks, strict=True):
                parameter.copy_(chunk.view_as(parameter))

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Without gradients, and without a trace in the global random state."""
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices):
            yield


def _label_tensors(module: nn.Module, original: nn.Module) -> dict[str, Labelled]:
    """Trainable parameters may permute, and statistics that are re-estimated; what nobody changes stays as it is."""
    estimated = Norms(module, modules_in_eval(original), "recalibrate").layers.values()
    live = {id(buffer) for layer in estimated for buffer in layer.buffers(recurse=False)}
    named: dict[str, Labelled] = {}
    tensors: dict[int, Labelled] = {}
    parameters = module.named_parameters(remove_duplicate=False)
    for name, tensor in [*parameters, *module.named_buffers(remove_duplicate=False)]:
        axis: Callable[[int], Axis] = free if tensor.requires_grad or id(tensor) in live else fixed
        named[name] = tensors.setdefault(id(tensor), Labelled(tensor, [axis(size) for size in tensor.shape]))
    return named


def forward_inputs(module: nn.Module, batch: Any) -> Any:
    """What forward takes of a batch: of a tuple or list, as many first items as forward has required arguments."""
    if not isinstance(batch, tuple | list) or isinstance(batch, PackedSequence):
        return batch
    required = [
        parameter
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.default is parameter.empty and parameter.kind in (_POSITIONAL_ONLY, _POSITIONAL)
    ]
    return tuple(batch[: max(1, len(required))])


class _Labeller(fx.Interpreter):
    """Computes concrete results as the graph says, and the types of their axes by the rules."""

    def __init__(self, module: nn.Module, graph: fx.Graph, tensors: dict[str, Labelled]) -> None:
        super().__init__(module, graph=graph)
        self.extra_traceback = False  # our messages say where
        self.tensors = tensors
        self.used: set[int] = set()
        self.nodes: dict[str, tuple[Axis, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        self._node = n
        try:
            result = super().run_node(n)
        except UnknownOperationError as error:
            what = f" ({error})" if str(error) else ""
            raise ValueError(
                f"no rule says how {place_of(n, self.module)}{what} acts on permuted units: build it from layers of "
                "torch.nn and common functions of torch, or align a module without it"
            ) from None
        except Exception as error:  # whatever a user's forward raises on the example
            raise ValueError(
                f"{place_of(n, self.module)} failed on the example input ({type(error).__name__}: {error}): give "
                "example_input as forward takes it, a tuple for several arguments"
            ) from error
        if isinstance(result, Labelled) and not isinstance(result, States | Packed):
            self.nodes[n.name] = result.axes
        return result

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        tensor = self.tensors.get(target)
        if tensor is None:
            return as_fixed(super().get_attr(target, args, kwargs))
        self.used.add(id(tensor))
        return tensor

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target in (getattr, operator.getitem) and not isinstance(args[0], Labelled):
            return target(*args)  # of a tuple, list or dictionary, which may hold labelled tensors
        if target is getattr and isinstance(args[0], Packed):
            value = getattr(args[0].value, args[1])
            return Labelled(value, args[0].axes) if args[1] == "data" else as_fixed(value)
        if target is getattr:
            value = getattr(args[0].value, args[1])
            return self._label(FUNCTIONS.get(args[1]), value, args[:1], {}) if isinstance(value, Tensor) else value
        result = super().call_function(target, *_concrete(args, kwargs))
        if target is operator.getitem:
            # Another input may slice elsewhere, where the other nodes of its index come from.
            args = (*args, len(self._node.all_input_nodes) > 1)
        return self._label(FUNCTIONS.get(target), result, args, kwargs)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        result = super().call_method(target, *_concrete(args, kwargs))
        if target in _DESCRIBING:
            return result
        return self._label(FUNCTIONS.get(target) if isinstance(args[0], Labelled) else None, result, args, kwargs)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        layer = self.module.get_submodule(target)
        owned = layer.named_parameters(remove_duplicate=False), layer.named_buffers(remove_duplicate=False)
        weights = {name: self.tensors[f"{target}.{name}"] for named in owned for name, _ in named}
        self.used.update(map(id, weights.values()))
        result = super().call_module(target, *_concrete(args, kwargs))
        rule = LAYERS.get(type(layer))
        if rule is None:
            return self._label(None, result, (*args, weights), kwargs)
        return self._label(rule, result, (layer, weights, *args), kwargs)

    def _label(self, rule: Rule | None, result: Any, args: Any, kwargs: Any) -> Any:
        """The result with the types of its axes, by a rule; without one, where nothing that enters permutes."""
        inputs = labelled([args, kwargs])
        if not any(isinstance(value, Tensor) for value in tree_leaves(result)):
            for tensor in inputs:
                tensor.fix()
            return result
        if rule is None:
            if any(not is_fixed(axis) for tensor in inputs for axis in tensor.axes):
                raise UnknownOperationError("")
            return as_fixed(result)
        try:
            axes = rule(result, *args, **kwargs)
        except UnknownOperationError:
            raise
        except Exception as error:  # called or built in a way that the rule does not expect
            raise UnknownOperationError(f"called or built in an unusual way: {error}") from error
        if type(axes) is tuple and isinstance(result, tuple):
            return alike(result, axes)  # whose fields may be asked for by name
        if not isinstance(axes, list):
            return axes
        if not isinstance(result, Tensor) or [length(axis) for axis in axes] != list(result.shape):
            raise UnknownOperationError("shapes that its rule does not expect")
        return Labelled(result, axes)


class _Observer(fx.Interpreter):
    """Runs a graph and shows what each node yields."""

    def __init__(self, module: nn.Module, graph: fx.Graph, observe: Callable[[str, Any], None]) -> None:
        super().__init__(module, graph=graph)
        self.observe = observe

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.observe(n.name, result)
        return result


def _concrete(args: Any, kwargs: Any) -> tuple[Any, Any]:
    return map_aggregate((args, kwargs), lambda value: value.value if isinstance(value, Labelled) else value)
