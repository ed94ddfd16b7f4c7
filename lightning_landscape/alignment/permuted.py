"""The permuted copy of a point on a loss surface that lies closest to another point."""

from __future__ import annotations

import math

from torch import Tensor

from lightning_landscape.alignment import weight_matching
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
    example = getattr(surface.module, "example_input_array", None)
    if example is None:
        batch = next(iter(surface.batches))
        example = batch[0] if isinstance(batch, list | tuple) else batch
    copy = weight_matching(surface.module, theta_a, theta_b, example).to(theta_b)
    loss, expected = surface.loss(copy), surface.loss(theta_b)
    # Written so that two losses that are not finite pass: they are the search's to report.
    if math.isfinite(expected) and not math.isclose(loss, expected, rel_tol=_SAME_LOSS, abs_tol=1e-6):
        raise ValueError(
            f"E is {expected:.6g} at theta_b and {loss:.6g} at its permuted copy, which are therefore not one "
            "function: to align, E has to be a loss of the module's output alone, and batch_norm='recalibrate'"
        )
    return copy
