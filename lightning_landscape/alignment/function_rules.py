"""Rules of functions and methods on tensors: entry by entry, reductions and contractions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_landscape.alignment.axes import Axis, fix, fixed, flatten, free, keep_blocks, length, reshape, unify
from lightning_landscape.alignment.rules import Labelled, UnknownOperationError, function_rule, labelled


def broadcast(*operands: Sequence[Axis]) -> list[Axis]:
    """Axes of an elementwise operation: aligned from the last, those of one entry stretch."""
    result: list[Axis] = []
    for place in range(1, max(map(len, operands)) + 1):
        axes = [axes[-place] for axes in operands if len(axes) >= place]
        size = max(map(length, axes))
        full = [axis for axis in axes if length(axis) == size]
        for axis in full[1:]:
            unify(full[0], axis)
        result.insert(0, full[0])
    return result


@function_rule(
    *("add", "sub", "mul", "div", "truediv", "floordiv", "remainder", "mod", "pow", "rsub", "neg", "abs", "sign"),
    *("exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "square", "reciprocal", "sin", "cos", "tan", "atan", "erf"),
    *("floor", "ceil", "round", "clamp", "clip", "clamp_min", "clamp_max", "maximum", "minimum", "where", "lerp"),
    *("masked_fill", "addcmul", "addcdiv", "eq", "ne", "lt", "le", "gt", "ge", "isnan", "isfinite", "nan_to_num"),
    *("logical_and", "logical_or", "logical_not", "positive", "multiply", "divide", "subtract", "true_divide"),
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "tanh", "softplus"),
    *("softsign", "hardtanh", "hardswish", "hardsigmoid", "logsigmoid", "tanhshrink", "hardshrink", "softshrink"),
    *("threshold", "softmax", "log_softmax", "softmin", "normalize", "dropout", "dropout1d", "dropout2d", "dropout3d"),
    *("alpha_dropout", "feature_alpha_dropout", "contiguous", "clone", "detach", "to", "float", "double", "half"),
    *("bfloat16", "type", "cpu", "cuda"),
)
def elementwise(result: Tensor, *args: Any, **kwargs: Any) -> list[Axis]:
    """Entry by entry, or symmetric in the entries of each axis as softmax is."""
    return broadcast(*(tensor.axes for tensor in labelled([args, kwargs])))


@function_rule("type_as")
def like_first(result: Tensor, input: Labelled, *args: Any, **kwargs: Any) -> list[Axis]:
    """As the first operand; of the others only dtype or device counts."""
    return list(input.axes)


@function_rule("prelu")
def prelu(result: Tensor, input: Labelled, weight: Labelled) -> list[Axis]:
    """One slope for all channels, or one for each."""
    if weight.value.numel() > 1:
        unify(weight.axes[0], input.axes[1])
    return list(input.axes)


@function_rule("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "zeros", "ones", "full")
def constant(result: Tensor, *args: Any, **kwargs: Any) -> list[Axis]:
    """All entries alike: any permutation leaves it as it is."""
    return [free(size) for size in result.shape]


@function_rule("mean", "sum", "amax", "amin", "var", "std", "prod", "logsumexp", "all", "any")
def reduction(result: Any, input: Labelled, dim: Any = None, *args: Any, **kwargs: Any) -> list[Axis]:
    """Symmetric in the entries of the axes that go."""
    dims = kwargs.get("axis", dim)
    if dims is None or isinstance(dims, bool):  # var(unbiased)
        dims = range(input.ndim)
    gone = {axis % input.ndim for axis in ([dims] if isinstance(dims, int) else dims)}
    if result.ndim == input.ndim:
        return [fixed(1) if axis in gone else kept for axis, kept in enumerate(input.axes)]
    return [kept for axis, kept in enumerate(input.axes) if axis not in gone]


@function_rule("norm", "vector_norm")
def norm(result: Tensor, input: Labelled, p: Any = 2, dim: Any = None, *args: Any, **kwargs: Any) -> list[Axis]:
    """A reduction whose order comes before its axes."""
    return reduction(result, input, dim)


@function_rule("argmax", "argmin", "cumsum", "cumprod", "flip", "logcumsumexp")
def positional(result: Tensor, input: Labelled, dim: Any, *args: Any, **kwargs: Any) -> list[Axis]:
    """Depends on the order of the entries along some axes, which are fixed."""
    for axis in [dim] if isinstance(dim, int) else dim:
        fix(input.axes[axis])
    return list(input.axes) if result.ndim == input.ndim else reduction(result, input, dim)


@function_rule("matmul", "bmm", "mm", "mv", "dot")
def matmul(result: Tensor, input: Labelled, other: Labelled) -> list[Axis]:
    """Contracts the last axis of the first with the last but one of the second."""
    left, right = list(input.axes), list(other.axes)
    unify(left.pop(), right.pop(max(0, len(right) - 2)))
    rows = [left.pop()] if left else []
    columns = [right.pop()] if right else []
    batch = broadcast(left, right) if left or right else []
    return [*batch, *rows, *columns]


@function_rule("einsum")
def einsum(result: Tensor, equation: str, *operands: Any) -> list[Axis]:
    """All axes of one letter are one."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    tensors = labelled(operands)
    if not arrow or not re.fullmatch("[A-Za-z,]*", inputs):
        raise UnknownOperationError("an einsum without '->', or with '...'")
    letters: dict[str, Axis] = {}
    for subscripts, tensor in zip(inputs.split(","), tensors, strict=True):
        for letter, axis in zip(subscripts, tensor.axes, strict=True):
            unify(letters.setdefault(letter, axis), axis)
    return [letters[letter] for letter in output]


@function_rule("linear")
def linear(result: Tensor, input: Labelled, weight: Labelled, bias: Labelled | None = None) -> list[Axis]:
    """Contracts the last axis with the columns of the weight (out, in)."""
    unify(input.axes[-1], weight.axes[-1])
    if bias is not None and weight.ndim > 1:
        unify(bias.axes[-1], weight.axes[0])
    return [*input.axes[:-1], *weight.axes[:-1]]


@function_rule("embedding")
def embedding(result: Tensor, input: Labelled, weight: Labelled, *args: Any, **kwargs: Any) -> list[Axis]:
    """Rows of the weight (words, features) by their index: the words are fixed."""
    input.fix()
    fix(weight.axes[0])
    return [*input.axes, weight.axes[1]]


@function_rule("scaled_dot_product_attention")
def attention(
    result: Tensor,
    query: Labelled,
    key: Labelled,
    value: Labelled,
    attn_mask: Labelled | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> list[Axis]:
    """softmax(q k^T) v: features of query and key are one axis, keys and values lie at the same places."""
    if enable_gqa:
        raise UnknownOperationError("attention with enable_gqa")
    unify(query.axes[-1], key.axes[-1])
    unify(key.axes[-2], value.axes[-2])
    scores = [*broadcast(query.axes[:-2], key.axes[:-2], value.axes[:-2]), query.axes[-2], key.axes[-2]]
    if attn_mask is not None:
        broadcast(scores, attn_mask.axes)
    if is_causal:
        fix(scores[-1])
        fix(scores[-2])
    return [*scores[:-1], value.axes[-1]]


def convolution(
    result: Tensor, input: Labelled, weight: Labelled, bias: Labelled | None = None, *args: Any, **kwargs: Any
) -> list[Axis]:
    """Contracts channels with a weight (out, in / groups, ...).

    Channels are numbered (group, channel within the group). Groups move as wholes, and the channels of all
    groups alike; without groups or depthwise, that is any permutation of the channels.
    """
    dims = weight.ndim - 2
    channels, outputs = input.axes[-dims - 1], weight.axes[0]
    groups = length(channels) // length(weight.axes[1])
    group, inner = reshape([channels], [groups, length(channels) // groups])
    unify(inner, weight.axes[1])
    unify(group, reshape([outputs], [groups, length(outputs) // groups])[0])
    return _convolved(result, input, weight, bias, outputs)


def transposed_convolution(
    result: Tensor, input: Labelled, weight: Labelled, bias: Labelled | None = None, *args: Any, **kwargs: Any
) -> list[Axis]:
    """Contracts channels with a weight (in, out / groups, ...); groups as in :func:`convolution`."""
    dims = weight.ndim - 2
    unify(input.axes[-dims - 1], weight.axes[0])
    groups = result.shape[-dims - 1] // length(weight.axes[1])
    group, _ = reshape([weight.axes[0]], [groups, length(weight.axes[0]) // groups])
    return _convolved(result, input, weight, bias, flatten([group, weight.axes[1]]))


def _convolved(result: Tensor, input: Labelled, weight: Labelled, bias: Labelled | None, outputs: Axis) -> list[Axis]:
    dims = weight.ndim - 2
    for axis in (*input.axes[-dims:], *weight.axes[-dims:]):
        fix(axis)
    if bias is not None:
        unify(bias.axes[0], outputs)
    return [*input.axes[: -dims - 1], outputs, *map(fixed, result.shape[-dims:])]


for _dims in (1, 2, 3):
    function_rule(f"conv{_dims}d")(convolution)
    function_rule(f"conv_transpose{_dims}d")(transposed_convolution)


@function_rule("batch_norm", "instance_norm")
def channel_norm(
    result: Tensor,
    input: Labelled,
    running_mean: Labelled | None = None,
    running_var: Labelled | None = None,
    weight: Labelled | None = None,
    bias: Labelled | None = None,
    *args: Any,
    **kwargs: Any,
) -> list[Axis]:
    """Each channel, axis 1, by itself."""
    _per_channel(input, running_mean, running_var, weight, bias)
    return list(input.axes)


@function_rule("layer_norm", "rms_norm")
def layer_norm(
    result: Tensor,
    input: Labelled,
    normalized_shape: Sequence[int],
    weight: Labelled | None = None,
    bias: Labelled | None = None,
    eps: float | None = None,
) -> list[Axis]:
    """Symmetric in the entries of the last axes."""
    for scale in labelled([weight, bias]):
        for axis, other in zip(input.axes[-scale.ndim :], scale.axes, strict=True):
            unify(axis, other)
    return list(input.axes)


@function_rule("group_norm")
def group_norm(
    result: Tensor,
    input: Labelled,
    num_groups: int,
    weight: Labelled | None = None,
    bias: Labelled | None = None,
    eps: float = 1e-5,
) -> list[Axis]:
    """Symmetric in the channels of a group, and in the groups: all permutations that keep groups together."""
    _per_channel(input, weight, bias)
    keep_blocks(input.axes[1], input.shape[1] // num_groups)
    return list(input.axes)


def _per_channel(input: Labelled, *tensors: Labelled | None) -> None:
    for tensor in labelled(tensors):
        unify(input.axes[1], tensor.axes[0])
