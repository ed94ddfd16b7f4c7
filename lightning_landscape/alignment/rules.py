"""The register of rules: how each function and layer carries the types of axes from what goes in to what comes out.

A rule is called as the operation itself is, with a :class:`Labelled` tensor in the place of each tensor,
after the operation's concrete result. It unifies the axes that have to permute alike and returns the axes
of the result; of an operation with several results, the labelled results themselves.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

from lightning_landscape.alignment.axes import Axis, fix, fixed, unify

Rule = Callable[..., Any]
AnyRule = TypeVar("AnyRule", bound=Rule)

FUNCTIONS: dict[Any, Rule] = {}  # by the function, or by a method's name
LAYERS: dict[type[nn.Module], Rule] = {}  # by the exact class: a subclass may compute something else

_NAMESPACES = (torch, nn.functional, torch.linalg, operator, rnn)


class UnknownOperationError(Exception):
    """No rule covers what an operation does; the message says what it does."""


class Labelled:
    """A tensor of the traced network and the type of each of its axes.

    Attributes:
        value: the concrete tensor, computed from the example input.
        axes: one type per axis.
    """

    def __init__(self, value: Tensor, axes: Sequence[Axis]) -> None:
        self.value = value
        self._axes = tuple(axes)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """One type per axis."""
        return self._axes

    @property
    def shape(self) -> torch.Size:
        """Shape of the concrete tensor."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.value.ndim

    def fix(self) -> None:
        """Keeps every entry of the tensor where it is."""
        for axis in self.axes:
            fix(axis)


class Packed(Labelled):
    """A packed sequence: its data (places, features), and what says which place is whose.

    Args:
        value: the concrete sequence.
        axes: types of the axes of its data.
    """

    value: rnn.PackedSequence  # type: ignore[assignment]

    def __init__(self, value: rnn.PackedSequence, axes: Sequence[Axis]) -> None:
        super().__init__(value.data, axes)
        self.value = value

    @property
    def shape(self) -> torch.Size:
        """Shape of the data."""
        return self.value.data.shape

    @property
    def ndim(self) -> int:
        """Number of axes of the data."""
        return self.value.data.ndim


class States(Labelled):
    """The final states of a recurrent layer, (layers, batch, hidden): each layer's units have a type of their own.

    Whoever uses them as one tensor makes the layers permute alike; an integer index picks a layer.

    Args:
        value: the concrete tensor.
        layers: type of the hidden units, for each entry of the first axis.
    """

    def __init__(self, value: Tensor, layers: Sequence[Axis]) -> None:
        super().__init__(value, ())
        self.layers = tuple(layers)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """One type per axis, after all layers are made to permute alike."""
        for layer in self.layers[1:]:
            unify(self.layers[0], layer)
        return (*map(fixed, self.shape[:-1]), self.layers[0])


def as_fixed(value: Any) -> Any:
    """What an operation returns, its tensors labelled as staying where they are."""
    if isinstance(value, rnn.PackedSequence):
        return Packed(value, [fixed(size) for size in value.data.shape])
    if isinstance(value, Tensor):
        return Labelled(value, [fixed(size) for size in value.shape])
    if isinstance(value, dict):
        return {key: as_fixed(item) for key, item in value.items()}
    return alike(value, [as_fixed(item) for item in value]) if isinstance(value, list | tuple) else value


def alike(value: Any, items: Sequence[Any]) -> Any:
    """The items in a list or tuple of the kind of ``value``, whose names of fields stay."""
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def labelled(value: Any) -> list[Labelled]:
    """The labelled tensors in nested arguments."""
    if isinstance(value, Labelled):
        return [value]
    if isinstance(value, slice):
        value = (value.start, value.stop, value.step)
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for item in value for tensor in labelled(item)] if isinstance(value, list | tuple) else []


def function_rule(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Registers a rule for the functions of torch, torch.nn.functional and operator, and the methods, of these names.

    The variants that work in place, ``add_`` and ``iadd``, come along.
    """

    def register(rule: AnyRule) -> AnyRule:
        for name in names:
            for variant in (name, f"{name}_", f"i{name}"):
                FUNCTIONS[variant] = rule
                for namespace in _NAMESPACES:
                    if callable(function := getattr(namespace, variant, None)):
                        FUNCTIONS[function] = rule
        return rule

    return register


def layer_rule(*classes: type[nn.Module]) -> Callable[[AnyRule], AnyRule]:
    """Registers a rule for layers; after the result it gets the layer, and its parameters and buffers by name."""

    def register(rule: AnyRule) -> AnyRule:
        LAYERS.update(dict.fromkeys(classes, rule))
        return rule

    return register
