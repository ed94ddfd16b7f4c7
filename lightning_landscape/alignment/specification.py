"""The permutation specification: which groups of units may permute, and where each acts on the parameters."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_landscape.alignment.axes import Axis, Dim, resolve
from lightning_landscape.alignment.labelling import LabelledModule

Permutation = NDArray[np.int64]

_TOLERANCE = 1e-3  # of the check in single precision, relative to the largest output; a wrong group differs by about 1


@dataclass(frozen=True)
class PermutationGroup:
    """Units that may be permuted among each other.

    Attributes:
        name: the first axis that the group acts on, as ``parameter:axis``.
        size: number of units n; a permutation is an array (n,) with ``new[i] = old[permutation[i]]``.
        block: permutations map consecutive blocks of this many units onto each other, and permute freely
            within them; 1 is no restriction.
    """

    name: str
    size: int
    block: int = 1


class Factor(NamedTuple):
    """A row-major factor of (a segment of) an axis: ``size`` entries, permuted by a group or by none."""

    size: int
    group: int | None


# The segments of an axis, one after another, each a row-major product of factors.
Layout = tuple[tuple[Factor, ...], ...]


class Site(NamedTuple):
    """Where a group acts: on ``axis`` of a tensor, entries ``start`` to ``stop``, as the factor number ``factor``.

    ``sizes`` are the factors of that segment: a convolution's channel that was flattened with its 49 pixels
    has ``sizes=(channels, 49)`` and ``factor=0``, so that each channel moves a block of 49 columns.
    """

    tensor: str
    axis: int
    start: int
    stop: int
    sizes: tuple[int, ...]
    factor: int


@dataclass(frozen=True)
class PermutationSpec:
    """The permutations of hidden units that leave the function of a module as it is.

    Attributes:
        groups: independent groups of units; a point in the symmetry group is one permutation for each.
        layouts: for each axis of each parameter and running statistic, by name, what permutes it.
        shapes: shapes of the trainable parameters, in the order of the flat vector theta, tied ones once.

    Example:
        >>> spec = permutation_spec(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), torch.zeros(1, 2))
        >>> spec.groups
        (PermutationGroup(name='0.weight:0', size=3, block=1),)
        >>> [(site.tensor, site.axis) for site in spec.sites(0)]
        [('0.weight', 0), ('0.bias', 0), ('2.weight', 1)]
    """

    groups: tuple[PermutationGroup, ...]
    layouts: Mapping[str, tuple[Layout, ...]]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def dimension(self) -> int:
        """P, the length of theta."""
        return sum(map(prod, self.shapes.values()))

    def sites(self, group: int) -> list[Site]:
        """Where a group, given by its number, acts on theta."""
        return [site for name in self.shapes for site in sites_of(name, self.layouts[name], group)]

    def identity(self) -> list[Permutation]:
        """The permutations that change nothing."""
        return [np.arange(group.size) for group in self.groups]

    def random(self, seed: int) -> list[Permutation]:
        """Permutations drawn uniformly, block by block where a group has blocks."""
        generator = np.random.default_rng(seed)
        drawn = []
        for group in self.groups:
            entries = np.arange(group.size).reshape(-1, group.block)
            entries = generator.permutation(generator.permuted(entries, axis=1) if group.block > 1 else entries)
            drawn.append(entries.reshape(-1))
        return drawn

    def apply(self, theta: Tensor, permutations: Sequence[Permutation]) -> Tensor:
        """P theta: the flat vector (P,) with all units permuted.

        Raises:
            ValueError: for a theta of another length, or what is no permutation of a group.
        """
        if theta.shape != (self.dimension,):
            raise ValueError(f"theta has shape {tuple(theta.shape)}, the parameters of the module ({self.dimension},)")
        self._check(permutations)
        chunks = theta.split([prod(shape) for shape in self.shapes.values()])
        moved = [
            self.permuted(name, chunk.view(shape), permutations).reshape(-1)
            for (name, shape), chunk in zip(self.shapes.items(), chunks, strict=True)
        ]
        return torch.cat(moved)

    def permute_state(self, state: Mapping[str, Tensor], permutations: Sequence[Permutation]) -> dict[str, Tensor]:
        """A ``state_dict()`` with all units permuted: parameters, running statistics, every name of a tied tensor.

        Raises:
            ValueError: for a tensor of another shape, or what is no permutation of a group.
        """
        self._check(permutations)
        moved = {}
        for name, tensor in state.items():
            layouts = self.layouts.get(name)
            if layouts is not None and tuple(tensor.shape) != tuple(map(_length, layouts)):
                raise ValueError(
                    f"{name!r} has shape {tuple(tensor.shape)} in the state and {tuple(map(_length, layouts))} in the "
                    "module: the two are of different architectures"
                )
            moved[name] = tensor if layouts is None else self.permuted(name, tensor, permutations)
        return moved

    def permuted(self, name: str, tensor: Tensor, permutations: Sequence[Permutation]) -> Tensor:
        """One named tensor with its units permuted."""
        for axis, layout in enumerate(self.layouts[name]):
            if any(factor.group is not None for segment in layout for factor in segment):
                index = torch.from_numpy(_index(layout, permutations)).to(tensor.device)
                tensor = tensor.index_select(axis, index)
        return tensor

    def _check(self, permutations: Sequence[Permutation]) -> None:
        if len(permutations) != len(self.groups):
            raise ValueError(f"expected {len(self.groups)} permutations, one for each group, got {len(permutations)}")
        for group, permutation in zip(self.groups, permutations, strict=True):
            if not np.array_equal(np.sort(permutation), np.arange(group.size)):
                raise ValueError(f"what is given for group {group.name!r} is no permutation of its {group.size} units")
            blocks = np.asarray(permutation).reshape(-1, group.block) // group.block
            if (blocks != blocks[:, :1]).any():
                raise ValueError(f"the permutation of group {group.name!r} splits blocks of {group.block} units")


def permutation_spec(module: nn.Module, example_input: Any) -> PermutationSpec:
    """The permutation symmetries of a module, derived from the graph of its forward.

    ``torch.fx`` traces the forward of a detached copy, in eval mode. Every axis of every tensor gets a type,
    and axes that meet (a weight's columns and what it multiplies, the two sides of a residual sum, the four
    gates of an LSTM) become one; what is left are the groups of units that may permute by themselves.
    The result is checked: two elements of it must not change the output on the example.

    What is allowed, where it is less than all permutations:

    - inputs and outputs of the module stay, as do frozen parameters and buffers other than running statistics,
      and the statistics of batch norms that are frozen (in eval mode inside a module in train mode);
      an LSTM's final states that forward returns as they are permute with its units
    - a group norm of g groups: channels within a group, and groups as wholes (``block``)
    - a convolution with groups: groups as wholes, and the channels of all groups alike; depthwise: any
    - attention heads: heads as wholes, features of query and key alike in all heads, and so for the values
    - transformer layers of torch.nn: their heads, and the units between the two linear maps, but for an activation that
      is not known to take each unit by itself
    - places in a sequence or image, packed ones too, and axes that are sliced by number, sorted or summed up in order,
      or along which a place is asked for (``max``, ``topk``), stay

    Args:
        module: any module; of a LightningModule the ``forward``, which has to be what its loss is made of.
            It is only read.
        example_input: what ``forward`` takes: one argument, or a tuple of positional ones. One example is enough.

    Returns:
        The specification, groups in the order of the parameters.

    Raises:
        ValueError: for a forward that cannot be traced or run on the example, and for a layer or function that
            has no rule; the message names it and says what to do.
    """
    return specify(LabelledModule(module, example_input))[0]


def specify(traced: LabelledModule) -> tuple[PermutationSpec, dict[Dim, int]]:
    """The checked specification of a module that is labelled already, and the number of each dimension's group."""
    numbers: dict[Dim, int] = {}
    groups: list[PermutationGroup] = []
    for name, tensor in traced.tensors.items():
        for axis, dims in enumerate(tensor.axes):
            for dim in itertools.chain(*resolve(dims)):
                if not dim.fixed and dim not in numbers:
                    numbers[dim] = len(groups)
                    groups.append(PermutationGroup(f"{name}:{axis}", dim.size, dim.block))
    layouts = {name: tuple(layout(axis, numbers) for axis in tensor.axes) for name, tensor in traced.tensors.items()}
    shapes = {name: tuple(p.shape) for name, p in traced.module.named_parameters() if p.requires_grad}
    spec = PermutationSpec(tuple(groups), layouts, shapes)
    _verify(traced, spec)
    return spec, numbers


def layout(axis: Axis, numbers: Mapping[Dim, int]) -> Layout:
    """What permutes an axis, in the numbers of groups."""
    return tuple(tuple(Factor(dim.size, numbers.get(dim)) for dim in product) for product in resolve(axis))


def sites_of(name: str, layouts: Sequence[Layout], group: int) -> list[Site]:
    """Where a group acts on a tensor with these axes."""
    return [
        Site(name, axis, start, start + prod(sizes), sizes, place)
        for axis, segments in enumerate(layouts)
        for start, segment in zip(_starts(segments), segments, strict=True)
        for sizes in [tuple(factor.size for factor in segment)]
        for place, factor in enumerate(segment)
        if factor.group == group
    ]


def units(tensor: Tensor, site: Site) -> Tensor:
    """The matrix (n, -1) whose rows are what each unit of a group owns of a tensor at one site."""
    segment = tensor.movedim(site.axis, 0)[site.start : site.stop]
    return segment.reshape(*site.sizes, -1).movedim(site.factor, 0).reshape(site.sizes[site.factor], -1)


def _verify(traced: LabelledModule, spec: PermutationSpec) -> None:
    tensors = {name: tensor.value.detach() for name, tensor in traced.tensors.items()}
    saved = {name: value.clone() for name, value in tensors.items()}

    def answers(state: Mapping[str, Tensor]) -> list[Tensor]:
        for name, value in tensors.items():
            value.copy_(state[name])
        return [answer.double() for answer in traced.answers() if answer.is_floating_point()]

    somewhere = _shaken(spec, saved)
    before = answers(somewhere)
    # Reversed, because what is drawn may leave a small group as it is.
    elements = [spec.random(0), [identity[::-1] for identity in spec.identity()]]
    moved = [answers(spec.permute_state(somewhere, element)) for element in elements]
    for name, value in tensors.items():
        value.copy_(saved[name])
    precision = max((torch.finfo(value.dtype).eps for value in saved.values() if value.is_floating_point()), default=0)
    for old, *others in zip(before, *moved, strict=True):
        scale = float(old.abs().nan_to_num(0, 0, 0).amax()) if old.numel() else 0
        atol = max(_TOLERANCE, 30 * precision) * scale
        if not all(torch.allclose(old, new, rtol=0, atol=atol, equal_nan=True) for new in others):
            raise ValueError(
                f"{type(traced.module).__name__} answers differently after its units are permuted: it draws random "
                "numbers in eval mode, keeps something from call to call, or a hook or an overridden method of a layer "
                "does what its class does not say. Remove that, or align a module without it"
            )


def _shaken(spec: PermutationSpec, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state near by: the zeros and ones that layers start from would hide whether they are permuted."""
    generator = torch.Generator().manual_seed(0)
    shaken = {}
    for name, value in state.items():
        shaken[name] = value
        if any(factor.group is not None for axis in spec.layouts[name] for segment in axis for factor in segment):
            noise = torch.rand(value.shape, generator=generator).to(value)
            if name in spec.shapes:
                noise -= 0.5  # running statistics grow, because a variance stays positive
            shaken[name] = value + noise * (0.01 + 0.3 * value.square().mean().sqrt())
    return shaken


def _starts(layout: Layout) -> list[int]:
    return [sum(prod(factor.size for factor in segment) for segment in layout[:place]) for place in range(len(layout))]


def _length(layout: Layout) -> int:
    return sum(prod(factor.size for factor in segment) for segment in layout)


def _index(layout: Layout, permutations: Sequence[Permutation]) -> NDArray[np.int64]:
    parts = []
    for start, segment in zip(_starts(layout), layout, strict=True):
        index = np.arange(start, start + prod(factor.size for factor in segment))
        index = index.reshape([factor.size for factor in segment])
        for axis, factor in enumerate(segment):
            if factor.group is not None:
                index = index.take(permutations[factor.group], axis)
        parts.append(index.reshape(-1))
    return np.concatenate(parts) if parts else np.arange(1)
