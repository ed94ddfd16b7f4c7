"""The permuted copies of points on a loss surface that lie close to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from lightning_landscape.alignment.specification import permutation_spec
from lightning_landscape.alignment.together import match_together
from lightning_landscape.surface import LossSurface

_SAME_LOSS = 1e-3  # relative difference that rounding may make between a point and its permuted copy


def permuted_copy(surface: LossSurface, theta_a: Tensor, theta_b: Tensor) -> Tensor:
    """``theta_b`` with its hidden units permuted to match those of ``theta_a`` (weight matching): P theta_b, (P,).

    The graph of ``forward`` is traced on the module's ``example_input_array``, or else on the first part of the
    first batch.

    Args:
        surface: the loss surface, whose module says which permutations keep the function.
        theta_a: the point that is matched, shape (P,).
        theta_b: the point whose units are permuted, shape (P,).

    Raises:
        ValueError: where the permutations of the module cannot be derived, and where the copy has another loss.
    """
    return permuted_copies(surface, [theta_a, theta_b])[1]


def permuted_copies(surface: LossSurface, points: Sequence[Tensor]) -> list[Tensor]:
    """All points with their hidden units in one order, that of the first (:func:`match_together`).

    Args:
        surface: see :func:`permuted_copy`.
        points: (P,) each, at least one. The first is returned as it is.

    Raises:
        ValueError: as :func:`permuted_copy`.
    """
    example = getattr(surface.module, "example_input_array", None)
    if example is None:
        batch = next(iter(surface.batches))
        example = batch[0] if isinstance(batch, list | tuple) else batch
    spec = permutation_spec(surface.module, example)
    copies = [points[0]]
    for point, permutations in zip(points[1:], match_together(spec, points)[1:], strict=True):
        copy = spec.apply(point, permutations).to(point)
        loss, expected = surface.loss(copy), surface.loss(point)
        # Written so that two losses that are not finite pass: they are the search's to report.
        if math.isfinite(expected) and not math.isclose(loss, expected, rel_tol=_SAME_LOSS, abs_tol=1e-6):
            raise ValueError(
                f"E is {expected:.6g} at a point and {loss:.6g} at its permuted copy, which are therefore not one "
                "function: to align, E has to be a loss of the module's output alone, and batch_norm='recalibrate'"
            )
        copies.append(copy)
    return copies
