"""Rules of functions that return several tensors: values and their places, moments, packed sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lightning_landscape.alignment.axes import Axis, fix, fixed
from lightning_landscape.alignment.function_rules import broadcast, elementwise, reduction
from lightning_landscape.alignment.rules import Labelled, Packed, UnknownOperationError, function_rule, labelled


@function_rule("max", "min", "median", "nanmedian")
def extremum(result: Any, input: Labelled, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Over all entries; or along one axis, which is fixed because the place of the entry is returned."""
    if "other" in kwargs:
        dim = kwargs["other"]
    if isinstance(dim, Labelled):
        return broadcast(input.axes, dim.axes)
    dim = kwargs.get("axis", dim)
    return [] if dim is None else _reduced(result, input, dim)


@function_rule("mode")
def mode(result: Any, input: Labelled, dim: int = -1, keepdim: bool = False) -> tuple[Labelled, ...]:
    """The most frequent entry along an axis, and its place."""
    return _reduced(result, input, dim)


@function_rule("kthvalue")
def kthvalue(result: Any, input: Labelled, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Labelled, ...]:
    """The k-th entry along an axis, and its place."""
    return _reduced(result, input, dim)


@function_rule("sort", "argsort")
def sort(result: Any, input: Labelled, *args: Any, **kwargs: Any) -> Any:
    """In order along an axis, which is fixed, and the places: ``sort(dim, descending)`` or ``sort(descending=...)``."""
    numbers = [value for value in args if type(value) is int]
    return _ordered(result, input, kwargs.get("dim", numbers[0] if numbers else -1))


@function_rule("topk")
def topk(result: Any, input: Labelled, k: int, dim: int = -1, *args: Any, **kwargs: Any) -> Any:
    """The k largest along an axis, which is fixed, and their places."""
    return _ordered(result, input, dim)


@function_rule("cummax", "cummin")
def running(result: Any, input: Labelled, dim: int) -> Any:
    """The largest so far along an axis, which is fixed, and its place."""
    return _ordered(result, input, dim)


@function_rule("var_mean", "std_mean")
def moments(result: Sequence[Tensor], input: Labelled, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Both symmetric in the entries of the axes that go."""
    return tuple(Labelled(value, reduction(value, input, dim, *args, **kwargs)) for value in result)


@function_rule("aminmax")
def aminmax(result: Sequence[Tensor], input: Labelled, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest and the largest, without their places."""
    return tuple(Labelled(value, reduction(value, input, dim)) for value in result)


@function_rule("frexp")
def frexp(result: Sequence[Tensor], input: Labelled) -> Any:
    """Mantissa and exponent, entry by entry."""
    return tuple(Labelled(value, elementwise(value, input)) for value in result)


@function_rule("broadcast_tensors")
def broadcast_tensors(result: Sequence[Tensor], *tensors: Labelled) -> Any:
    """All of one shape."""
    axes = broadcast(*(tensor.axes for tensor in labelled(tensors)))
    return tuple(Labelled(value, axes) for value in result)


@function_rule("pack_padded_sequence")
def pack(
    result: PackedSequence,
    input: Labelled,
    lengths: Any,
    batch_first: bool = False,
    enforce_sorted: bool = True,
) -> Packed:
    """Places of a sequence one after another; only features permute."""
    for axis in input.axes[:2]:
        fix(axis)
    for given in labelled([lengths]):
        given.fix()
    return Packed(result, (fixed(len(result.data)), *input.axes[2:]))


@function_rule("pad_packed_sequence")
def unpack(
    result: tuple[Tensor, Tensor],
    sequence: Packed,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Labelled, Labelled]:
    """The sequence padded with one value, and its lengths."""
    padded, lengths = result
    return (
        Labelled(padded, (*map(fixed, padded.shape[:2]), *sequence.axes[1:])),
        Labelled(lengths, [fixed(len(lengths))]),
    )


def _reduced(result: Any, input: Labelled, dim: int) -> tuple[Labelled, ...]:
    if not isinstance(dim, int):
        raise UnknownOperationError(f"along dim={dim!r}")
    fix(input.axes[dim])
    return tuple(Labelled(value, reduction(value, input, dim)) for value in result)


def _ordered(result: Any, input: Labelled, dim: int) -> list[Axis] | tuple[Labelled, ...]:
    fix(input.axes[dim])
    place = dim % input.ndim

    def axes(value: Tensor) -> list[Axis]:
        return [fixed(value.shape[place]) if axis == place else kept for axis, kept in enumerate(input.axes)]

    return axes(result) if isinstance(result, Tensor) else tuple(Labelled(value, axes(value)) for value in result)
