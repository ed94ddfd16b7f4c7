"""The graph of a module's forward by torch.fx, with errors that say which layer it stopped at."""

from __future__ import annotations

import inspect
from typing import Any

from torch import fx, nn
from torch.nn.utils import rnn

from lightning_landscape.alignment.rules import LAYERS

_WHOLE = (rnn.pack_padded_sequence, rnn.pad_packed_sequence)  # their code asks for values, which a trace has not


def trace(module: nn.Module, arguments: tuple[Any, ...]) -> fx.Graph:
    """The graph of ``module.forward`` called with so many positional arguments, the others at their defaults.

    Raises:
        ValueError: if forward cannot be traced, naming the layer.
    """
    tracer = _Tracer()
    parameters = list(inspect.signature(module.forward).parameters.values())
    defaults = {
        parameter.name: parameter.default
        for parameter in parameters[len(arguments) :]
        if parameter.default is not inspect.Parameter.empty
    }
    try:
        return tracer.trace(module, concrete_args=defaults or None)
    except Exception as error:  # whatever a user's forward does with proxies
        where = tracer.failed or f"forward of {type(module).__name__}"
        raise ValueError(
            f"{where} cannot be traced by torch.fx ({type(error).__name__}: {error}). Permutation symmetries are found "
            "from the graph of forward, which must not branch or loop on the values or shapes of tensors: rewrite that "
            "layer without, or align a module that holds the part that can be traced"
        ) from error


def place_of(node: fx.Node, module: nn.Module) -> str:
    """The layer that a node belongs to, for a message."""
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        return f"layer {str(node.target)!r} ({type(layer).__name__})"
    name = getattr(node.target, "__name__", str(node.target))
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path, kind = stack[-1] if stack else ("", type(module))
    owner = getattr(kind, "__name__", str(kind))
    return f"{name}() in forward of layer {path!r} ({owner})" if path else f"{name}() in forward of {owner}"


class _Tracer(fx.Tracer):
    """Stops at the layers that have a rule and at those of torch.nn, and knows where it is when it fails."""

    proxy_buffer_attributes = True

    def __init__(self) -> None:
        super().__init__(autowrap_functions=_WHOLE)
        # Whoever calls them as nn.utils.rnn.pack_padded_sequence finds them there.
        self._autowrap_search.append(rnn)
        self.failed: str | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in LAYERS or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or f"layer {self.path_of_module(m)!r} ({type(m).__name__})"
            raise
