"""The singular vectors by which spectral normalisation divides: buffers that follow from the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm

from lightning_landscape.surface.names import join


@dataclass(frozen=True)
class _Normalised:
    """A weight that is divided by its largest singular value, and who keeps its singular vectors."""

    owner: nn.Module
    left: str
    right: str
    weight: Callable[[], Tensor]
    dim: int


class SpectralNorms:
    """The spectral norms of a module, both of torch's kinds, with exact singular vectors at every point.

    Training follows u and v by power iteration, and keeps them as buffers. Here they are computed from the weight W,
    reshaped to a matrix: u is the eigenvector of the largest eigenvalue of ``W W^T``, ``v = W^T u / ||W^T u||``, so
    that ``u^T W v`` is the spectral norm (Miyato et al. 2018, arXiv 1802.05957, section 2.1).

    Args:
        module: the detached copy that is evaluated.

    Attributes:
        names: the buffers of the singular vectors.
    """

    def __init__(self, module: nn.Module) -> None:
        self._weights = list(_normalised(module))
        owners = {id(child): name for name, child in module.named_modules()}
        self.names = {join(owners[id(one.owner)], key) for one in self._weights for key in (one.left, one.right)}

    @torch.no_grad()
    def refresh(self) -> None:
        """Computes the singular vectors of the weights as they are now."""
        for one in self._weights:
            matrix = one.weight().movedim(one.dim, 0).flatten(1).double()
            left, right = _leading_vectors(matrix)
            one.owner._buffers[one.left].copy_(left)  # type: ignore[union-attr]
            one.owner._buffers[one.right].copy_(right)  # type: ignore[union-attr]


def _leading_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    if not matrix.isfinite().all():  # a point that diverged: its loss is no number either
        return matrix.new_full((len(matrix),), torch.nan), matrix.new_full((matrix.shape[1],), torch.nan)
    wide = matrix.shape[0] <= matrix.shape[1]
    small = matrix if wide else matrix.T
    first = torch.linalg.eigh(small @ small.T).eigenvectors[:, -1]
    second = nn.functional.normalize(small.T @ first, dim=0)
    return (first, second) if wide else (second, first)


def _normalised(module: nn.Module) -> Iterator[_Normalised]:
    for child in module.modules():
        if isinstance(child, ParametrizationList):
            for index, step in enumerate(child):
                if isinstance(step, _SpectralNorm) and hasattr(step, "_u"):
                    yield _Normalised(step, "_u", "_v", partial(_before, child, index), step.dim)
        for hook in child._forward_pre_hooks.values():
            if isinstance(hook, SpectralNorm):
                weight = partial(getattr, child, f"{hook.name}_orig")
                yield _Normalised(child, f"{hook.name}_u", f"{hook.name}_v", weight, hook.dim)


def _before(steps: ParametrizationList, index: int) -> Tensor:
    """The weight that a step of a parametrization gets."""
    first, *others = steps
    originals = [steps.original] if steps.is_tensor else [getattr(steps, f"original{i}") for i in range(steps.ntensors)]
    if index == 0:
        return originals[0]
    weight: Tensor = first(*originals)
    for step in others[: index - 1]:
        weight = step(weight)
    return weight
