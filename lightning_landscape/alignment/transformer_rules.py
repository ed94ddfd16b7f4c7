"""Rules of the transformer layers of torch.nn: attention and dense blocks around one stream of features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lightning_landscape.alignment import function_rules as functions
from lightning_landscape.alignment.axes import Axis, fix, unify
from lightning_landscape.alignment.layer_rules import multihead_attention
from lightning_landscape.alignment.rules import (
    FUNCTIONS,
    LAYERS,
    Labelled,
    UnknownOperationError,
    labelled,
    layer_rule,
)

Weights = Mapping[str, Labelled]


@layer_rule(nn.TransformerEncoderLayer)
def encoder_layer(
    result: Tensor,
    layer: nn.TransformerEncoderLayer,
    weights: Weights,
    src: Labelled,
    src_mask: Labelled | None = None,
    src_key_padding_mask: Labelled | None = None,
    is_causal: bool = False,
) -> list[Axis]:
    """Attention of the stream to itself, and a dense block; both are added to the stream."""
    _attend("self_attn", layer, weights, src, src, src_mask, src_key_padding_mask)
    _dense(layer, weights, src)
    return list(src.axes)


@layer_rule(nn.TransformerDecoderLayer)
def decoder_layer(
    result: Tensor,
    layer: nn.TransformerDecoderLayer,
    weights: Weights,
    tgt: Labelled,
    memory: Labelled,
    tgt_mask: Labelled | None = None,
    memory_mask: Labelled | None = None,
    tgt_key_padding_mask: Labelled | None = None,
    memory_key_padding_mask: Labelled | None = None,
    tgt_is_causal: bool = False,
    memory_is_causal: bool = False,
) -> list[Axis]:
    """As an encoder layer, with attention to what the encoder remembers in between."""
    _attend("self_attn", layer, weights, tgt, tgt, tgt_mask, tgt_key_padding_mask)
    _attend("multihead_attn", layer, weights, tgt, memory, memory_mask, memory_key_padding_mask)
    _dense(layer, weights, tgt)
    return list(tgt.axes)


@layer_rule(nn.TransformerEncoder)
def encoder(
    result: Tensor,
    stack: nn.TransformerEncoder,
    weights: Weights,
    src: Labelled,
    mask: Labelled | None = None,
    src_key_padding_mask: Labelled | None = None,
    is_causal: bool | None = None,
) -> list[Axis]:
    """Layers one after another on one stream."""
    for number, layer in enumerate(stack.layers):
        _require(layer, nn.TransformerEncoderLayer)
        encoder_layer(result, layer, _below(f"layers.{number}", weights), src, mask, src_key_padding_mask)
    _normalise("norm", stack, weights, src)
    return list(src.axes)


@layer_rule(nn.TransformerDecoder)
def decoder(
    result: Tensor,
    stack: nn.TransformerDecoder,
    weights: Weights,
    tgt: Labelled,
    memory: Labelled,
    tgt_mask: Labelled | None = None,
    memory_mask: Labelled | None = None,
    tgt_key_padding_mask: Labelled | None = None,
    memory_key_padding_mask: Labelled | None = None,
    tgt_is_causal: bool | None = None,
    memory_is_causal: bool = False,
) -> list[Axis]:
    """Layers one after another on one stream, which attend to one memory."""
    masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
    for number, layer in enumerate(stack.layers):
        _require(layer, nn.TransformerDecoderLayer)
        decoder_layer(result, layer, _below(f"layers.{number}", weights), tgt, memory, *masks)
    _normalise("norm", stack, weights, tgt)
    return list(tgt.axes)


@layer_rule(nn.Transformer)
def transformer(
    result: Tensor,
    whole: nn.Transformer,
    weights: Weights,
    src: Labelled,
    tgt: Labelled,
    src_mask: Labelled | None = None,
    tgt_mask: Labelled | None = None,
    memory_mask: Labelled | None = None,
    src_key_padding_mask: Labelled | None = None,
    tgt_key_padding_mask: Labelled | None = None,
    memory_key_padding_mask: Labelled | None = None,
    src_is_causal: bool | None = None,
    tgt_is_causal: bool | None = None,
    memory_is_causal: bool = False,
) -> list[Axis]:
    """The encoder's stream is the memory of the decoder."""
    _require(whole.encoder, nn.TransformerEncoder)
    _require(whole.decoder, nn.TransformerDecoder)
    encoder(result, whole.encoder, _below("encoder", weights), src, src_mask, src_key_padding_mask)
    masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
    return decoder(result, whole.decoder, _below("decoder", weights), tgt, src, *masks)


def _attend(
    name: str,
    layer: nn.Module,
    weights: Weights,
    stream: Labelled,
    memory: Labelled,
    mask: Labelled | None,
    padding: Labelled | None,
) -> None:
    attention = layer.get_submodule(name)
    _require(attention, nn.MultiheadAttention)
    answer, _ = multihead_attention(
        (stream.value, None), attention, _below(name, weights), stream, memory, memory, padding, False, mask  # type: ignore[arg-type]
    )  # fmt: skip
    functions.broadcast(stream.axes, answer.axes)


def _dense(layer: nn.Module, weights: Weights, stream: Labelled) -> None:
    """The units between both linear maps permute where the activation takes each by itself."""
    for name in ("linear1", "linear2"):
        _require(layer.get_submodule(name), nn.Linear)
    first, second = weights["linear1.weight"], weights["linear2.weight"]
    units = first.axes[0]
    unify(first.axes[1], stream.axes[-1])
    unify(second.axes[1], units)
    unify(second.axes[0], stream.axes[-1])
    for name, axis in (("linear1.bias", units), ("linear2.bias", stream.axes[-1])):
        if name in weights:
            unify(weights[name].axes[0], axis)
    activation: Any = layer.activation
    known = FUNCTIONS.get(activation) is functions.elementwise or (
        type(activation) in LAYERS and type(activation).__module__ == nn.ReLU.__module__
    )
    own = _below("activation", weights)
    if not known or own:
        fix(units)
        for tensor in labelled(dict(own)):
            tensor.fix()
    for name, _ in layer.named_children():
        if name.startswith("norm"):
            _normalise(name, layer, weights, stream)


def _normalise(name: str, owner: nn.Module, weights: Weights, stream: Labelled) -> None:
    norm = getattr(owner, name)
    if norm is None:
        return
    _require(norm, nn.LayerNorm, nn.RMSNorm)
    own = _below(name, weights)
    functions.layer_norm(stream.value, stream, (), own.get("weight"), own.get("bias"))


def _below(name: str, weights: Weights) -> dict[str, Labelled]:
    return {key.removeprefix(f"{name}."): tensor for key, tensor in weights.items() if key.startswith(f"{name}.")}


def _require(part: nn.Module, *kinds: type[nn.Module]) -> None:
    if type(part) not in kinds:
        raise UnknownOperationError(f"with a {type(part).__name__} where torch.nn has a {kinds[0].__name__}")
