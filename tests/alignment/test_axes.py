"""The algebra of axes: what two types have in common, by hand."""

from __future__ import annotations

import pytest

from lightning_landscape.alignment.axes import (
    Axis,
    fix,
    fixed,
    flatten,
    free,
    is_fixed,
    join,
    keep_blocks,
    length,
    reshape,
    resolve,
    split,
    unify,
)


def shape(axis: Axis) -> list[list[int | str]]:
    """Segments of factors: the size of a free one, ``=size`` of a fixed one, ``size/block`` of one with blocks."""

    def factor(dim: object) -> int | str:
        if dim.fixed:  # type: ignore[attr-defined]
            return f"={dim.size}"  # type: ignore[attr-defined]
        return f"{dim.size}/{dim.block}" if dim.block > 1 else dim.size  # type: ignore[attr-defined]

    return [[factor(dim) for dim in product] for product in resolve(axis)]


def test_two_free_axes_become_one() -> None:
    left, right = free(4), free(4)
    unify(left, right)
    assert resolve(left) == resolve(right)
    assert shape(left) == [[4]]
    unify(left, right)
    assert shape(left) == [[4]]


def test_a_fixed_axis_fixes_the_other() -> None:
    axis, other = free(4), free(4)
    unify(axis, other)
    unify(other, fixed(4))
    assert is_fixed(axis)


def test_a_flattened_axis_is_a_product() -> None:
    channels, columns = free(3), free(12)
    unify(flatten([channels, fixed(2), fixed(2)]), columns)
    assert shape(columns) == [[3, "=4"]]
    unify(columns, fixed(12))
    assert is_fixed(channels)


def test_a_concatenation_is_a_sum() -> None:
    first, second, columns = free(3), free(2), free(5)
    unify(join([first, second]), columns)
    assert shape(columns) == [[3], [2]]
    unify(columns, join([free(2), free(3)]))  # segments that overlap: 2 + 1 + 2
    assert shape(first) == [[2], ["=1"]] or shape(first) == [[2], []]
    assert shape(second) == [[2]]


def test_halves_that_are_one() -> None:
    half, whole = free(3), free(6)
    unify(whole, join([half, half]))
    assert shape(whole) == [[3], [3]]
    unify(whole, flatten([free(2), free(3)]))  # the same triple twice: the outer pair stays
    assert shape(whole) == [[3], [3]]
    assert resolve(whole)[0] == resolve(whole)[1] == resolve(half)[0]


def test_products_refine_each_other() -> None:
    left, right = flatten([free(6), free(2)]), flatten([free(2), free(6)])
    unify(left, right)
    assert shape(left) == shape(right) == [[2, 3, 2]]


def test_products_that_do_not_divide_are_fixed() -> None:
    left, right = flatten([free(2), free(6)]), flatten([free(3), free(4)])
    unify(left, right)
    assert is_fixed(left)
    assert is_fixed(right)


def test_a_sum_under_an_outer_factor_is_fixed() -> None:
    parts = [free(2), free(3)]
    axis = flatten([free(2), join(parts)])
    assert shape(axis) == [[2, "=5"]]
    assert all(map(is_fixed, parts))
    outer = flatten([join([free(2), free(3)]), fixed(4)])  # but it distributes over an inner one
    assert shape(outer) == [[2, "=4"], [3, "=4"]]


def test_blocks_go_to_the_factor_that_they_cut() -> None:
    plain, product, inner, across = free(8), flatten([free(4), fixed(3)]), flatten([free(2), free(4)]), free(6)
    keep_blocks(plain, 2)
    assert shape(plain) == [["8/2"]]
    keep_blocks(product, 6)
    assert shape(product) == [["4/2", "=3"]]
    keep_blocks(inner, 4)  # whole factors are blocks already
    assert shape(inner) == [[2, 4]]
    keep_blocks(across, 1)
    keep_blocks(across, 6)
    assert shape(across) == [[6]]


def test_two_kinds_of_blocks_on_one_axis_are_fixed() -> None:
    axis = free(12)
    keep_blocks(axis, 2)
    keep_blocks(axis, 2)
    assert shape(axis) == [["12/2"]]
    keep_blocks(axis, 3)
    assert is_fixed(axis)


def test_blocks_survive_a_cut_along_them_alone() -> None:
    axis = free(8)
    keep_blocks(axis, 2)
    assert [shape(part) for part in split(axis, [4, 4])] == [[["4/2"]], [["4/2"]]]
    axis = free(8)
    keep_blocks(axis, 2)
    assert all(map(is_fixed, split(axis, [3, 5])))
    axis, other = free(8), free(8)
    keep_blocks(axis, 2)
    unify(axis, other)
    assert shape(other) == [["8/2"]]


def test_reshape_follows_the_rows() -> None:
    batch, channels, side = fixed(2), free(6), fixed(3)
    assert [shape(a) for a in reshape([batch, channels, side, side], (2, 54))] == [[["=2"]], [[6, "=9"]]]
    heads = reshape([batch, channels], (2, 1, 3, 2))
    assert [shape(a) for a in heads] == [[["=2"]], [[]], [[3]], [[2]]]
    assert shape(channels) == [[3, 2]]
    assert [length(axis) for axis in reshape([batch, channels], (12,))] == [12]
    assert reshape([fixed(1)], ()) == []


def test_axes_of_two_lengths_cannot_be_one() -> None:
    with pytest.raises(ValueError, match="axes of 3 and 4 entries"):
        unify(free(3), free(4))


def test_fixing_reaches_every_part() -> None:
    half = free(3)
    whole = free(6)
    unify(whole, join([half, half]))
    fix(half)
    assert shape(whole) == [["=6"]]
