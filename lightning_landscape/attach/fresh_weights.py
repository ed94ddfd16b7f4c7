"""Another initialisation of a module, by the ``reset_parameters`` of its layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn, norm_except_dim
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lightning_landscape.either_lightning import MisconfigurationException

_POWER_ITERATIONS = 15  # as torch's own spectral_norm takes when it is applied
_TURNS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # an exponential map leaves nothing at 1.9, a Cayley map at 2.8
_SHOWN = 5


@torch.no_grad()
def reset_parameters(module: nn.Module) -> None:
    """Calls ``reset_parameters`` of every submodule that owns trainable parameters; frozen ones keep their values.

    Where a weight is computed from parameters (weight norm, spectral norm, pruning by torch.nn.utils, old or new, and
    other parametrizations) the layer draws the weight, and the parameters are those that give it: the computed weight
    is as new as any other. Masks of pruning stay. This is the initialisation of the layers, not one that the module's
    own ``__init__`` may give them afterwards.

    Raises:
        MisconfigurationException: naming the submodules that have no such method.
    """
    stubborn = []
    frozen = {p: p.detach().clone() for p in module.parameters() if not p.requires_grad}
    # Children first: what owns them may set what their own initialisation does not.
    for name, child in reversed(list(module.named_modules())):
        if isinstance(child, ParametrizationList):
            continue  # what it holds belongs to the layer
        computed = _computed(child)
        trains = any(parameter.requires_grad for parameter in child.parameters(recurse=False))
        if is_parametrized(child):
            trains |= any(p.requires_grad for p in child.parametrizations.parameters())
        if not trains:
            continue
        reset = getattr(child, "reset_parameters", None) or getattr(child, "_reset_parameters", None)
        if not callable(reset):
            stubborn.append(f"{name or 'the module itself'} ({type(child).__name__})")
        elif computed:
            _reset_computed(child, computed)
        else:
            reset()
    for parameter, value in frozen.items():
        parameter.copy_(value)
    if stubborn:
        raise MisconfigurationException(
            f"pairs='twin' cannot re-initialise {', '.join(stubborn[:_SHOWN])}: these own parameters and have no "
            "reset_parameters(). Add one, or pass reinitialize=lambda module: ..., which draws new weights in place"
        )


def require_fresh(twin: nn.Module, module: nn.Module) -> None:
    """Refuses a twin that still has random weights of the module; ones, zeros and the like may be equal.

    Args:
        twin: a copy of the module that was given another initialisation.
        module: what it was copied from.

    Raises:
        MisconfigurationException: naming the parameters.
    """
    # The same order: the one is a copy of the other, whose names may differ by those of torch.compile.
    pairs = [
        (name, mine, theirs)
        for (name, mine), theirs in zip(twin.named_parameters(), module.parameters(), strict=True)
        if mine.requires_grad
    ]
    equal = [(name, mine) for name, mine, theirs in pairs if torch.equal(mine, theirs)]
    if len(equal) == len(pairs):
        raise MisconfigurationException(
            "the twin has the very weights of the module: pass reinitialize=lambda module: ... that draws new ones"
        )
    kept = [name for name, mine in equal if len(mine.unique()) > 2]
    if kept:
        raise MisconfigurationException(
            f"the twin still has the module's values in {len(kept)} parameters, among them {', '.join(kept[:_SHOWN])}: "
            "have reset_parameters() of the layer draw them too, pass reinitialize=lambda module: ... that does, or "
            "freeze what both are to share"
        )


def _computed(layer: nn.Module) -> dict[str, Callable[[Tensor], None]]:
    """The weights that a layer computes from parameters, and what has it compute a given one."""
    found: dict[str, Callable[[Tensor], None]] = {}
    if is_parametrized(layer):
        for name in layer.parametrizations:  # type: ignore[union-attr]
            found[str(name)] = partial(_parametrize, layer, str(name))
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            found[hook.name] = partial(_normalize, layer, hook)
        elif isinstance(hook, SpectralNorm):
            found[hook.name] = partial(_bound, layer, hook)
        elif isinstance(hook, BasePruningMethod):
            found[hook._tensor_name] = partial(_prune, layer, hook)
    return found


def _reset_computed(layer: nn.Module, computed: Mapping[str, Callable[[Tensor], None]]) -> None:
    """Has a stand-in with plain weights draw them, and takes them over."""
    plain = type(layer).__mro__[1] if is_parametrized(layer) else type(layer)
    stand_in: nn.Module = object.__new__(plain)
    vars(stand_in).update({key: value for key, value in vars(layer).items() if key not in computed})
    stand_in._parameters = dict(layer._parameters)
    stand_in._modules = {key: part for key, part in layer._modules.items() if key != "parametrizations"}
    for name in computed:
        stand_in._parameters[name] = nn.Parameter(getattr(layer, name).detach().clone())
    reset = getattr(stand_in, "reset_parameters", None) or stand_in._reset_parameters
    reset()  # type: ignore[operator]
    for name, write in computed.items():
        write(getattr(stand_in, name).detach())


def _parametrize(layer: nn.Module, name: str, value: Tensor) -> None:
    steps: ParametrizationList = layer.parametrizations[name]  # type: ignore[index, assignment]
    pointed, before = getattr(layer, name).flatten(), [buffer.clone() for buffer in steps.buffers()]
    try:
        setattr(layer, name, value)
    except RuntimeError:  # no inverse: the original is what the layer would have drawn
        steps.original.copy_(value)
    if not all(map(torch.equal, before, steps.buffers())):
        # Orthogonal ones put the weight into a buffer, their base. It stays that of the module, which makes the two
        # comparable, and the parameters turn it, by the angles that leave least of where it pointed.
        for buffer, old in zip(steps.buffers(), before, strict=True):
            buffer.copy_(old)
        start: Tensor = steps.original.clone()
        turn = torch.randn_like(start) / math.sqrt(max(start.shape))
        turn.diagonal(dim1=-2, dim2=-1).zero_()  # which holds signs, and nothing else

        def left(scale: float) -> float:
            steps.original.copy_(start + scale * turn)
            return abs(float(torch.cosine_similarity(getattr(layer, name).flatten(), pointed, dim=0)))

        left(min(_TURNS, key=left))
    mode = steps.training
    steps.train()
    for _ in range(_POWER_ITERATIONS):  # for what is estimated from the weights, singular vectors
        getattr(layer, name)
    steps.train(mode)


def _normalize(layer: nn.Module, hook: WeightNorm, value: Tensor) -> None:
    getattr(layer, f"{hook.name}_v").copy_(value)
    getattr(layer, f"{hook.name}_g").copy_(norm_except_dim(value, 2, hook.dim))
    setattr(layer, hook.name, hook.compute_weight(layer))


def _bound(layer: nn.Module, hook: SpectralNorm, value: Tensor) -> None:
    getattr(layer, f"{hook.name}_orig").copy_(value)
    for _ in range(_POWER_ITERATIONS):
        setattr(layer, hook.name, hook.compute_weight(layer, do_power_iteration=True))


def _prune(layer: nn.Module, hook: BasePruningMethod, value: Tensor) -> None:
    getattr(layer, f"{hook._tensor_name}_orig").copy_(value)
    setattr(layer, hook._tensor_name, hook.apply_mask(layer))
