"""Rules of functions and methods that move, merge, cut and join axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_landscape.alignment import axes as algebra
from lightning_landscape.alignment.axes import Axis, fix, fixed, flatten, free, join, length, unify
from lightning_landscape.alignment.function_rules import broadcast
from lightning_landscape.alignment.rules import Labelled, Rule, States, UnknownOperationError, function_rule


@function_rule("reshape", "view", "flatten", "unflatten", "view_as", "reshape_as", "squeeze", "unsqueeze", "ravel")
def reshape(result: Tensor, input: Labelled, *args: Any, **kwargs: Any) -> list[Axis]:
    """Row-major: axes become the factors of one, or one falls into factors."""
    if args and isinstance(args[0], torch.dtype):
        raise UnknownOperationError("a view of the bytes as another dtype")
    return algebra.reshape(input.axes, result.shape)


def _moved(method: Callable[..., Tensor]) -> Rule:
    def rule(result: Tensor, input: Labelled, *args: Any, **kwargs: Any) -> list[Axis]:
        probe = method(torch.empty(tuple(range(input.ndim))), *args, **kwargs)
        return [input.axes[size] for size in probe.shape]

    return rule


for _name in ("transpose", "permute", "swapaxes", "swapdims", "movedim", "moveaxis", "t"):
    function_rule(_name)(_moved(getattr(Tensor, _name)))
for _name in ("T", "mT"):
    function_rule(_name)(_moved(getattr(Tensor, _name).__get__))


@function_rule("expand", "expand_as", "broadcast_to")
def expand(result: Tensor, input: Labelled, *args: Any, **kwargs: Any) -> list[Axis]:
    """Along new axes all entries are alike."""
    return broadcast(input.axes, [free(size) for size in result.shape])


@function_rule("repeat", "tile")
def repeat(result: Tensor, input: Labelled, *args: Any, **kwargs: Any) -> list[Axis]:
    """Copies one after another: an outer factor."""
    axes = [*map(fixed, [1] * (result.ndim - input.ndim)), *input.axes]
    return [flatten([fixed(size // length(axis)), axis]) for size, axis in zip(result.shape, axes, strict=True)]


@function_rule("cat", "concat", "concatenate")
def cat(result: Tensor, tensors: Sequence[Labelled], dim: int = 0, **kwargs: Any) -> list[Axis]:
    """The sum of the joined axes; the others are one."""
    dim = kwargs.get("axis", dim) % result.ndim
    joined = join(tensor.axes[dim] for tensor in tensors)
    rest = broadcast(*([fixed(1) if axis == dim else t for axis, t in enumerate(tensor.axes)] for tensor in tensors))
    return [joined if axis == dim else kept for axis, kept in enumerate(rest)]


@function_rule("stack")
def stack(result: Tensor, tensors: Sequence[Labelled], dim: int = 0) -> list[Axis]:
    """A new axis, in order."""
    axes = broadcast(*(tensor.axes for tensor in tensors))
    axes.insert(dim % result.ndim, fixed(len(tensors)))
    return axes


@function_rule("chunk", "split", "tensor_split", "split_with_sizes")
def chunk(result: Sequence[Tensor], input: Labelled, sizes: Any, dim: int = 0) -> tuple[Labelled, ...]:
    """Consecutive parts of an axis."""
    dim %= input.ndim
    parts = algebra.split(input.axes[dim], [part.shape[dim] for part in result])
    before, after = input.axes[:dim], input.axes[dim + 1 :]
    return tuple(Labelled(value, (*before, axis, *after)) for value, axis in zip(result, parts, strict=True))


@function_rule("unbind")
def unbind(result: Sequence[Tensor], input: Labelled, dim: int = 0) -> tuple[Labelled, ...]:
    """The entries of an axis one by one, in order."""
    return tuple(Labelled(value, select(value, input, dim, 0)) for value in result)


@function_rule("select")
def select(result: Tensor, input: Labelled, dim: int, index: Any) -> list[Axis]:
    """One entry of an axis, which is fixed."""
    fix(input.axes[dim])
    return [kept for axis, kept in enumerate(input.axes) if axis != dim % input.ndim]


@function_rule("getitem")
def getitem(result: Tensor, input: Labelled, index: Any, depends: bool = False) -> list[Axis] | Labelled:
    """Slices cut an axis; a number or a tensor of numbers fixes it, and so do slices that depend on the input."""
    if isinstance(input, States) and isinstance(index, int):
        return Labelled(result, (*map(fixed, result.shape[:-1]), input.layers[index]))
    parts = list(index) if isinstance(index, tuple) else [index]
    tensors = [part for part in parts if isinstance(part, Labelled | list)]
    if len(tensors) > 1 or any(isinstance(part, bool | list) for part in parts):
        raise UnknownOperationError("an index by several tensors, by a list or by a bool")
    if any(isinstance(part, Labelled) and part.value.dtype == torch.bool for part in parts):
        raise UnknownOperationError("an index by a mask")
    taken = sum(part is not None and part is not Ellipsis for part in parts)
    if Ellipsis not in [part for part in parts if not isinstance(part, Labelled)]:
        parts.append(Ellipsis)
    axes: list[Axis] = []
    left = list(input.axes)
    for part in parts:
        if part is Ellipsis:
            axes += [left.pop(0) for _ in range(input.ndim - taken)]
        elif part is None:
            axes.append(fixed(1))
        elif isinstance(part, slice):
            axes.append(_sliced(left.pop(0), part, depends))
        else:
            fix(left.pop(0))
            axes += part.axes if isinstance(part, Labelled) else []
    return axes


def _sliced(axis: Axis, part: slice, depends: bool) -> Axis:
    start, stop, step = part.indices(length(axis))
    if step != 1 or (depends and part != slice(None)):
        fix(axis)
        return fixed(len(range(start, stop, step)))
    sizes = [start, max(stop - start, 0), length(axis) - max(start, stop)]
    if sizes[1] == length(axis):
        return axis
    return algebra.split(axis, [size for size in sizes if size])[1 if start else 0] if sizes[1] else fixed(0)


@function_rule("pad", "constant_pad_nd")
def pad(result: Tensor, input: Labelled, pad: Sequence[int], mode: str = "constant", value: Any = 0) -> list[Axis]:
    """A constant, whose entries are alike, at both ends of the last axes; other modes fix those."""
    axes = list(input.axes)
    for place, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
        if mode == "constant" and min(before, after) >= 0:
            axes[-place] = join([*map(free, filter(None, [before])), axes[-place], *map(free, filter(None, [after]))])
        elif before or after:
            fix(axes[-place])
            axes[-place] = fixed(result.shape[-place])
    return axes


@function_rule("glu")
def glu(result: Tensor, input: Labelled, dim: int = -1) -> list[Axis]:
    """One half of an axis gates the other: both are one."""
    half = free(result.shape[dim])
    unify(input.axes[dim], join([half, half]))
    dim %= input.ndim
    return [half if place == dim else axis for place, axis in enumerate(input.axes)]


def _spatial(dims: int | None) -> Rule:
    def rule(result: Any, input: Labelled, *args: Any, **kwargs: Any) -> list[Axis]:
        if not isinstance(result, Tensor):
            raise UnknownOperationError("pooling that returns indices")
        kept = input.ndim - (input.ndim - 2 if dims is None else dims)
        for axis in input.axes[kept:]:
            fix(axis)
        return [*input.axes[:kept], *map(fixed, result.shape[kept:])]

    return rule


POOLING = {dims: _spatial(dims) for dims in (1, 2, 3)}
RESIZING = _spatial(None)
for _dims, _rule in POOLING.items():
    kinds = ("max_pool", "avg_pool", "lp_pool", "adaptive_max_pool", "adaptive_avg_pool")
    function_rule(*(f"{kind}{_dims}d" for kind in kinds))(_rule)
function_rule("interpolate", "upsample")(RESIZING)
