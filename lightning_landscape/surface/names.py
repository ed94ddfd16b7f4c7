"""Names of modules and of the tensors in them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from lightning_landscape.storage.named_tensors import clean_name


def join(module: str, tensor: str) -> str:
    """The name of a tensor in the module of a name, which is empty for the outermost.

    Example:
        >>> join("net.0", "weight"), join("", "weight")
        ('net.0.weight', 'weight')
    """
    return f"{module}.{tensor}" if module else tensor


def modules_in_eval(module: nn.Module) -> set[str]:
    """The parts of a module in train mode that are in eval mode: their owner froze them. Names without ``_orig_mod.``.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1).eval())
        >>> modules_in_eval(net)
        {'1'}
    """
    names = (name for name, child in module.named_modules() if module.training and not child.training)
    return {clean_name(join(name, "_")).rpartition(".")[0] for name in names}


def buffer_places(module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Every buffer under each of its names, with the module that owns it and its name there."""
    for prefix, child in module.named_modules(remove_duplicate=False):
        for key, buffer in child._buffers.items():
            if buffer is not None:
                yield join(prefix, key), child, key
