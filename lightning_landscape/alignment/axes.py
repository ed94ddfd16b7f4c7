"""How the axes of tensors permute: a small algebra of sums and products, solved by unification.

Every axis of every tensor in a network has a type that says which relabellings of its coordinates go
with relabelled weights. A type is a sum (segments one after another, as ``cat`` makes them) of products
(row-major factors, as ``flatten`` makes them) of dimensions. A dimension may be permuted in any way, in
blocks, or, being fixed, not at all. Where two axes meet, in an addition or a contraction, their types
become one: :func:`unify`. What cannot be expressed is fixed, which is always right: it asks for a
subgroup of the symmetries, never for more than there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


class Dim:
    """A dimension of ``size`` interchangeable entries, until it is fixed or found to be composed of others.

    Attributes:
        size: number of entries.
        fixed: whether every entry has to stay where it is.
        block: permutations carry consecutive blocks of this many entries onto each other, and permute
            freely within them; 1 is no restriction.
        parts: the axis that this dimension was found to be, ``None`` while it is elementary.
    """

    __slots__ = ("block", "fixed", "parts", "size")

    def __init__(self, size: int, fixed: bool = False) -> None:
        self.size = size
        self.fixed = fixed
        self.block = 1
        self.parts: Axis | None = None


Product = tuple[Dim, ...]
Axis = tuple[Product, ...]


def free(size: int) -> Axis:
    """A new axis whose entries may be permuted in any way."""
    return ((Dim(size),),)


def fixed(size: int) -> Axis:
    """A new axis whose entries stay where they are."""
    return ((Dim(size, fixed=True),),)


def length(axis: Axis) -> int:
    """Number of entries along an axis."""
    return sum(_size(product) for product in axis)


def join(axes: Iterable[Axis]) -> Axis:
    """The sum: axes one after another."""
    return tuple(product for axis in axes for product in axis)


def flatten(axes: Sequence[Axis]) -> Axis:
    """The row-major product of several axes as one.

    A sum under an outer factor repeats its segments, which has no expression here: it is fixed.
    """
    terms: list[Product] = [()]
    for axis in map(resolve, axes):
        if len(axis) > 1 and any(_size(term) > 1 for term in terms):
            fix(axis)
            axis = fixed(length(axis))
        terms = [(*head, *tail) for head in terms for tail in axis]
    return _tidy(terms)


def resolve(axis: Axis) -> Axis:
    """The axis in its elementary dimensions, without factors of one entry and with fixed neighbours merged."""
    terms: list[Product] = []
    for product in axis:
        if any(dim.parts is not None for dim in product):
            terms += flatten([((dim,),) if dim.parts is None else dim.parts for dim in product])
        else:
            terms.append(product)
    return _tidy(terms)


def is_fixed(axis: Axis) -> bool:
    """Whether every entry of the axis stays where it is."""
    return all(dim.fixed for product in resolve(axis) for dim in product)


def fix(axis: Axis) -> None:
    """Keeps every entry of the axis where it is."""
    for product in resolve(axis):
        for dim in product:
            dim.fixed = True


def unify(left: Axis, right: Axis) -> None:
    """Makes two axes of one length permute alike, by the largest common type that can be expressed."""
    if length(left) != length(right):
        raise ValueError(f"axes of {length(left)} and {length(right)} entries cannot be one")
    lefts, rights = list(reversed(resolve(left))), list(reversed(resolve(right)))
    if len(lefts) == 1 and _is_free(lefts[0]):
        return _bind(lefts[0][0], right)
    if len(rights) == 1 and _is_free(rights[0]):
        return _bind(rights[0][0], left)
    while lefts:
        # Resolved again, because what came before may have bound a dimension that comes again.
        for terms in (lefts, rights):
            terms.extend(reversed(resolve((terms.pop(),))))
        one, other = lefts.pop(), rights.pop()
        if _size(one) > _size(other):
            one, rest = _cut(one, _size(other))
            lefts.append(rest)
        elif _size(one) < _size(other):
            other, rest = _cut(other, _size(one))
            rights.append(rest)
        _match(one, other)


def keep_blocks(axis: Axis, block: int) -> None:
    """Allows only permutations that carry consecutive blocks of ``block`` entries onto each other."""
    axis = resolve(axis)
    if any(_size(product) % block for product in axis):
        return fix(axis)
    for product in axis:
        inside = block
        for dim in reversed(product):
            if inside % dim.size == 0:
                inside //= dim.size
            elif dim.size % inside == 0:
                _set_block(dim, inside)
                inside = 1
            else:
                fix((product,))
                break


def split(axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    """Cuts an axis into consecutive ones of the given lengths."""
    parts = [free(size) for size in sizes]
    unify(axis, join(parts))
    return parts


def reshape(axes: Sequence[Axis], shape: Sequence[int]) -> list[Axis]:
    """Axes of a tensor after a row-major reshape to ``shape``."""
    old, new, result = list(reversed(axes)), list(reversed(shape)), []
    while old or new:
        taken, wanted = [old.pop()] if old else [], [new.pop()] if new else []
        while (have := math.prod(map(length, taken))) != (want := math.prod(wanted)):
            if have < want:
                taken.append(old.pop())
            else:
                wanted.append(new.pop())
        if len(wanted) == 1:
            result.append(flatten(taken))
        elif wanted:
            parts = [free(size) for size in wanted]
            unify(flatten(taken), flatten(parts))
            result += parts
    return result


def _size(product: Product) -> int:
    return math.prod(dim.size for dim in product)


def _is_free(product: Product) -> bool:
    return len(product) == 1 and not product[0].fixed


def _stays(product: Product) -> bool:
    return all(dim.fixed for dim in product)


def _tidy(terms: Iterable[Product]) -> Axis:
    tidy: list[Product] = []
    for term in terms:
        product: list[Dim] = []
        for dim in term:
            if product and dim.fixed and product[-1].fixed:
                product[-1] = Dim(product[-1].size * dim.size, fixed=True)
            elif dim.size > 1:
                product.append(dim)
        if tidy and _stays(tuple(product)) and _stays(tidy[-1]):
            tidy[-1] = (Dim(_size(tidy[-1]) + _size(tuple(product)), fixed=True),)
        else:
            tidy.append(tuple(product))
    return tuple(tidy)


def _bind(dim: Dim, axis: Axis) -> None:
    axis = resolve(axis)
    if axis == ((dim,),):
        return
    dim.parts = axis
    if dim.block > 1:
        keep_blocks(axis, dim.block)


def _set_block(dim: Dim, block: int) -> None:
    if dim.fixed or block in (1, dim.size):
        return
    if dim.block not in (1, block):
        dim.fixed = True
    dim.block = block


def _cut(product: Product, size: int) -> tuple[Product, Product]:
    lead, rest = product[0], product[1:]
    if size % _size(rest):
        fix((product,))
        return (Dim(size, fixed=True),), (Dim(_size(product) - size, fixed=True),)
    size //= _size(rest)
    head, tail = Dim(size, lead.fixed), Dim(lead.size - size, lead.fixed)
    if not lead.fixed:
        _bind(lead, ((head,), (tail,)))
    return (head, *rest), (tail, *rest)


def _match(one: Product, other: Product) -> None:
    left, right = resolve((one,)), resolve((other,))
    if len(left) > 1 or len(right) > 1:
        return unify(left, right)
    (one,), (other,) = left, right
    if one == other:
        return None
    if _stays(one) or _stays(other):
        fix(left)
        return fix(right)
    if _is_free(one) or _is_free(other):
        return unify(left, right)
    if one[0].size < other[0].size:
        one, other = other, one
    lead, size = one[0], other[0].size
    if lead.size % size:
        fix(left)
        return fix(right)
    outer = Dim(size, lead.fixed)
    inner = Dim(lead.size // size, lead.fixed)
    if not lead.fixed:
        _bind(lead, ((outer, inner),))
    _match((outer,), other[:1])
    return _match((inner, *one[1:]), other[1:])
