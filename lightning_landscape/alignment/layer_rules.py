"""Rules of the layers of torch.nn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from lightning_landscape.alignment import function_rules as functions
from lightning_landscape.alignment import shape_rules as shapes
from lightning_landscape.alignment.axes import Axis, fix, fixed, flatten, free, join, unify
from lightning_landscape.alignment.rules import Labelled, Rule, States, labelled, layer_rule

Weights = Mapping[str, Labelled]


def _plain(rule: Callable[..., Any]) -> Rule:
    def of_layer(result: Any, layer: nn.Module, weights: Weights, input: Labelled) -> Any:
        return rule(result, input)

    return of_layer


layer_rule(
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid),
    *(nn.Tanh, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Tanhshrink),
    *(nn.Hardshrink, nn.Softshrink, nn.Threshold, nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d),
    StochasticDepth,
)(_plain(functions.elementwise))
layer_rule(nn.Flatten, nn.Unflatten)(_plain(shapes.reshape))
for _dims, _rule in shapes.POOLING.items():
    for _kind in ("MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool", "LPPool"):
        layer_rule(getattr(nn, f"{_kind}{_dims}d"))(_plain(_rule))
    for _kind in ("ZeroPad", "ConstantPad", "ReflectionPad", "ReplicationPad", "CircularPad"):
        layer_rule(getattr(nn, f"{_kind}{_dims}d"))(_plain(_rule))
layer_rule(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d)(_plain(shapes.RESIZING))


@layer_rule(nn.GLU)
def _glu(result: Tensor, layer: nn.GLU, weights: Weights, input: Labelled) -> list[Axis]:
    return shapes.glu(result, input, layer.dim)


@layer_rule(nn.PReLU)
def _prelu(result: Tensor, layer: nn.PReLU, weights: Weights, input: Labelled) -> list[Axis]:
    return functions.prelu(result, input, weights["weight"])


@layer_rule(nn.Linear)
def _linear(result: Tensor, layer: nn.Linear, weights: Weights, input: Labelled) -> list[Axis]:
    return functions.linear(result, input, **weights)


@layer_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def _convolution(result: Tensor, layer: nn.Module, weights: Weights, input: Labelled) -> list[Axis]:
    return functions.convolution(result, input, **weights)


@layer_rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def _transposed(result: Tensor, layer: nn.Module, weights: Weights, input: Labelled, size: Any = None) -> list[Axis]:
    return functions.transposed_convolution(result, input, **weights)


@layer_rule(
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
def _channel_norm(result: Tensor, layer: nn.Module, weights: Weights, input: Labelled) -> list[Axis]:
    per_channel = {name: tensor for name, tensor in weights.items() if name != "num_batches_tracked"}
    return functions.channel_norm(result, input, **per_channel)


@layer_rule(nn.LayerNorm, nn.RMSNorm)
def _layer_norm(result: Tensor, layer: nn.Module, weights: Weights, input: Labelled) -> list[Axis]:
    return functions.layer_norm(result, input, (), weights.get("weight"), weights.get("bias"))


@layer_rule(nn.GroupNorm)
def _group_norm(result: Tensor, layer: nn.GroupNorm, weights: Weights, input: Labelled) -> list[Axis]:
    return functions.group_norm(result, input, layer.num_groups, weights.get("weight"), weights.get("bias"))


@layer_rule(nn.Embedding)
def _embedding(result: Tensor, layer: nn.Embedding, weights: Weights, input: Labelled) -> list[Axis]:
    return functions.embedding(result, input, weights["weight"])


@layer_rule(nn.LSTM, nn.GRU, nn.RNN)
def _recurrent(
    result: Any, layer: nn.RNNBase, weights: Weights, input: Labelled, hx: Any = None
) -> tuple[Labelled, Labelled | tuple[Labelled, Labelled]]:
    """Each unit owns a row in every gate; its output feeds the recurrent columns and the layer above."""
    gates = {"LSTM": 4, "GRU": 3}.get(layer.mode, 1)
    for tensor in labelled([input, hx]):
        for axis in tensor.axes[:-1]:
            fix(axis)
    inputs, hidden, cells = input.axes[-1], [], []
    for depth in range(layer.num_layers):
        outputs = []
        for suffix in ("", "_reverse")[: 1 + layer.bidirectional]:
            own = {
                name.removesuffix(f"_l{depth}{suffix}"): tensor
                for name, tensor in weights.items()
                if name.endswith(f"_l{depth}{suffix}")
            }
            cell = free(layer.hidden_size)
            output = free(layer.proj_size) if layer.proj_size else cell
            _gated(own, gates, inputs, cell, output)
            if layer.proj_size:
                unify(own["weight_hr"].axes[0], output)
                unify(own["weight_hr"].axes[1], cell)
            outputs.append(output)
            cells.append(cell)
        hidden += outputs
        inputs = join(outputs)
    sequence = type(input)(result[0], (*input.axes[:-1], inputs))
    if layer.mode != "LSTM":
        _start(hx, hidden)
        return sequence, States(result[1], hidden)
    for given, units in zip(hx or (), (hidden, cells), strict=False):
        _start(given, units)
    return sequence, (States(result[1][0], hidden), States(result[1][1], cells))


@layer_rule(nn.LSTMCell, nn.GRUCell, nn.RNNCell)
def _cell(result: Any, layer: nn.RNNCellBase, weights: Weights, input: Labelled, hx: Any = None) -> Any:
    units = free(layer.hidden_size)
    _gated(weights, {nn.LSTMCell: 4, nn.GRUCell: 3}.get(type(layer), 1), input.axes[-1], units, units)
    for state in labelled([hx]):
        unify(state.axes[-1], units)
    axes = (*input.axes[:-1], units)
    return list(axes) if isinstance(result, Tensor) else tuple(Labelled(value, axes) for value in result)


def _gated(weights: Weights, gates: int, inputs: Axis, cell: Axis, output: Axis) -> None:
    for name, columns in (("weight_ih", inputs), ("weight_hh", output), ("bias_ih", None), ("bias_hh", None)):
        if name in weights:
            unify(weights[name].axes[0], flatten([fixed(gates), cell]))
            if columns is not None:
                unify(weights[name].axes[1], columns)


def _start(state: Labelled | None, layers: list[Axis]) -> None:
    if state is None:
        return
    given = state.layers if isinstance(state, States) else [state.axes[-1]] * len(layers)
    for axis, units in zip(given, layers, strict=True):
        unify(axis, units)


@layer_rule(nn.MultiheadAttention)
def multihead_attention(
    result: tuple[Tensor, Tensor | None],
    layer: nn.MultiheadAttention,
    weights: Weights,
    query: Labelled,
    key: Labelled,
    value: Labelled,
    key_padding_mask: Labelled | None = None,
    need_weights: bool = True,
    attn_mask: Labelled | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Labelled, Labelled | None]:
    """Heads permute; within them the features that meet in q k^T, and those of the values, alike in all heads."""
    heads, scored, carried = free(layer.num_heads), free(layer.head_dim), free(layer.head_dim)
    scoring, carrying = flatten([heads, scored]), flatten([heads, carried])
    inputs = {"q": (query, scoring), "k": (key, scoring), "v": (value, carrying)}
    for name, (tensor, rows) in inputs.items():
        for axis in tensor.axes[:-1]:
            fix(axis)
        weight = weights.get(f"{name}_proj_weight")
        if weight is not None:
            unify(weight.axes[0], rows)
            unify(weight.axes[1], tensor.axes[-1])
        else:
            unify(weights["in_proj_weight"].axes[1], tensor.axes[-1])
        if (extra := weights.get(f"bias_{name}")) is not None:
            unify(extra.axes[-1], rows)
    for name in ("in_proj_weight", "in_proj_bias"):
        if name in weights:
            unify(weights[name].axes[0], join([scoring, scoring, carrying]))
    unify(weights["out_proj.weight"].axes[1], carrying)
    if (bias := weights.get("out_proj.bias")) is not None:
        unify(bias.axes[0], weights["out_proj.weight"].axes[0])
    for mask in labelled([key_padding_mask, attn_mask]):
        mask.fix()
        if mask.ndim == 3:
            fix(heads)
    output = Labelled(result[0], (*query.axes[:-1], weights["out_proj.weight"].axes[0]))
    if result[1] is None:
        return output, None
    axes = [fixed(size) for size in result[1].shape]
    if not average_attn_weights:
        axes[-3] = heads
    return output, Labelled(result[1], axes)
