"""Which layers and functions the bound knows, and the operation that each is."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from lightning_landscape.certificates.affine import Affine, Convolution, FrozenNorm, Linear
from lightning_landscape.certificates.maximum import LeakyReLU, MaxPool
from lightning_landscape.certificates.operation import Operation, UnsupportedError
from lightning_landscape.certificates.rearranging import Averaging, Combination
from lightning_landscape.certificates.smooth import GELU, SIGMOID, SILU, SOFTPLUS, TANH, Curve, Smooth

_WITH_WEIGHTS: dict[type[nn.Module], type[Affine]] = {
    nn.Linear: Linear,
    nn.Conv1d: Convolution,
    nn.Conv2d: Convolution,
    nn.BatchNorm1d: FrozenNorm,
    nn.BatchNorm2d: FrozenNorm,
}
_CURVES: dict[Any, Curve] = {
    nn.Tanh: TANH,
    torch.tanh: TANH,
    functional.tanh: TANH,
    "tanh": TANH,
    nn.Sigmoid: SIGMOID,
    torch.sigmoid: SIGMOID,
    functional.sigmoid: SIGMOID,
    "sigmoid": SIGMOID,
    nn.SiLU: SILU,
    functional.silu: SILU,
}
_RELU = (nn.ReLU, functional.relu, functional.relu_, torch.relu, torch.relu_, "relu", "relu_")
_MOVES = ("view", "reshape", "flatten", "contiguous", "squeeze", "unsqueeze")
_FUNCTION_MOVES = {torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze}
_IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
_DROPOUTS = {functional.dropout, functional.dropout1d, functional.dropout2d}


def of_layer(layer: nn.Module, names: Mapping[int, str]) -> Operation:
    """The operation of a layer of torch.nn.

    Args:
        layer: the layer, in eval mode.
        names: names of the trainable parameters by ``id``.

    Raises:
        UnsupportedError: for any other layer, and for one with hooks.
    """
    if layer._forward_hooks or layer._forward_pre_hooks:
        raise UnsupportedError("it has forward hooks, which may change anything")
    kind = type(layer)
    if kind in _WITH_WEIGHTS:
        own = {key: names[id(value)] for key, value in layer.named_parameters() if id(value) in names}
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training:
            raise UnsupportedError("it normalises by the batch")
        return _WITH_WEIGHTS[kind](layer, own)
    if kind in _IDENTITIES:
        return Averaging(_same, 1)
    if isinstance(layer, nn.Flatten) and kind is nn.Flatten:
        return Averaging(lambda h: h.flatten(layer.start_dim, layer.end_dim), 1)
    if isinstance(layer, nn.LeakyReLU) and kind is nn.LeakyReLU:
        return LeakyReLU(layer.negative_slope)
    if isinstance(layer, nn.GELU) and kind is nn.GELU:
        return _gelu(layer.approximate)
    if isinstance(layer, nn.Softplus) and kind is nn.Softplus:
        return _softplus(layer.beta)
    if isinstance(layer, nn.MaxPool1d | nn.MaxPool2d) and kind in (nn.MaxPool1d, nn.MaxPool2d):
        if layer.ceil_mode or layer.return_indices:
            raise UnsupportedError("it has ceil_mode or return_indices")
        dims = 1 if kind is nn.MaxPool1d else 2
        return _max_pool(dims, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    if isinstance(layer, nn.AvgPool1d | nn.AvgPool2d | nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d) and kind in (
        nn.AvgPool1d,
        nn.AvgPool2d,
        nn.AdaptiveAvgPool1d,
        nn.AdaptiveAvgPool2d,
    ):
        if getattr(layer, "divisor_override", None) is not None:
            raise UnsupportedError("it has divisor_override")
        return Averaging(layer.forward, _MANY)
    return _plain(kind)


def of_function(target: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Operation, list[fx.Node]]:
    """The operation of a call in a forward, and the values it takes.

    Args:
        target: the function, or the name of a method.
        arguments, options: as they stand in the graph; what is computed is a node.

    Raises:
        UnsupportedError: for any other function.
    """
    if target in (torch.add, operator.add, operator.iadd, torch.sub, operator.sub, "add", "add_", "sub"):
        return _sum(1.0 if "add" in getattr(target, "__name__", target) else -1.0, arguments, options)
    if target in (torch.mul, operator.mul, "mul", operator.truediv, torch.div, "div"):
        return _product(target, arguments, options)
    first, rest = arguments[0] if arguments else None, arguments[1:]
    if not isinstance(first, fx.Node) or any(isinstance(value, fx.Node) for value in options.values()):
        raise UnsupportedError("it is called in a way that the bound does not know")
    if target in _FUNCTION_MOVES or (isinstance(target, str) and target in _MOVES):
        if not all(is_size(value) for value in rest if isinstance(value, fx.Node)):
            raise UnsupportedError("it takes a second tensor")
        return Averaging(_moved(target, rest, options), 1), [first]
    if any(isinstance(value, fx.Node) for value in rest):
        raise UnsupportedError("it takes a second tensor")
    if target in _DROPOUTS:
        if options.get("training", rest[1] if len(rest) > 1 else True):
            raise UnsupportedError("it drops units in eval mode too: give it training=self.training")
        return Averaging(_same, 1), [first]
    if target in (functional.leaky_relu, "leaky_relu"):
        return LeakyReLU(float(options.get("negative_slope", rest[0] if rest else 0.01))), [first]
    if target is functional.gelu:
        return _gelu(options.get("approximate", rest[0] if rest else "none")), [first]
    if target in (functional.max_pool1d, functional.max_pool2d, torch.max_pool1d, torch.max_pool2d):
        return _called_max_pool(1 if "1d" in target.__name__ else 2, rest, options), [first]
    if target in (functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d):
        return Averaging(lambda h: target(h, *rest, **options), _MANY), [first]
    if target in (torch.mean, "mean"):
        call = target if callable(target) else torch.mean
        dims = options.get("dim", rest[0] if rest else None)
        if dims is None or any(dim == 0 for dim in (dims if isinstance(dims, list | tuple) else [dims])):
            raise UnsupportedError("it averages over the examples")
        return Averaging(lambda h: call(h, *rest, **options), _MANY), [first]
    return _plain(target), [first]


def is_size(node: fx.Node) -> bool:
    """Whether a value of a graph is a shape, or the number of examples, and so the same at every point."""
    if node.op == "call_method" and node.target == "size":
        return bool(node.args[1:] == (0,) or node.kwargs == {"dim": 0})
    if node.op == "call_function" and node.target is getattr:
        return bool(node.args[1] == "shape")
    if node.op == "call_function" and node.target is operator.getitem and isinstance(node.args[0], fx.Node):
        return bool(node.args[1] == 0) and is_size(node.args[0])
    return False


_MANY = 2**20  # places that one average is made of, at most


def _plain(kind: Any) -> Operation:
    if kind in _RELU:
        return LeakyReLU()
    if kind in _CURVES:
        return Smooth(_CURVES[kind])
    raise UnsupportedError("the bound has no rule for it")


def _same(h: Tensor) -> Tensor:
    return h


def _gelu(approximate: str) -> Operation:
    if approximate != "none":
        raise UnsupportedError(f"approximate={approximate!r}")
    return Smooth(GELU)


def _softplus(beta: float) -> Operation:
    if beta != 1:
        raise UnsupportedError(f"beta={beta}")
    return Smooth(SOFTPLUS)


def _max_pool(dims: int, size: Any, stride: Any, padding: Any, dilation: Any) -> Operation:
    def each(value: Any) -> tuple[int, ...]:
        numbers = tuple(value) if isinstance(value, list | tuple) else (value,) * dims
        return numbers * dims if len(numbers) < dims else numbers

    if set(each(dilation)) != {1}:
        raise UnsupportedError(f"dilation={dilation}")
    return MaxPool(each(size), each(size if stride is None else stride), each(padding))


def _called_max_pool(dims: int, rest: tuple[Any, ...], options: Mapping[str, Any]) -> Operation:
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    given = {**dict(zip(names, rest, strict=False)), **options}
    if given.get("ceil_mode") or given.get("return_indices"):
        raise UnsupportedError("it has ceil_mode or return_indices")
    return _max_pool(dims, given["kernel_size"], given.get("stride"), given.get("padding", 0), given.get("dilation", 1))


def _moved(target: Any, rest: tuple[Any, ...], options: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    def run(h: Tensor) -> Tensor:
        # A size of the input, as in h.view(h.size(0), -1), stands in the graph: it is that of the examples.
        shape = fx.node.map_arg(rest, lambda _: len(h))
        moved: Tensor = (
            getattr(h, target)(*shape, **options) if isinstance(target, str) else target(h, *shape, **options)
        )
        if len(moved) != len(h):
            raise UnsupportedError("it moves the axis of the examples")
        return moved

    return run


def _sum(sign: float, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Operation, list[fx.Node]]:
    sign *= float(options.get("alpha", 1))
    if set(options) - {"alpha"} or len(arguments) != 2:
        raise UnsupportedError("it is called in a way that the bound does not know")
    left, right = arguments
    if isinstance(left, fx.Node) and isinstance(right, fx.Node):
        return Combination([1.0, sign]), [left, right]
    if isinstance(left, fx.Node):
        return Combination([1.0], sign * float(right)), [left]
    return Combination([sign], float(left)), [right]


def _product(target: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Operation, list[fx.Node]]:
    nodes = [value for value in arguments if isinstance(value, fx.Node)]
    divides = "div" in getattr(target, "__name__", target)
    if options or len(arguments) != 2 or len(nodes) != 1 or (divides and nodes[0] is not arguments[0]):
        raise UnsupportedError("it is no product of a tensor with a fixed number")
    (factor,) = (float(value) for value in arguments if not isinstance(value, fx.Node))
    return Combination([1 / factor if divides else factor]), nodes
